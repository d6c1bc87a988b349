"""The mixture of tests/published/solver_toy.py and its exact models."""

import keras
import numpy as np
from keras import ops
from published import solver_toy as toy
from scipy.integrate import solve_ivp

import keras_flows as kf
from keras_flows.samplers.base import batch_of

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
    for i, (t, r, left) in enumerate(sampler.steps(times)):
        x, state = sampler.advance(
            model, x, batch_of(float(t), x), batch_of(float(r), x),
            tensor(noises[i]) if sampler.stochastic else None,
            state, left if lowered else most,
        )  # fmt: skip
        states.append(x)
    return np.stack([array(x) for x in states])


# The exact flow.


def flow(mixture, z, start, end, tol=1e-9):
    """x / sigma at lambda = end from z at lambda = start, by SciPy."""

    def slope(lam, y):
        y = y.reshape(z.shape)
        alpha, sigma = 1 / np.sqrt(1 + np.exp([-2 * lam, 2 * lam]))
        data = mixture.denoise(np, y * sigma, alpha, sigma)
        return (np.exp(lam) * data).ravel()

    found = solve_ivp(
        slope, (start, end), z.ravel(), method="DOP853", rtol=tol, atol=tol
    )
    return found.y[:, -1].reshape(z.shape)


class ExactNetwork(keras.Model):
    """The mixture's velocity on a path, as a network of {"x", "t"}."""

    input_names = ("x", "t")

    def __init__(self, path, mixture=MIXTURE):
        super().__init__(autocast=False)
        self.exact = Exact(path, mixture)
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def call(self, inputs, training=False):
        return self.scale * self.exact.pred(inputs["x"], inputs["t"])


def model_of(path, mixture=MIXTURE):
    return kf.FlowMapInterface(
        ExactNetwork(path, mixture), "flow", interpolant=path, ema=None
    )


# Identities.


ENDS = {
    "linear, noise at 0": paths.Linear(0.0),
    "linear, noise at 1": paths.Linear(1.0),
    "trigonometric": paths.Trigonometric(1.0),
    "vp": paths.VariancePreserving(),
    "ve": paths.VarianceExploding(),
    "trigflow": paths.TrigFlow(),
    "discrete": paths.DiscreteVariancePreserving(),
}


def labelled(path):
    """A velocity with the label's own number added: 0, 1, 2.5, null."""
    inputs = {
        "x": keras.Input((2,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    embedding = keras.layers.Embedding(4, 2)
    h = keras.layers.Dense(2, activation="tanh")(inputs["x"])
    network = keras.Model(inputs, h + embedding(inputs["condition"]))
    embedding.embeddings.assign(np.array([[0, 0], [1, 1], [2.5, 2.5], [9, 9]]))
    return kf.FlowMapInterface(
        network, "flow", interpolant=path, ema=None, null_label=3
    )
