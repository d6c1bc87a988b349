"""Small models of few steps, and the exact ones of Gaussian data."""

import numpy as np
from keras import ops

import keras_flows as kf

LINEAR = kf.interpolants.Linear(noise_at=0.0)
TRIG = kf.interpolants.TrigFlow(0.7)
M, S = (0.4, -0.7), (0.5, 0.8)


def tensor(x):
    return ops.convert_to_tensor(x, dtype="float32")


def array(x):
    return ops.convert_to_numpy(x)


def mlp(two_times=False, dim=2, **kwargs):
    return kf.networks.MLP(dim, 16, 1, two_times=two_times, **kwargs)


def flow(ema=None, **kwargs):
    """A frozen teacher."""
    model = kf.FlowMapInterface(mlp(**kwargs), "flow", ema=ema, seed=1)
    model.trainable = False
    return model


def discrete(schedule, **kwargs):
    kwargs = {"total_steps": 8, "min_levels": 2, "max_levels": 16, **kwargs}
    return kf.ConsistencyInterface(
        mlp(), schedule=schedule, ema=0.9, seed=0, **kwargs
    )


def values(variables):
    return [np.copy(array(v)) for v in variables]


def changed(before, variables):
    return [
        bool(np.any(a != array(v)))
        for a, v in zip(before, variables, strict=True)
    ]


def exact_velocity(path, x, t):
    t = ops.expand_dims(t, -1)
    a, s, da, ds = path._coefficients(t, x)
    m, std = tensor(M), tensor(S)
    var = ops.square(a * std) + ops.square(s)
    slope = (a * da * ops.square(std) + s * ds) / var
    return da * m + slope * (x - a * m)


def gaussian(rng, rows):
    return tensor(np.array(M) + np.array(S) * rng.standard_normal((rows, 2)))
