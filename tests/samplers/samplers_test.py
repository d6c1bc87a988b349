"""Samplers on the exact velocity, score and map of a Gaussian.

The order of a solver is the slope of log error against log step. Float32
leaves about 1e-6 in a walk of tens of steps, so step counts stop where the
errors are still a hundred times that.
"""

import functools

import numpy as np
import pytest
from helpers.close import close
from helpers.gaussian import EXPLODING
from helpers.gaussian import ROWS
from helpers.gaussian import affine
from helpers.gaussian import array
from helpers.gaussian import build
from helpers.gaussian import exact
from helpers.gaussian import law_after
from helpers.gaussian import noise
from helpers.gaussian import slope
from helpers.gaussian import tensor
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf
from keras_flows.samplers.grids import time_grid


def rho_grid(high, low, steps):
    """A smooth grid down to `low`, where EDM's own takes one last step.

    That step, to 0, costs an error of sigma_min^2 whatever the number of
    steps, which has no order.
    """
    ends = np.array([high, low]) ** (1 / 7)
    return tuple(np.linspace(*ends, steps + 1) ** 7)


# Solvers.


ODE_CASES = [
    "linear, noise at 0",
    "linear, noise at 1",
    "trigonometric, noise at 0",
    "trigonometric, noise at 1",
    "trigflow",
    EXPLODING,
]


@pytest.mark.parametrize("case", ODE_CASES)
@pytest.mark.parametrize(
    "solver, steps",
    [
        (kf.samplers.Euler, (16, 32, 64, 128)),
        (kf.samplers.Heun, (8, 16, 32)),
    ],
)
def test_order(solver, steps, case, rng):
    model, oracle = build(case, n_mu=0.3, n_sigma=1.2)
    z, end, errors = noise(rng, oracle), None, []
    if case == EXPLODING:
        # Euler on the coarsest grids is not yet in its asymptotic regime.
        steps, end = tuple(2 * n for n in steps), 0.05
        model.interpolant = kf.interpolants.VarianceExploding(sigma_min=end)
    expected = exact(model, oracle, z, end)
    for n in steps:
        grid = rho_grid(80.0, end, n) if end else "uniform"
        x = model.generate(noise=z, num_steps=n, sampler=solver(grid))
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert errors[-1] < 0.02
    assert abs(slope(steps, errors) - solver.order) < 0.3, errors


def test_order_on_a_shifted_grid(rng):
    model, oracle = build("linear, noise at 1")
    z, steps = noise(rng, oracle), (8, 16, 32)
    errors = []
    for n in steps:
        sampler = kf.samplers.Heun(shift=3.0)
        x = model.generate(noise=z, num_steps=n, sampler=sampler)
        errors.append(
            np.sqrt(np.mean((array(x) - exact(model, oracle, z)) ** 2))
        )
    assert abs(slope(steps, errors) - 2) < 0.3, errors


def test_edm_defaults_are_its_algorithm(rng):
    """`generate()` is 18 steps of algorithm 1 of arXiv 2206.00364."""
    model, oracle = build(EXPLODING)
    z = noise(rng, oracle)
    i = np.arange(18)
    levels = (
        80.0 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))
    ) ** 7
    levels = np.append(levels, 0.0)
    x = 80.0 * z.astype("float64")

    def slope_at(x, t):
        return (x - oracle.data(x, np.full(ROWS, t))) / t

    for t, r in zip(levels[:-1], levels[1:], strict=True):
        first = slope_at(x, t)
        euler = x + (r - t) * first
        second = slope_at(euler, r) if r > 0 else first
        x = x + (r - t) * (first + second) / 2
    close(array(model.generate(noise=z)), x, 5)


