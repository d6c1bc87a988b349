"""Loss and gradients of every objective from given weights, x, n, t, r.

    KERAS_BACKEND=torch python tests/parity/compute.py float32 out.npz

Everything random comes from NumPy, so three backends must agree.
"""

import functools
import os
import sys

PRECISION, OUT = sys.argv[1:]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if PRECISION == "float64":
    os.environ["JAX_ENABLE_X64"] = "1"

import keras

keras.config.set_floatx(PRECISION)

import numpy as np
from keras import layers
from keras import ops

if PRECISION == "float64":
    # Keras resolves types with 32 bits at most (sin on JAX and matmul on
    # PyTorch come out as float32); lifted here, so that float64 shows whether
    # the formulas agree.
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"

import keras_flows as kf
from keras_flows.ops import value_and_gradients

BATCH, TOKENS, CHANNELS = 16, 4, 6
GENERATIVE = ("flow", "ctm", "psd", "lsd", "esd", "mf", "lmd", "emd")
POLICY = ("regression", "straight_flow", "tsd", "mip")


def transformer(two_times):
    """Tokens, attention and normalisation: what breaks JVPs on PyTorch."""
    shape = (TOKENS, CHANNELS)
    inputs = {
        "x": keras.Input(shape, dtype=PRECISION, name="x"),
        "t": keras.Input((), dtype=PRECISION, name="t"),
    }
    if two_times:
        inputs["r"] = keras.Input((), dtype=PRECISION, name="r")
    h = layers.Dense(16)(inputs["x"])
    for time in ("t", "r")[: 1 + two_times]:
        features = kf.networks.TimeFeatures(4, 10.0)(inputs[time])
        h = h + layers.Reshape((1, 16))(layers.Dense(16)(features))
    h = h + kf.networks.SelfAttention(2)(kf.networks.LayerNormalization()(h))
    y = kf.networks.LayerNormalization()(h)
    h = h + layers.Dense(16)(layers.Dense(32, activation="silu")(y))
    h = kf.networks.LayerNormalization()(h)
    return keras.Model(inputs, layers.Dense(CHANNELS)(h))


def mlp(two_times):
    return kf.networks.MLP(
        (TOKENS, CHANNELS), width=24, depth=2, two_times=two_times
    )


def set_weights(model, seed):
    """The same weights on every backend, of about unit gain."""
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if "seed" in v.path or not keras.backend.is_float_dtype(v.dtype):
            continue
        fan = v.shape[0] if len(v.shape) > 1 else 10
        v.assign(rng.standard_normal(v.shape) / fan**0.5)


class Given:
    """Puts NumPy's draws in the place of the interface's own."""

    def __init__(self, model, seed):
        rng = np.random.default_rng(seed)

        def tensor(x):
            return ops.convert_to_tensor(x, dtype=PRECISION)

        # A wrapped interface draws for the one around it.
        for drawing in (model, getattr(model, "interface", model)):
            drawing.sample_n = lambda shape: tensor(
                rng.standard_normal([int(s) for s in shape])
            )
            drawing.sample_uniform = lambda shape: tensor(
                rng.random([int(s) for s in shape])
            )
            drawing.sample_t = lambda shape: tensor(
                rng.uniform(0.05, 0.95, [int(s) for s in shape])
            )


def models(build):
    """(name, interface) of everything that has a loss."""
    for objective in GENERATIVE + POLICY:
        network = build(objective not in POLICY and objective != "flow")
        set_weights(network, 1)
        teacher = None
        if objective in ("lmd", "emd"):
            base = build(False)
            set_weights(base, 2)
            teacher = kf.FlowMapInterface(base, "flow", ema=None)
            teacher.trainable = False
        yield (
            objective,
            kf.FlowMapInterface(network, objective, teacher=teacher, ema=None),
        )
    for cls in (kf.SiTInterface, kf.EDMInterface, kf.MeanFlowInterface):
        network = build(cls is kf.MeanFlowInterface)
        set_weights(network, 1)
        yield cls.__name__, cls(network, ema=None)


def few_step_models(build):
    """(name, interface) of the methods for few steps."""

    def network(two_times=False):
        network = build(two_times)
        set_weights(network, 1)
        return network

    def teacher(path=None):
        base = build(False)
        set_weights(base, 2)
        model = kf.FlowMapInterface(base, "flow", ema=None)
        if path is not None:
            model = kf.ReparametrizedInterface(model, path)
        model.trainable = False
        return model

    flow_map = functools.partial(kf.FlowMapInterface, ema=None)
    linear = kf.interpolants.Linear(0.0)
    yield "shortcut", flow_map(network(True), "shortcut")
    yield "imm", flow_map(network(True), "imm")
    yield "ayf", flow_map(network(True), "ayf", teacher=teacher())
    for schedule in ("cm", "ict", "ect"):
        yield (
            schedule,
            kf.ConsistencyInterface(
                network(), linear, schedule=schedule, total_steps=9, ema=None
            ),
        )
    yield (
        "scott",
        kf.ConsistencyInterface(
            network(),
            linear,
            schedule="constant",
            min_levels=3,
            max_levels=9,
            teacher=teacher(),
            teacher_sampler=kf.samplers.DDIM(eta=0.5),
            ema=None,
        ),
    )
    yield "sct", kf.SCTInterface(network(), warmup_steps=0, ema=None)
    yield (
        "scd",
        kf.SCDInterface(
            network(),
            teacher(kf.interpolants.TrigFlow(0.5)),
            warmup_steps=0,
            ema=None,
        ),
    )
    # The student is not the teacher's copy, or DMD's loss would be zero.
    student = flow_map(network(), "flow")
    yield "progressive", kf.ProgressiveInterface(teacher(), student)
    for method in ("dmd", "sid"):
        student = flow_map(network(), "flow")
        model = kf.DMDInterface(teacher(), student, method=method, num_steps=2)
        set_weights(model.fake_network, 3)
        yield method, model


def main():
    x = ops.convert_to_tensor(
        np.random.default_rng(0).standard_normal((BATCH, TOKENS, CHANNELS)),
        dtype=PRECISION,
    )
    every = [(f"transformer/{name}", m) for name, m in models(transformer)]
    if PRECISION == "float32":
        # The transformer has all that an MLP has: once will do for the MLP.
        every += [
            (f"mlp/{name}", m)
            for name, m in (*models(mlp), *few_step_models(mlp))
        ]
    found = {}
    for name, model in every:
        variables = model.trainable_variables

        def loss(model=model):
            Given(model, 3)
            return ops.mean(model.loss(x)["loss"])

        value, gradients = value_and_gradients(loss, variables)
        flat = np.concatenate(
            [np.ravel(ops.convert_to_numpy(g)) for g in gradients]
        )
        found[f"{name}/loss"] = ops.convert_to_numpy(value)
        found[f"{name}/gradient"] = flat
    np.savez(OUT, **found)


if __name__ == "__main__":
    main()
