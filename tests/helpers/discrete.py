"""The published toy network; Gaussian data on the discrete chain."""

import dataclasses
import pathlib

import keras
import numpy as np
from keras import ops
from oracle import Oracle
from oracle import Path
from published import ddpm_toy as toy

import keras_flows as kf

EXPECTED = np.load(pathlib.Path(__file__).parents[1] / "published" / "ddpm.npz")
KINDS = ("eps", "x0", "v")


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, dtype="float32"))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


# The published code.


@keras.saving.register_keras_serializable(package="tests")
class Toy(keras.layers.Layer):
    """The closed form of tests/published/ddpm_toy.py."""

    def __init__(self, kind, learn_sigma, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.learn_sigma = kind, learn_sigma

    def call(self, x, t, labels):
        return toy.output(ops, x, t, labels, self.kind, self.learn_sigma)

    def get_config(self):
        return {
            **super().get_config(),
            "kind": self.kind,
            "learn_sigma": self.learn_sigma,
        }


def published(kind, learn_sigma, schedule="linear", cls=kf.DiscreteInterface):
    inputs = {
        "x": keras.Input(toy.SHAPE, name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    y = Toy(kind, learn_sigma)(*inputs.values())
    return cls(
        keras.Model(inputs, y),
        schedule,
        prediction=kind,
        learn_sigma=learn_sigma,
        null_label=toy.CLASSES,
        cond_drop_ratio=0.0,
        ema=None,
    )


# Gaussian data.


@dataclasses.dataclass(frozen=True)
class Chain(Path):
    """DDPM's linear chain at whole timesteps, written out again."""

    def _log(self, t):
        rates = np.log1p(-np.linspace(1e-4, 0.02, 1000))
        table = 0.5 * np.append(0.0, np.cumsum(rates))
        return table[np.rint(np.asarray(t) * 1000).astype(int)]

    def alpha(self, t, xp=np):
        return np.exp(self._log(t))

    def sigma(self, t, xp=np):
        return np.sqrt(-np.expm1(2 * self._log(t)))


class ExactDiscrete(keras.Model):
    """E[n | x_t], E[x | x_t] or E[v | x_t] for the oracle's Gaussian."""

    input_names = ("x", "t")

    def __init__(self, oracle, kind):
        super().__init__(autocast=False)
        self.oracle, self.kind = oracle, kind
        t = np.arange(1001) / 1000
        self.tables = np.stack([oracle.path.alpha(t), oracle.path.sigma(t)], 1)
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def call(self, inputs, training=False):
        x, k = inputs["x"], ops.cast(inputs["t"], "int32") + 1
        rows = ops.take(tensor(self.tables), k, axis=0)
        alpha, sigma = rows[:, :1], rows[:, 1:]
        m, s = tensor(self.oracle.m), tensor(self.oracle.s)
        var = ops.square(alpha * s) + ops.square(sigma)
        off = (x - alpha * m) / var
        data, noise = m + alpha * ops.square(s) * off, sigma * off
        if self.kind == "x0":
            return self.scale * data
        if self.kind == "eps":
            return self.scale * noise
        return self.scale * (alpha * noise - sigma * data)


def gaussian(kind="eps", **kwargs):
    oracle = Oracle(Chain())
    model = kf.DiscreteInterface(
        ExactDiscrete(oracle, kind), prediction=kind, ema=None, **kwargs
    )
    return model, oracle