@pytest.mark.parametrize("case", ["linear, noise at 0", "linear, noise at 1"])
def test_steps_by_hand(case, rng):
    """One step of each solver against its formula, in float64."""
    model, oracle = build(case)
    t, r = np.float32([0.4, 0.7]) if case.endswith("0") else (0.7, 0.4)
    at, to = np.full(ROWS, t), np.full(ROWS, r)
    x = oracle.sample(rng, at)
    first = oracle.velocity(x, at)
    middle = x + (r - t) * first
    second = oracle.velocity(middle, to)
    args = (model, tensor(x), tensor(at), tensor(to), None)
    expected = {"euler": middle, "heun": x + (r - t) * (first + second) / 2}
    for name, value in expected.items():
        step = kf.samplers.get(name).step
        np.testing.assert_allclose(array(step(*args, False)), value, atol=1e-5)
        # Heun's last step is Euler's.
        np.testing.assert_allclose(array(step(*args, True)), middle, atol=1e-5)
    assert np.abs(expected["heun"] - middle).max() > 0.01


@pytest.mark.parametrize("name", ["euler", "heun", "flow_map_jump"])
def test_standing_still_is_the_identity(name, rng):
    model, oracle = build("linear, noise at 0")
    t = rng.uniform(0.1, 0.9, ROWS)
    x, t = tensor(oracle.sample(rng, t)), tensor(t)
    for last in (False, True):
        found = kf.samplers.get(name).step(model, x, t, t, None, last)
        np.testing.assert_array_equal(array(found), array(x))


SDE_CASES = ["linear, noise at 0", "linear, noise at 1",
             "trigonometric, noise at 1"]  # fmt: skip


@pytest.mark.parametrize("case", SDE_CASES)
@pytest.mark.parametrize("diffusion", ["sigma", "constant"])
@pytest.mark.parametrize("n_mu, n_sigma", [(0.0, 1.0), (0.3, 1.7)])
def test_euler_maruyama_weak_order(case, diffusion, n_mu, n_sigma):
    """Mean and variance approach the data's at order 1."""
    model, oracle = build(case, n_mu, n_sigma)
    end = np.float64(model.interpolant.t_data)
    sampler = kf.samplers.EulerMaruyama(diffusion=diffusion, scale=0.7)
    steps = (64, 128, 256)
    laws = [law_after(sampler, model, n) for n in steps]
    means = [np.abs(mean - oracle.mean(end)).max() for mean, _ in laws]
    variances = [np.abs(var - oracle.var(end)).max() for _, var in laws]
    assert variances[-1] < 0.02
    assert abs(slope(steps, variances) - sampler.order) < 0.3, variances
    if case.startswith("linear"):
        # The mean moves on a straight line, where every step is exact.
        assert max(means) < 2e-6
    else:
        assert means[-1] < 0.01
        assert abs(slope(steps, means) - sampler.order) < 0.3, means


def test_euler_maruyama_noise():
    """sqrt(w |dt|) of noise in every step, none in the last."""
    model, oracle = build("linear, noise at 1")
    sampler = kf.samplers.EulerMaruyama(diffusion="sigma", scale=0.7)
    times = sampler.times(model.interpolant, 8)
    _, _, c = affine(sampler, model, times)
    expected = np.sqrt(0.7 * times[:-1] / 8)
    expected[-1] = 0.0
    np.testing.assert_allclose(c, np.repeat(expected[:, None], 2, 1), atol=1e-6)


def test_euler_maruyama_samples_follow_the_recursion():
    """`generate` draws what the recursion says, within standard errors."""
    model, _ = build("linear, noise at 0", 0.3, 1.7)
    sampler, rows = kf.samplers.EulerMaruyama(), 20_000
    z = np.random.default_rng(1).standard_normal((rows, 2)).astype("float32")
    x = array(model.generate(noise=z, num_steps=8, sampler=sampler, seed=2))
    mean, var = law_after(sampler, model, 8)
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(var / rows))
    assert np.all(np.abs(x.var(0) - var) < 4 * var * np.sqrt(2 / rows))


