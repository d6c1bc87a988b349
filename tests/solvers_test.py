"""Fast solvers against published ones, the exact flow, and exact densities.

The data are the Gaussian mixture of tests/published/solver_toy.py, whose
denoiser is known on every path. Most tests take float64 (PyTorch's own), so
that high orders can be seen.
"""

import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from published import solver_toy as toy
from scipy.integrate import solve_ivp

import keras_flows as kf
from keras_flows.samplers.base import batch_of
from keras_flows.samplers.grids import time_grid

EXPECTED = np.load(
    pathlib.Path(__file__).parent / "published" / "solver_walks.npz"
)
MIXTURE = toy.Mixture()
paths = kf.interpolants


class Exact:
    """The mixture as samplers see a model, in the dtype of x."""

    def __init__(self, path, mixture=MIXTURE, n_mu=0.0, n_sigma=1.0):
        self.interpolant, self.mixture = path, mixture
        self.n_mu, self.n_sigma = n_mu, n_sigma
        self.calls = 0

    def denoise(self, x, t):
        self.calls += 1
        path = self.interpolant
        alpha, sigma = (kf.ops.bcast_right(f(t), x)
                        for f in (path.alpha, path.sigma))  # fmt: skip
        return self.mixture.denoise(
            ops, x - sigma * self.n_mu, alpha, sigma * self.n_sigma
        )

    def pred(self, x, t):
        return self.interpolant.velocity_from_data(x, self.denoise(x, t), t)

    def pred_and_score(self, x, t):
        v = self.pred(x, t)
        return v, self.interpolant.score_from_velocity(
            x, v, t, self.n_mu, self.n_sigma
        )


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x, dtype=dtype))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def walk(sampler, model, x, times, noises=None, lowered=True):
    """All states, by `advance` on times that need not reach the ends.

    `lowered`: whether the last steps are told that they are the last.
    """
    x, most = tensor(x), max(1, sampler.history)
    steps, states = len(times) - 1, [x]
    state = sampler.begin(model.interpolant, steps)
    for i, (t, r) in enumerate(zip(times[:-1], times[1:])):
        x, state = sampler.advance(
            model, x, batch_of(float(t), x), batch_of(float(r), x),
            tensor(noises[i]) if sampler.stochastic else None,
            state, min(steps - 1 - i, most) if lowered else most,
        )  # fmt: skip
        states.append(x)
    return np.stack([array(x) for x in states])


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
    "sa": kf.samplers.SASolver(),
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
        # tau acts on timesteps 200 to 800, by their noise fraction.
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
