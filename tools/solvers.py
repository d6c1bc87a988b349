"""Errors of the solvers against network calls, on a known Gaussian mixture.

    python tools/solvers.py --out=docs/results/solvers.json

The denoiser is exact (tests/published/solver_toy.py), so that every error is
the solver's. Solvers of the flow: root mean square distance from where the
exact flow takes the same noise. Solvers with noise: how far the quantiles
of 20,000 samples are from the data's, mean over 8 directions (a sliced
Wasserstein distance); draws of the data have one too. And the errors at 10
calls for eight other mixtures, in 2 dimensions and in 64, on each solver's
default grid. Some minutes on a CPU.
"""

import argparse
import json
import math
import pathlib
import sys

import numpy as np
from keras import ops
from scipy.integrate import solve_ivp
from scipy.stats import norm

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "published")]

import solver_toy as toy  # noqa: E402

import keras_flows as kf  # noqa: E402

samplers = kf.samplers
PATHS = {
    "linear": kf.interpolants.Linear(1.0),
    "vp": kf.interpolants.VariancePreserving(),
    "edm": kf.interpolants.VarianceExploding(),
}
GRIDS = ("uniform", "karras", "log_snr")
CALLS = (5, 10, 20, 40)
# Name -> (sampler on a grid, number of steps for that many calls).
ODE = {
    "euler": (lambda grid: samplers.Euler(grid), lambda n: n),
    "heun": (lambda grid: samplers.Heun(grid), lambda n: (n + 1) // 2),
    "ddim": (lambda grid: samplers.DDIM(grid=grid), lambda n: n),
    "dpm_solver 2": (
        lambda grid: samplers.DPMSolver(2, grid), lambda n: (n + 1) // 2,
    ),
    "dpm_solver 3": (
        lambda grid: samplers.DPMSolver(3, grid), lambda n: (n + 2) // 3,
    ),
    "dpm_solver++ 2": (
        lambda grid: samplers.DPMSolverPP(2, grid=grid), lambda n: n,
    ),
    "dpm_solver++ 3": (
        lambda grid: samplers.DPMSolverPP(3, grid=grid), lambda n: n,
    ),
    "unipc 2": (lambda grid: samplers.UniPC(2, grid=grid), lambda n: n),
    "unipc 3": (lambda grid: samplers.UniPC(3, grid=grid), lambda n: n),
}  # fmt: skip
# (dimensions, std, spread): components apart, and near one another.
MIXTURES = ((2, 0.3, 0.7), (64, 0.7, 0.7 / 32**0.5))
SDE_GRIDS = ("uniform", "log_snr")
SDE_CALLS = (10, 20, 40, 80)
SDE = {
    "euler_maruyama": lambda grid: samplers.EulerMaruyama(grid=grid),
    "ddpm": lambda grid: samplers.DDPM("small", grid),
    "dpm_solver++ sde": lambda grid: samplers.DPMSolverPP(
        2, tau=1.0, grid=grid
    ),
    "sa_solver": lambda grid: samplers.SASolver(grid=grid),
    "sa_solver tau 0.5": lambda grid: samplers.SASolver(tau=0.5, grid=grid),
    "edm": lambda grid: samplers.EDM(10.0, grid=grid),
}


class Exact:
    """The mixture as samplers see a model."""

    n_mu, n_sigma, learn_sigma = 0.0, 1.0, False

    def __init__(self, path, mixture):
        self.interpolant, self.mixture = path, mixture
        self.calls = 0

    def denoise(self, x, t):
        self.calls += 1
        path = self.interpolant
        alpha, sigma = (
            kf.ops.bcast_right(f(t), x) for f in (path.alpha, path.sigma)
        )
        return self.mixture.denoise(ops, x, alpha, sigma)

    def pred(self, x, t):
        return self.interpolant.velocity_from_data(x, self.denoise(x, t), t)

    def pred_and_score(self, x, t):
        v = self.pred(x, t)
        return v, self.interpolant.score_from_velocity(x, v, t)


def samples(sampler, model, z, num_steps, seed=0):
    """(samples, network calls) from the noise z, as `generate` makes them."""
    noises = None
    if sampler.stochastic:
        rng = np.random.default_rng(seed)
        noises = [
            ops.convert_to_tensor(rng.standard_normal(z.shape).astype(z.dtype))
            for _ in range(num_steps)
        ]
    path, before = model.interpolant, model.calls

    x = sampler.unrolled_on(
        sampler.times(path, num_steps), lambda t, r: model,
        path.initial(ops.convert_to_tensor(z)), num_steps, noises,
    )  # fmt: skip
    return ops.convert_to_numpy(x), model.calls - before


def exact_flow(path, mixture, z):
    """Where the flow ends, by SciPy in s = sigma / alpha.

    With y = x / alpha it is dy/ds = (y - x_hat) / s on every path.
    """
    with kf.ops.eager_float64() as number:
        alpha, sigma = (
            float(number(f, path.t_noise)) for f in (path.alpha, path.sigma)
        )
    # From pure noise the state is exact at any level that drowns the data.
    alpha = max(alpha, 1e-5)
    top, low = math.log(sigma / alpha), math.log(1e-6)

    def velocity(log_s, y):
        y, s = y.reshape(z.shape), math.exp(log_s)
        return (y - mixture.denoise(np, y, 1.0, s)).ravel()

    start = (sigma / alpha * z.astype("float64")).ravel()
    found = solve_ivp(
        velocity, (top, low), start, method="DOP853", rtol=1e-9, atol=1e-10
    )
    return found.y[:, -1].reshape(z.shape)


def sliced_distance(x, mixture):
    """Mean |quantile of x - that of the data| over 8 directions in 2-D."""
    grid, found = np.linspace(-6.0, 6.0, 20001), []
    at = (np.arange(len(x)) + 0.5) / len(x)
    for angle in np.linspace(0.0, np.pi, 8, endpoint=False):
        d = np.array([np.cos(angle), np.sin(angle)])
        law = sum(
            w * norm.cdf(grid, mean @ d, std)
            for w, mean, std in zip(
                mixture.weights, mixture.means, mixture.stds, strict=True
            )
        )
        found.append(np.abs(np.sort(x @ d) - np.interp(at, law, grid)).mean())
    return float(np.mean(found))


def flow_errors(path, mixture, rows, calls):
    z = np.random.default_rng(0).standard_normal((rows, mixture.dim))
    z = z.astype("float32")
    expected, table = exact_flow(path, mixture, z), {}
    for name, (make, steps_of) in ODE.items():
        for grid in GRIDS:
            for n in calls:
                model = Exact(path, mixture)
                x, used = samples(make(grid), model, z, steps_of(n))
                error = float(np.sqrt(np.mean((x - expected) ** 2)))
                table.setdefault(name, {}).setdefault(grid, {})[n] = {
                    "calls": used, "error": error,
                }  # fmt: skip
    return table


def noise_errors(path, mixture, rows, calls):
    rng = np.random.default_rng(1)
    z = rng.standard_normal((rows, mixture.dim)).astype("float32")
    floor = sliced_distance(mixture.sample(rng, rows), mixture)
    table = {"draws of the data": floor}
    for name, make in SDE.items():
        for grid in SDE_GRIDS:
            for n in calls:
                model = Exact(path, mixture)
                steps = n if name != "edm" else (n + 1) // 2
                x, used = samples(make(grid), model, z, steps)
                table.setdefault(name, {}).setdefault(grid, {})[n] = {
                    "calls": used, "distance": sliced_distance(x, mixture),
                }  # fmt: skip
    return table


def mixture_errors(path, mixtures, rows, num_steps):
    """{solver: [error of each mixture]} on the solver's default grid."""
    table = {}
    for mixture in mixtures:
        # Of another stream than the means.
        rng = np.random.default_rng((mixture.seed, 1))
        z = rng.standard_normal((rows, mixture.dim)).astype("float32")
        expected = exact_flow(path, mixture, z)
        for name, sampler in {
            "euler": samplers.Euler(),
            "euler log_snr": samplers.Euler("log_snr"),
            "dpm_solver++ 2": samplers.DPMSolverPP(2),
            "unipc 2": samplers.UniPC(2),
            "unipc 3": samplers.UniPC(3),
        }.items():
            x, _ = samples(sampler, Exact(path, mixture), z, num_steps)
            error = float(np.sqrt(np.mean((x - expected) ** 2)))
            table.setdefault(name, []).append(error)
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON file to write")
    arguments = parser.parse_args()
    mixture, results = toy.Mixture(), {}
    for name, path in PATHS.items():
        results[name] = {
            "flow": flow_errors(path, mixture, 512, CALLS),
            "noise": noise_errors(path, mixture, 20_000, SDE_CALLS),
        }
        print(name)
        for kind, value in (("flow", "error"), ("noise", "distance")):
            for solver, grids in results[name][kind].items():
                if not isinstance(grids, dict):
                    print(f"  {solver:18s} {grids:.2e}")
                    continue
                for grid, row in grids.items():
                    row = " ".join(f"{v[value]:9.2e}" for v in row.values())
                    print(f"  {solver:18s} {grid:8s} {row}", flush=True)
    for name, path in PATHS.items():
        for dim, std, spread in MIXTURES:
            row = mixture_errors(
                path,
                [toy.Mixture(dim, std, seed, spread) for seed in range(1, 9)],
                128,
                10,
            )
            results[name].setdefault("mixtures", {})[str(dim)] = row
            means = {k: np.exp(np.mean(np.log(v))) for k, v in row.items()}
            print(
                f"{name}, {dim}-D, geometric mean of 8 mixtures:",
                *(f"{k} {v:.4f}" for k, v in means.items()),
                flush=True,
            )
    if arguments.out:
        pathlib.Path(arguments.out).write_text(
            json.dumps(results, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
