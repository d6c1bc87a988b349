"""Fast solvers against published ones, the exact flow, and exact densities.

The data are the Gaussian mixture of tests/published/solver_toy.py, whose
denoiser is known on every path. Most tests take float64 (PyTorch's own), so
that high orders can be seen.
"""

import dataclasses
import functools
import pathlib

import numpy as np
import pytest
from helpers.mixture import ENDS
from helpers.mixture import MIXTURE
from helpers.mixture import Exact
from helpers.mixture import array
from helpers.mixture import flow
from helpers.mixture import model_of
from helpers.mixture import paths
from helpers.mixture import tensor
from helpers.mixture import walk
from published import solver_toy as toy
from scipy.stats import norm

import keras_flows as kf
from keras_flows.samplers.grids import time_grid

EXPECTED = np.load(
    pathlib.Path(__file__).parents[1] / "published" / "solver_walks.npz"
)


def time_of(path, ratio):
    return array(path.time_from_ratio(tensor(ratio)))


# The published code.


WALKS = {
    "2m": kf.samplers.DPMSolverPP(2),
    "3m": kf.samplers.DPMSolverPP(3, curvature=0.5),
    "sde_2m": kf.samplers.DPMSolverPP(2, tau=1.0),
    "singlestep_2": kf.samplers.DPMSolver(2),
    "singlestep_3": kf.samplers.DPMSolver(3),
    "unipc_1_bh1": kf.samplers.UniPC(1, "bh1"),
    "unipc_2_bh1": kf.samplers.UniPC(2, "bh1"),
    "unipc_2_bh2": kf.samplers.UniPC(2, "bh2"),
    "unipc_3_bh2": kf.samplers.UniPC(3, "bh2"),
    "flow_unipc": kf.samplers.UniPC(2),
    "flow_2m": kf.samplers.DPMSolverPP(2),
    "sa": kf.samplers.SASolver(2, 2),
    "sa_p3c4": kf.samplers.SASolver(3, 4),
    "ddim": kf.samplers.DDIM(),
    "edm_euler": kf.samplers.EDM(
        *(toy.CHURN[f"s_{k}"] for k in ("churn", "tmin", "tmax", "noise")),
        order=1,
    ),
    "edm_2m": kf.samplers.DPMSolverPP(2),
    "edm_3m": kf.samplers.DPMSolverPP(3, curvature=0.5),
    "edm_sde_2m": kf.samplers.DPMSolverPP(2, tau=1.0),
}


def published_path(name):
    if name.startswith("flow"):
        return paths.Linear(1.0)
    if name.startswith("edm"):
        return paths.VarianceExploding()
    if name.startswith("sa"):
        # tau acts on timesteps 200 to 800, by their noise level.
        return paths.DiscreteVariancePreserving()
    return paths.VariancePreserving()


def published_times(path, name):
    sigmas = EXPECTED[f"sigmas_{name}"]
    if name.startswith(("flow", "edm")):
        return sigmas
    return time_of(path, sigmas)


@pytest.mark.once
@pytest.mark.parametrize("name", WALKS)
def test_walks_are_the_published(name):
    """Every state of diffusers' schedulers, whose own float32 is coarser."""
    sampler, path = WALKS[name], published_path(name)
    times = published_times(path, name)
    expected = EXPECTED[f"states_{name}"]
    start, *noises = toy.noises(len(times) - 1)
    keep = slice(None)
    if name.startswith("singlestep"):
        keep = [*range(0, len(times) - 1, sampler.order), len(times) - 1]
    start = start * (80.0 if name.startswith("edm") else 1.0)
    states = walk(sampler, Exact(path), start, times[keep], noises)
    np.testing.assert_allclose(states, expected[keep], rtol=1e-4, atol=1e-4)


# (Sampler, its order, dimensions, two numbers of steps). Correctors raise
# the order by one.
ORDERS = [
    (kf.samplers.DPMSolverPP(2), 2, 2, (96, 192)),
    (kf.samplers.DPMSolverPP(3), 3, 2, (48, 96)),
    (kf.samplers.DPMSolverPP(3), 3, 64, (48, 96)),
    (kf.samplers.DPMSolver(2), 2, 2, (16, 32)),
    (kf.samplers.DPMSolver(3), 3, 2, (12, 24)),
    (kf.samplers.DPMSolver(3), 3, 64, (12, 24)),
    (kf.samplers.UniPC(1), 2, 2, (24, 48)),
    (kf.samplers.UniPC(2), 3, 64, (64, 128)),
    (kf.samplers.UniPC(2, "bh1"), 3, 2, (48, 96)),
    (kf.samplers.UniPC(3), 4, 2, (32, 64)),
    (kf.samplers.UniPC(3), 4, 64, (32, 64)),
    (kf.samplers.UniPC(3, corrector=False), 3, 2, (48, 96)),
    (kf.samplers.SASolver(2, 2, tau=0.0), 2, 2, (48, 96)),
    (kf.samplers.EDM(0.0), 2, 2, (24, 48)),
]


