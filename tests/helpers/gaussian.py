"""Samplers on Gaussian data: exact models, orders, laws by recursion."""

import numpy as np
from keras import ops
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf

ROWS = 32
EXPLODING = "variance exploding"


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, dtype="float32"))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def build(case, n_mu=0.0, n_sigma=1.0):
    """(model, oracle): EDM on the exploding path, else a flow map."""
    name, kwargs, path, *_ = CASES[case]
    interpolant = getattr(kf.interpolants, name)(**kwargs)
    oracle = Oracle(path, n_mu=n_mu, n_sigma=n_sigma)
    options = {"n_mu": n_mu, "n_sigma": n_sigma, "ema": None}
    options["interpolant"] = interpolant
    if case == EXPLODING:
        return kf.EDMInterface(ExactNetwork(oracle, "edm"), **options), oracle
    return kf.FlowMapInterface(ExactNetwork(oracle), **options), oracle


def noise(rng, oracle):
    return rng.standard_normal((ROWS, oracle.dim)).astype("float32")


def exact(model, oracle, z, end=None):
    """Where the flow takes the start that belongs to the noise z."""
    path = model.interpolant
    t = np.full(len(z), path.t_noise)
    r = np.full(len(z), path.t_data if end is None else end)
    start = oracle.path.sigma(t)[:, None] * (oracle.n_mu + oracle.n_sigma * z)
    return oracle.jump(start.astype("float64"), t, r)


def slope(steps, errors):
    """Order: minus the slope of log error against log steps."""
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


# Stochastic samplers: every step is affine in the state and the noise, and
# the state Gaussian, so mean and variance follow by recursion, without
# sampling. What the recursion takes is read off the sampler's own steps.


PADDED = 256


def affine(sampler, model, times):
    """(A, b, C), each (steps, dim): x_r = A x + b + C noise."""
    steps, dim = len(times) - 1, model.network.oracle.dim

    def run(first, stop, last):
        # Repeated up to one size, which compiles once.
        rows = np.resize(np.arange(first, stop), PADDED)
        t, r = np.tile(times[rows], 3), np.tile(times[rows + 1], 3)
        x, z = np.zeros((2, 3, PADDED, dim))
        x[1], z[2] = 1.0, 1.0
        x, z = x.reshape(-1, dim), z.reshape(-1, dim)
        out = sampler.step(
            model, tensor(x), tensor(t), tensor(r), tensor(z), last
        )
        return array(out).reshape(3, PADDED, dim)[:, : stop - first]

    parts = [run(0, steps - 1, False)] if steps > 1 else []
    b, one, unit = np.concatenate([*parts, run(steps - 1, steps, True)], 1)
    return one - b, b, unit - b


def law_after(sampler, model, num_steps):
    """Mean and variance where the sampler ends, from the exact start."""
    oracle, path = model.network.oracle, model.interpolant
    mean = np.full(oracle.dim, path_sigma(oracle, path) * oracle.n_mu)
    var = np.full(oracle.dim, (path_sigma(oracle, path) * oracle.n_sigma) ** 2)
    times = sampler.times(path, num_steps)
    for a, b, c in zip(*affine(sampler, model, times), strict=True):
        mean, var = a * mean + b, a**2 * var + c**2
    return mean, var


def path_sigma(oracle, path):
    return float(oracle.path.sigma(np.float64(path.t_noise)))