def test_euler_maruyama_without_diffusion_is_euler(rng):
    model, oracle = build("linear, noise at 0")
    z = noise(rng, oracle)
    samplers = (kf.samplers.EulerMaruyama(scale=0.0), kf.samplers.Euler())
    a, b = (model.generate(noise=z, num_steps=6, sampler=s) for s in samplers)
    np.testing.assert_allclose(array(a), array(b), atol=1e-5)


# Flow maps.


@pytest.mark.parametrize("num_steps", [1, 2, 5])
@pytest.mark.parametrize("case", [case for case in CASES if case != EXPLODING])
def test_jump_with_the_exact_map_is_exact(case, num_steps, rng):
    model, oracle = build(case, n_mu=0.3, n_sigma=1.7)
    z = noise(rng, oracle)
    x = model.generate(noise=z, num_steps=num_steps, sampler="flow_map_jump")
    # A flow map knows times down to `t_last` only.
    expected = exact(model, oracle, z, model.interpolant.t_last)
    # sigma^2 of the cosine schedule is 4e-5 there, with three digits.
    tol = 1e-4 if case.startswith("variance preserving") else 1e-5
    np.testing.assert_allclose(array(x), expected, rtol=tol, atol=tol)


RENOISE = [
    "linear, noise at 0",
    "linear, noise at 1",
    "trigonometric, noise at 0",
    "variance preserving, linear",
    "trigflow",
]


def check_renoise(case, renoise, n_mu, n_sigma):
    """Every step takes the marginal at t to the marginal at r."""
    model, oracle = build(case, n_mu, n_sigma)
    sampler = kf.samplers.FlowMapJump(renoise=renoise)
    path = model.interpolant
    # Off the end of the last step, which does not renoise.
    times = path.time_of_level(np.array([0.98, 0.7, 0.4, 0.2, 0.1]))
    a, b, c = (v[:-1] for v in affine(sampler, model, times))
    before, after = times[:-2], times[1:-1]
    assert np.all(c > 0.01)
    np.testing.assert_allclose(
        a**2 * oracle.var(before) + c**2, oracle.var(after), rtol=2e-5
    )
    np.testing.assert_allclose(
        a * oracle.mean(before) + b, oracle.mean(after), atol=2e-5
    )


@pytest.mark.parametrize("renoise", [0.3, 1.0])
@pytest.mark.parametrize("case", RENOISE)
def test_renoise_keeps_the_marginal(case, renoise):
    check_renoise(case, renoise, 0.0, 1.0)


@pytest.mark.parametrize("n_mu, n_sigma", [(0.3, 1.0), (0.0, 1.7)])
def test_renoise_keeps_the_marginal_of_other_noise(n_mu, n_sigma):
    check_renoise("linear, noise at 0", 0.5, n_mu, n_sigma)


def test_two_step_acts_as_written(rng):
    """a0 = E[x], then E[x | I_fix = 0.9 a0 + 0.1 z]; 1.0 a0 if public."""
    oracle = Oracle(CASES["linear, noise at 0"][2])
    z = noise(rng, oracle)
    for form, kept in (("paper", 0.9), ("public", 1.0)):
        model = kf.FlowMapInterface(
            ExactNetwork(oracle, "data"),
            kf.objectives.TSD(form=form),
            ema=None,
        )
        fixed = kept * np.array(oracle.m) + 0.1 * z
        expected = oracle.data(fixed, np.full(ROWS, 0.9))
        found = array(model.generate(noise=z))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ValueError, match="must be 2"):
        model.generate(noise=z, num_steps=3)


# Grids.


@pytest.mark.parametrize(
    "sampler", ["euler", "heun", "ddim", "dpm_solver++", "unipc"]
)
def test_samplers_by_name_suit_the_path(sampler, rng):
    """On EDM's path too, where steps of equal length would leave noise."""
    for case in (EXPLODING, "linear, noise at 1"):
        model, oracle = build(case)
        z = noise(rng, oracle)
        x = model.generate(noise=z, num_steps=48, sampler=sampler)
        error = array(x) - exact(model, oracle, z)
        assert np.sqrt(np.mean(error**2)) < 0.15, case