@functools.lru_cache
def smooth(dim):
    """A milder mixture, noise, and where the flow takes it."""
    mixture, z = toy.Mixture(dim, std=0.7), toy.noises(0, dim)[0][:4]
    return mixture, z, flow(mixture, z, -4.0, 0.5, 1e-11)


@pytest.mark.once
@pytest.mark.parametrize("case", range(len(ORDERS)))
def test_order(case):
    """In float64, on a grid whose first steps, of low order, are small."""
    sampler, order, dim, steps = ORDERS[case]
    path, errors = paths.Linear(case % 2), []
    mixture, z, expected = smooth(dim)
    for n in steps:
        lam = -4.0 + 4.5 * np.linspace(0.0, 1.0, n + 1) ** 2
        times = time_of(path, np.exp(-lam))
        sigma = array(path.sigma(tensor(times)))
        x = walk(
            sampler, Exact(path, mixture), z * sigma[0], times, lowered=False
        )[-1]
        errors.append(np.sqrt(np.mean((x / sigma[-1] - expected) ** 2)))
    slope = np.log2(errors[0] / errors[1])
    assert errors[1] < 0.02
    assert abs(slope - order) < 0.3, (slope, errors)


def test_order_in_generate():
    """On every backend, compiled and in float32."""
    model = model_of(paths.Linear(1.0), toy.Mixture(std=0.7))
    z = toy.noises(0)[0].astype("float32")
    # Pure noise: as good as from sigma / alpha = e^9.
    expected = flow(model.network.exact.mixture, z, -9.0, 9.0) * np.exp(-9.0)
    errors = []
    for n in (16, 32):
        x = model.generate(
            noise=z, num_steps=n, sampler=kf.samplers.UniPC(1, "bh1")
        )
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert errors[1] < 0.01
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.3, errors


def end_errors(path, samplers, z, steps, mixture=MIXTURE):
    """Distance from the flow's end, and network calls, of each sampler."""
    expected = flow(mixture, z, -9.0, 9.0) * np.exp(-9.0)
    start = z * array(path.sigma(tensor(path.t_noise)))
    found = []
    for sampler in samplers:
        model = Exact(path, mixture)
        x = walk(sampler, model, start, sampler.times(path, steps))[-1]
        assert model.calls == steps
        found.append(np.sqrt(np.mean((x - expected) ** 2)))
    return found


@pytest.mark.once
@pytest.mark.parametrize(
    "path, mixture",
    [
        (paths.Linear(0.0), MIXTURE),
        (paths.Linear(1.0), MIXTURE),
        # Its components are as far apart as the others' in 2-D.
        (
            paths.VarianceExploding(),
            toy.Mixture(64, std=0.7, spread=0.7 / 32**0.5),
        ),
    ],
    ids=["linear 0", "linear 1", "64-D"],
)
def test_errors_at_ten_calls(path, mixture):
    z = np.random.default_rng(0).standard_normal((256, mixture.dim))
    euler, dpm, unipc = end_errors(
        path,
        (kf.samplers.Euler(), kf.samplers.DPMSolverPP(), kf.samplers.UniPC()),
        z,
        10,
        mixture,
    )
    assert dpm < euler / 5
    assert unipc < dpm


def sliced_distance(x):
    """Mean |quantile of x - that of the mixture| over directions."""
    found = []
    for angle in np.linspace(0.0, np.pi, 8, endpoint=False):
        d = np.array([np.cos(angle), np.sin(angle)])
        grid = np.linspace(-5.0, 5.0, 20001)
        law = sum(
            w * norm.cdf(grid, mean @ d, std)
            for w, mean, std in zip(
                MIXTURE.weights, MIXTURE.means, MIXTURE.stds
            )
        )
        at = (np.arange(len(x)) + 0.5) / len(x)
        found.append(np.abs(np.sort(x @ d) - np.interp(at, law, grid)).mean())
    return np.mean(found)


@pytest.mark.once
@pytest.mark.parametrize("name", ["dpm_solver", "dpm_solver++", "unipc"])
def test_the_default_grid_fits_the_path(name):
    """Where log-SNR has two ends, even steps of t are twice as far off."""
    sampler = kf.samplers.get(name)
    uniform = dataclasses.replace(sampler, grid="uniform")
    ve = paths.VarianceExploding()
    even_sigma = tuple(np.append(np.linspace(80.0, 0.002, 10), 0.0))
    for path, other in (
        (paths.VariancePreserving(), uniform),
        (paths.DiscreteVariancePreserving(), uniform),
        (ve, dataclasses.replace(sampler, grid=even_sigma)),
    ):
        z = np.random.default_rng(0).standard_normal((64, 2))
        z = z * array(path.sigma(tensor(path.t_noise)))

        def end(sampler, steps, path=path, z=z):
            times = sampler.times(path, steps)
            return walk(sampler, Exact(path), z, times)[-1]

        expected = end(kf.samplers.UniPC(3), 200)
        default, even = (
            np.sqrt(np.mean((end(each, 10) - expected) ** 2))
            for each in (sampler, other)
        )
        assert default < 0.5 * even, (path, default, even)
    for path in (
        paths.Linear(1.0),
        paths.Trigonometric(0.0),
        paths.StochasticInterpolant(),
    ):
        np.testing.assert_array_equal(
            sampler.times(path, 10), uniform.times(path, 10)
        )


