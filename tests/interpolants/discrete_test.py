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