def test_uniform_grid():
    for noise_at in (0.0, 1.0):
        path = kf.interpolants.Linear(noise_at=noise_at)
        times = time_grid(path, 4)
        expected = np.linspace(noise_at, 1.0 - noise_at, 5)
        np.testing.assert_allclose(times, expected, atol=1e-12)
        assert times.dtype == np.float64
        f = np.linspace(1.0, 0.0, 5)
        shifted = path.level(time_grid(path, 4, shift=3.0))
        np.testing.assert_allclose(shifted, 3 * f / (1 + 2 * f), atol=1e-12)


def test_karras_grid():
    path = kf.interpolants.VarianceExploding()
    times = time_grid(path, 18, "karras")
    assert len(times) == 19
    assert times[0] == 80.0 and times[-1] == 0.0
    # Equation 5 of arXiv 2206.00364, its index i of N = 18 levels.
    i = np.arange(18)
    high, low = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
    expected = (high + i / 17 * (low - high)) ** 7
    np.testing.assert_allclose(times[:-1], expected, rtol=1e-9)
    assert np.isclose(times[-2], 0.002, rtol=1e-9)
    np.testing.assert_array_equal(time_grid(path, 1, "karras"), [80.0, 0.0])


def test_grid_stops_before_a_singular_end():
    path = kf.interpolants.VariancePreserving()
    np.testing.assert_allclose(
        time_grid(path, 3), [1.0, 0.5005, 0.001, 0.0], atol=1e-12
    )


@pytest.mark.parametrize("num_steps", [0, -1, 2.0, True])
def test_num_steps_must_be_a_positive_int(num_steps, rng):
    model, oracle = build("linear, noise at 0")
    call = functools.partial(
        model.generate, noise=noise(rng, oracle), num_steps=num_steps
    )
    for sampler in ("euler", "heun", "euler_maruyama", "flow_map_jump"):
        with pytest.raises(ValueError, match="num_steps"):
            call(sampler=sampler)


@pytest.mark.parametrize(
    "noise_at, grid",
    [
        (1.0, (0.0, 0.5, 1.0)),
        (0.0, (1.0, 0.5, 0.0)),
        (0.0, (0.0, 0.5, 0.5)),
        (0.0, (0.0, 0.7, 0.5)),
        (0.0, (0.0, 0.5, 0.9)),
        # Later, and there is less noise than data.
        (0.0, (0.6, 0.8, 1.0)),
        (0.0, (0.0, 0.5, 1.1)),
    ],
)
def test_grids_must_run_from_noise_to_data(noise_at, grid):
    path = kf.interpolants.Linear(noise_at=noise_at)
    with pytest.raises(ValueError, match="from noise to data"):
        kf.samplers.Euler(grid).times(path, 2)


def test_grid_errors():
    path = kf.interpolants.Linear(noise_at=0.0)
    with pytest.raises(ValueError, match="num_steps . 1 times"):
        time_grid(path, 3, (0.0, 0.5, 1.0))
    with pytest.raises(ValueError, match="uniform, karras"):
        time_grid(path, 3, "log")
    np.testing.assert_array_equal(
        time_grid(path, 2, (0.0, 0.9, 1.0)), [0.0, 0.9, 1.0]
    )


def test_sampler_errors():
    with pytest.raises(ValueError, match="euler.*euler_maruyama.*heun"):
        kf.samplers.get("rk4")
    with pytest.raises(ValueError, match="renoise"):
        kf.samplers.FlowMapJump(renoise=1.5)
    with pytest.raises(ValueError, match="scale"):
        kf.samplers.EulerMaruyama(scale=-1.0)
    with pytest.raises(ValueError, match="diffusion"):
        kf.samplers.EulerMaruyama(diffusion="beta")