@pytest.mark.once
def test_noise_gives_the_law():
    """SA-Solver at 20 calls beats Euler-Maruyama at 80, on EDM's path."""
    path, rng = paths.VarianceExploding(), np.random.default_rng(5)
    floor = sliced_distance(MIXTURE.sample(rng, 5_000))

    def distance(sampler, steps, path=path):
        model = model_of(path)
        z = rng.standard_normal((5_000, 2)).astype("float32")
        x = model.generate(noise=z, num_steps=steps, sampler=sampler, seed=1)
        return sliced_distance(array(x))

    slow = distance(kf.samplers.EulerMaruyama(grid="log_snr"), 80)
    fast = distance(kf.samplers.SASolver(tau=0.5, grid="log_snr"), 20)
    assert fast < slow and fast < 2 * floor, (fast, slow, floor)
    # The others, also where sigma / alpha is infinite at the start.
    for sampler, at in (
        (kf.samplers.DPMSolverPP(tau=1.0, grid="log_snr"), path),
        (kf.samplers.DPMSolverPP(tau=1.0), paths.Linear(0.0)),
        (kf.samplers.EDM(10.0), paths.Linear(1.0)),
        (kf.samplers.SASolver(tau=0.5), paths.Trigonometric(0.0)),
    ):
        assert distance(sampler, 30, at) < 0.03, sampler


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_first_order_is_ddim_and_ddpm(case):
    """From end to end, for noise with a mean and a spread of its own."""
    path = ENDS[case]
    model = Exact(path, n_mu=0.3, n_sigma=1.7)
    z, *noises = toy.noises(5)
    start = array(path.initial(tensor(0.3 + 1.7 * z)))
    times = time_grid(path, 5, "karras" if case == "ve" else "uniform")
    expected = walk(kf.samplers.DDIM(), model, start, times)
    assert np.abs(expected[-1]).max() < 5
    for sampler in (
        kf.samplers.DPMSolverPP(1),
        kf.samplers.DPMSolver(1),
        kf.samplers.UniPC(1, corrector=False),
        kf.samplers.SASolver(1, 0, tau=0.0),
    ):
        found = walk(sampler, model, start, times)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    expected = walk(kf.samplers.DDPM("small"), model, start, times, noises)
    for sampler in (
        kf.samplers.DPMSolverPP(1, tau=1.0),
        kf.samplers.SASolver(1, 0, interval=None),
    ):
        found = walk(sampler, model, start, times, noises)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.once
def test_adams_methods_are_unipc():
    """Without noise, where the polynomials are the same."""
    z, path = toy.noises(0, 64)[0], paths.Linear(1.0)
    times = time_grid(path, 8, "log_snr")
    model = Exact(path, toy.Mixture(64))
    found = walk(kf.samplers.SASolver(3, 4, tau=0.0), model, z, times)
    expected = walk(kf.samplers.UniPC(3, "bh1"), model, z, times)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_all_solvers_reach_the_end(case):
    """Finite, and near the exact flow, on every path's own grid."""
    path, z = ENDS[case], toy.noises(0)[0][:4]
    start = array(path.initial(tensor(z)))
    sigma = float(array(path.sigma(tensor(path.t_noise))))
    alpha = max(float(array(path.alpha(tensor(path.t_noise)))), 1e-4)
    at = np.log(alpha / sigma)
    expected = flow(MIXTURE, start / sigma, at, 9.0, 1e-7) * np.exp(-9.0)
    for sampler in (
        kf.samplers.DPMSolverPP(3, grid="log_snr"),
        kf.samplers.DPMSolver(3),
        kf.samplers.UniPC(3, grid="log_snr"),
    ):
        times = sampler.times(path, 16)
        x = walk(sampler, Exact(path), start, times)[-1]
        assert np.sqrt(np.mean((x - expected) ** 2)) < 0.04, sampler


@pytest.mark.once
def test_edm_is_algorithm_2():
    path, sampler = paths.VarianceExploding(), kf.samplers.EDM(8.0, 0.1, 20.0)
    levels, (z, *noises) = time_grid(path, 8, "karras"), toy.noises(8)
    x, gamma = 80.0 * z, min(8.0 / 8, np.sqrt(2.0) - 1)

    def slope(x, s):
        return (x - MIXTURE.denoise(np, x, 1.0, s)) / s

    states = [x]
    for s, r, noise in zip(levels[:-1], levels[1:], noises):
        later = s * (1 + gamma) if 0.1 <= s <= 20.0 else s
        x = x + np.sqrt(later**2 - s**2) * 1.003 * noise
        first = slope(x, later)
        euler = x + (r - later) * first
        second = slope(euler, r) if r > 0 else first
        x = x + (r - later) * (first + second) / 2
        states.append(x)
    found = walk(sampler, Exact(path), 80.0 * z, levels, noises)
    np.testing.assert_allclose(found, states, atol=1e-8)
