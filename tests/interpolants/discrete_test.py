"""Tables and timesteps of the discrete chain."""

import numpy as np
import pytest
from helpers.discrete import EXPECTED
from helpers.discrete import array
from helpers.discrete import tensor
from published import ddpm_toy as toy

import keras_flows as kf


def path(*args):
    return kf.interpolants.DiscreteVariancePreserving(*args)


def test_tables_are_the_published():
    for schedule in ("linear", "cosine"):
        p = path(schedule)
        found = np.stack([
            p.betas,
            p.alphas_cumprod,
            p.posterior_variance,
            p.posterior_log_variance,
            p.posterior_data_coefficient,
        ])[:, ::111]  # fmt: skip
        assert found.dtype == np.float64
        np.testing.assert_allclose(
            found, EXPECTED[f"tables_{schedule}"], rtol=1e-10
        )


def test_tables_in_closed_form():
    k = np.arange(1000)
    np.testing.assert_allclose(path().betas, 1e-4 + 0.0199 * k / 999)
    # log abar = sum log(1 - beta), about 4e-5 at the end (arXiv 2006.11239).
    np.testing.assert_allclose(path().alphas_cumprod[-1], 4.036e-5, rtol=1e-3)

    def f(t):
        return np.cos(np.pi / 2 * (t + 0.008) / 1.008) ** 2

    # Until beta is cut off at 0.999, abar = f(t) / f(0).
    np.testing.assert_allclose(
        path("cosine").alphas_cumprod[:-1], f((k[:-1] + 1) / 1000) / f(0)
    )
    roots = np.sqrt(path("scaled_linear").betas)
    np.testing.assert_allclose(roots[[0, -1]] ** 2, [0.00085, 0.012])
    np.testing.assert_allclose(np.diff(roots, 2), 0, atol=1e-15)
    # Half the timesteps have twice the betas, and betas can be given.
    np.testing.assert_allclose(path("linear", 500).betas[0], 2e-4)
    given = path(path("linear", 500).betas)
    assert given.num_timesteps == 500
    assert given == path(given.betas) != path("linear", 500)
    np.testing.assert_array_equal(given.betas, path("linear", 500).betas)


def test_timesteps_are_the_published():
    for steps in toy.STEPS[1:]:
        k = path().timesteps(steps)
        np.testing.assert_array_equal(k, EXPECTED[f"timesteps_{steps}"])
        times = kf.samplers.DDPM().times(path(), steps)
        np.testing.assert_allclose(times[:-1], (k[::-1] + 1) / 1000)
        assert times[-1] == 0.0
    # The published code takes timestep 0 for one step, which is no noise.
    assert path().timesteps(1) == [999]
    shifted = path().timesteps(4, shift=3.0)
    f = np.arange(4) / 3
    np.testing.assert_allclose(shifted / 999, 3 * f / (1 + 2 * f), atol=1e-3)


@pytest.mark.once
def test_interpolant_is_the_chain():
    """alpha^2 = abar at the timesteps; derivatives and inverse between."""
    for schedule in ("linear", "cosine"):
        p = path(schedule)
        t = tensor((np.arange(1000) + 1) / 1000)
        np.testing.assert_array_equal(array(p.timestep(t)), np.arange(1000))
        alpha, sigma = array(p.alpha(t)), array(p.sigma(t))
        np.testing.assert_allclose(alpha, np.sqrt(p.alphas_cumprod), rtol=3e-6)
        np.testing.assert_allclose(
            sigma, np.sqrt(1 - p.alphas_cumprod), rtol=1e-6
        )
        # beta is constant between two timesteps.
        t = (np.arange(1, 990, 47) + 0.37) / 1000
        k = np.floor(t * 1000).astype(int)
        rate = 500 * np.log1p(-p.betas[k])
        alpha, sigma = (array(f(tensor(t))) for f in (p.alpha, p.sigma))
        np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
        share = t * 1000 - k
        np.testing.assert_allclose(
            alpha**2,
            p.alphas_cumprod[k - 1] * (1 - p.betas[k]) ** share,
            rtol=2e-5,
        )
        np.testing.assert_allclose(
            array(p.alpha_dot(tensor(t))), rate * alpha, rtol=1e-5
        )
        np.testing.assert_allclose(
            array(p.sigma_dot(tensor(t))), -rate * alpha**2 / sigma, rtol=1e-4
        )
        ratio = tensor(sigma / alpha)
        np.testing.assert_allclose(array(p.time_from_ratio(ratio)), t, 1e-4)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "scaled_linear"])
def test_nothing_of_the_data_is_left_at_the_last_timestep(schedule):
    """As arXiv 2305.08891 moves sqrt(abar): the first stays, the last is 0."""
    old, new = (path(schedule, None, zero) for zero in (False, True))
    before, after = (np.sqrt(p.alphas_cumprod) for p in (old, new))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    assert 0 < after[-1] <= 2.0**-12
    assert (np.diff(after) < 0).all()
    share = (before[:-1] - before[-1]) / (before[0] - before[-1])
    np.testing.assert_allclose(after[:-1], before[0] * share, rtol=1e-9)
    assert np.isfinite(new.posterior_log_variance).all()
    t = tensor(np.arange(1, 1001) / 1000)
    for f in (new.alpha, new.sigma, new.alpha_dot, new.sigma_dot):
        assert np.isfinite(array(f(t))).all()
    np.testing.assert_allclose(array(new.alpha(t)), after, rtol=1e-3)


@pytest.mark.once
def test_bright_images_come_out_bright():
    """Of data N(2, 0.5^2), from N(0, 1): the mean is lost without it."""

    class Gaussian:
        n_mu, n_sigma = 0.0, 1.0

        def __init__(self, path):
            self.interpolant = path

        def denoise(self, x, t):
            p = self.interpolant
            a, s = p.alpha(t)[:, None], p.sigma(t)[:, None]
            return 2.0 + a * 0.25 / (a**2 * 0.25 + s**2) * (x - 2.0 * a)

    z = tensor(np.random.default_rng(0).standard_normal((4000, 1)))
    z = (z - array(z).mean()) / array(z).std()
    off = []
    for zero in (False, True):
        p = path("scaled_linear", None, zero)
        x = kf.samplers.DDIM().unrolled(Gaussian(p), p.initial(z), 50)
        off.append(abs(array(x).mean() - 2.0))
    assert off[0] > 0.05 and off[1] < 0.01, off


def test_predicted_noise_needs_some_signal():
    network = kf.networks.MLP(2, 4, 1)
    with pytest.raises(ValueError, match="`zero_terminal_snr.*'v'.* or 'x0'"):
        kf.DiscreteInterface(network, zero_terminal_snr=True)
    model = kf.DiscreteInterface(
        network, prediction="v", zero_terminal_snr=True, ema=None,
        time_scale=1e-3,
    )  # fmt: skip
    copy = type(model).from_config(model.get_config())
    assert copy.interpolant == model.interpolant != path()
    x = array(model.generate(3, num_steps=4, seed=0))
    assert np.isfinite(x).all()
