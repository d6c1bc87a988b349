"""DDPM and DDIM: the published walks, and the exact law."""

import keras
import numpy as np
import pytest
from helpers.close import close
from helpers.discrete import EXPECTED
from helpers.discrete import KINDS
from helpers.discrete import array
from helpers.discrete import gaussian
from helpers.discrete import published
from helpers.gaussian import affine
from helpers.gaussian import build
from helpers.gaussian import exact
from helpers.gaussian import law_after
from helpers.gaussian import noise
from helpers.gaussian import slope
from published import ddpm_toy as toy

import keras_flows as kf
from keras_flows.samplers import request


class Recording(kf.samplers.Loop):
    """Keeps the states of a walk."""

    def __init__(self):
        super().__init__()
        self.states = []

    def function(self, *args):
        step = super().function(*args)

        def recorded(*inputs):
            x, state = step(*inputs)
            self.states.append(array(x))
            return x, state

        return recorded


@pytest.mark.parametrize(
    "name",
    [
        name
        if name == "learned"
        else pytest.param(name, marks=pytest.mark.once)
        for name in toy.WALKS
    ],
)
def test_walks_are_the_published(name, monkeypatch):
    """States after the first, the middle and the last step."""
    kind, learn_sigma, schedule, sampler, steps, options = toy.WALKS[name]
    noises = toy.noises(steps)

    class Published:
        """The noise that the published code was given."""

        def __init__(self, seed):
            pass

        def draw(self, step, shape):
            return keras.ops.convert_to_tensor(noises[step])

    monkeypatch.setattr(request, "Streams", Published)
    model = published(kind, learn_sigma, schedule)
    cls = {"ddpm": kf.samplers.DDPM, "ddim": kf.samplers.DDIM}[sampler]
    model.loop = Recording()
    guidance = {}
    if learn_sigma:
        guidance = {
            "guidance_scale": toy.SCALE,
            "guidance_channels": toy.CHANNELS,
        }
    model.generate(
        condition=toy.labels(), num_steps=steps, seed=0,
        sampler=cls(**options), **guidance,
    )  # fmt: skip
    states = model.loop.states
    kept = np.stack([states[i] for i in (0, len(states) // 2, -1)])
    close(kept, EXPECTED[f"walk_{name}"], 5)


@pytest.mark.parametrize("kind", KINDS)
def test_ddim_converges_to_the_flow(kind, rng):
    model, oracle = gaussian(kind)
    z, steps, errors = noise(rng, oracle), (20, 40, 80), []
    expected = oracle.jump(z.astype("float64"), np.ones(len(z)), 0 * z[:, 0])
    for n in steps:
        x = model.generate(noise=z, num_steps=n, sampler="ddim")
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert errors[-1] < 0.02
    assert abs(slope(steps, errors) - 1) < 0.3, errors


@pytest.mark.once
@pytest.mark.parametrize("sampler, tol", [("euler", 0.06), ("heun", 0.01)])
def test_other_samplers_follow_the_flow(sampler, tol, rng):
    model, oracle = gaussian()
    z = noise(rng, oracle)
    expected = oracle.jump(z.astype("float64"), np.ones(len(z)), 0 * z[:, 0])
    x = model.generate(noise=z, num_steps=100, sampler=sampler)
    assert np.abs(array(x) - expected).max() < tol


def posterior_law(oracle, times, variance):
    """The chain's law with the exact E[x | x_t], in float64."""
    o, mean, var = oracle, np.zeros(2), np.ones(2)
    for t, r in zip(times[:-1], times[1:], strict=True):
        abar, next_abar = (o.path.alpha(v) ** 2 for v in (t, r))
        beta = 1 - abar / next_abar
        c_x = np.sqrt(next_abar) * beta / (1 - abar)
        c_t = np.sqrt(1 - beta) * (1 - next_abar) / (1 - abar)
        gain = np.sqrt(abar) * np.array(o.s) ** 2 / o.var(t)
        a = c_t + c_x * gain
        added = beta * (1 - next_abar) / (1 - abar)
        added = beta if variance == "large" else added
        mean = a * mean + c_x * (np.array(o.m) - gain * o.mean(t))
        var = a**2 * var + (added if r > 0 else 0.0)
    return mean, var


@pytest.mark.once
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_law(variance):
    model, oracle = gaussian()
    sampler, errors, steps = kf.samplers.DDPM(variance), [], (64, 128, 256)
    for n in steps:
        times = sampler.times(model.interpolant, n)
        mean, var = law_after(sampler, model, n)
        expected = posterior_law(oracle, times, variance)
        np.testing.assert_allclose(mean, expected[0], atol=1e-4)
        np.testing.assert_allclose(var, expected[1], rtol=2e-4)
        errors.append(np.abs(var - np.array(oracle.s) ** 2).max())
    assert errors[-1] < 0.04
    assert abs(slope(steps, errors) - 1) < 0.3, errors


@pytest.mark.once
def test_samples_follow_the_law():
    model, oracle = gaussian()
    rows = 20_000
    z = np.random.default_rng(1).standard_normal((rows, 2)).astype("float32")
    x = array(model.generate(noise=z, num_steps=20, sampler="ddpm", seed=3))
    times = kf.samplers.DDPM().times(model.interpolant, 20)
    mean, var = posterior_law(oracle, times, "small")
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(var / rows))
    assert np.all(np.abs(x.var(0) - var) < 4 * var * np.sqrt(2 / rows))


# DDPM and DDIM on the library's other interpolants.


@pytest.mark.once
@pytest.mark.parametrize(
    "case",
    ["linear, noise at 0", "trigonometric, noise at 1", "trigflow"],
)
def test_ddim_order_on_other_interpolants(case, rng):
    model, oracle = build(case, n_mu=0.3, n_sigma=1.2)
    z, steps = noise(rng, oracle), (16, 32, 64)
    expected, errors = exact(model, oracle, z), []
    for n in steps:
        x = model.generate(noise=z, num_steps=n, sampler="ddim")
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert abs(slope(steps, errors) - 1) < 0.3, errors
    if case.startswith("linear"):
        euler = model.generate(noise=z, num_steps=16, sampler="euler")
        ddim = model.generate(noise=z, num_steps=16, sampler="ddim")
        np.testing.assert_allclose(array(ddim), array(euler), atol=2e-5)


@pytest.mark.once
@pytest.mark.parametrize("eta", [0.5, 1.0, None])
@pytest.mark.parametrize(
    "case, n_mu, n_sigma",
    [("linear, noise at 1", 0.3, 1.7), ("trigonometric, noise at 0", 0.0, 1.0)],
)
def test_noise_keeps_the_law_on_other_interpolants(case, n_mu, n_sigma, eta):
    """Mean and variance approach the data's at order 1."""
    model, oracle = build(case, n_mu, n_sigma)
    end = np.float64(model.interpolant.t_data)
    sampler = kf.samplers.DDPM() if eta is None else kf.samplers.DDIM(eta)
    steps = (32, 64, 128)
    laws = [law_after(sampler, model, n) for n in steps]
    errors = [np.abs(var - oracle.var(end)).max() for _, var in laws]
    means = [np.abs(mean - oracle.mean(end)).max() for mean, _ in laws]
    assert errors[-1] < 0.05 and means[-1] < 0.03
    assert abs(slope(steps, errors) - 1) < 0.35, errors


def test_edm_by_ddim_and_ddpm(rng):
    """On EDM's own grid, where the last step goes to sigma = 0."""
    model, oracle = build("variance exploding")
    z = noise(rng, oracle)
    for name, kwargs in (("DDIM", {}), ("DDPM", {"variance": "small"})):
        sampler = getattr(kf.samplers, name)(grid="karras", **kwargs)
        x = array(model.generate(noise=z, num_steps=200, sampler=sampler))
        if name == "DDIM":
            np.testing.assert_allclose(x, exact(model, oracle, z), atol=0.05)
    mean, var = law_after(sampler, model, 200)
    np.testing.assert_allclose(mean, oracle.m, atol=0.02)
    np.testing.assert_allclose(var, np.array(oracle.s) ** 2, rtol=0.1)


def test_ddpm_is_ddim_with_all_its_noise():
    model, _ = gaussian()
    times = kf.samplers.DDPM().times(model.interpolant, 20)
    ancestral = affine(kf.samplers.DDPM("small"), model, times)
    full = affine(kf.samplers.DDIM(eta=1.0), model, times)
    for one, other in zip(ancestral, full, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.all(ancestral[2][:-1] > 0) and np.all(ancestral[2][-1] == 0)
