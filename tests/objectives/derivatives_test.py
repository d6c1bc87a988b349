"""Gradients through the JVP of networks with Keras's and PyTorch's layers.

In the train step of `fit`, against the same step whose objective takes
central differences, all in float64: the differences have an error of 1e-10.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_flows as kf

TORCH = keras.backend.backend() == "torch"
TOKENS, WIDTH = 4, 8

LAYERS = {
    "layer": layers.LayerNormalization,
    "group": lambda: layers.GroupNormalization(2),
    "batch": layers.BatchNormalization,
    "rms": layers.RMSNormalization,
    "attention": lambda **options: layers.MultiHeadAttention(2, 4, **options),
}
if TORCH:
    from torch import nn

    def wrapped(module):
        shape = (None, TOKENS, WIDTH)
        return layers.TorchModuleWrapper(module.double(), output_shape=shape)

    MODULES = {
        "layer": lambda: nn.LayerNorm(WIDTH),
        "batch": lambda: nn.BatchNorm1d(TOKENS),
        "instance": lambda: nn.InstanceNorm1d(TOKENS),
        "transformer": lambda: nn.TransformerEncoderLayer(
            WIDTH, 2, 16, 0.0, batch_first=True
        ),
    }
OBJECTIVES = {
    "lsd": kf.objectives.LSD,
    "esd": lambda **options: kf.objectives.ESD("convex", **options),
    "mean_flow": kf.objectives.MeanFlow,
}


@pytest.fixture
def float64(monkeypatch):
    """Keras computes in float64, which it rounds to float32 otherwise."""
    from keras.src.backend.common import dtypes

    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    policy = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    try:
        if keras.backend.backend() == "jax":
            import jax

            with jax.enable_x64(True):
                yield
        else:
            yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)


def network(made, plain):
    """Tokens through the layers that are made, between dense ones."""
    inputs = {
        "x": keras.Input((TOKENS, 2), name="x"),
        "t": keras.Input((), name="t"),
        "r": keras.Input((), name="r"),
    }
    h = layers.Dense(WIDTH)(inputs["x"])
    for time in ("t", "r"):
        h = h + layers.Dense(WIDTH)(layers.Reshape((1, 1))(inputs[time]))
    for make in made:
        h = ops.tanh(h)
        if make is LAYERS["attention"]:
            # With dropout, of nothing, Keras takes no fused kernel.
            h = make(dropout=1e-12 if plain else 0.0)(h, h)
        else:
            h = make()(h)
    network = keras.Model(inputs, layers.Dense(2)(ops.tanh(h)))
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(0.5 * rng.standard_normal(v.shape))
    return network


def gradient(made, objective, derivative):
    """What one step of gradient descent takes off the weights."""
    kind = (
        kf.MeanFlowInterface
        if objective == "mean_flow"
        else kf.FlowMapInterface
    )
    keras.utils.set_random_seed(0)
    net = network(made, derivative != "jvp")
    objective = OBJECTIVES[objective](derivative=derivative)
    model = kind(net, objective=objective, ema=None, seed=1)
    model.compile(keras.optimizers.SGD(1.0))

    def weights():
        return np.concatenate(
            [
                np.ravel(ops.convert_to_numpy(v))
                for v in model.trainable_variables
            ]
        )

    before = weights()
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.standard_normal((16, TOKENS, 2)))
    return before - weights()


def error(made, objective):
    found, expected = (
        gradient(made, objective, derivative)
        for derivative in ("jvp", "finite_difference")
    )
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


# Elsewhere a step takes long to compile, and the layers share one network.
@pytest.mark.parametrize("layer", LAYERS if TORCH else ["all"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_through_keras_layers(objective, layer, float64):
    made = list(LAYERS.values()) if layer == "all" else [LAYERS[layer]]
    assert error(made, objective) < 1e-6


@pytest.mark.skipif(not TORCH, reason="PyTorch's modules")
@pytest.mark.parametrize("module", MODULES if TORCH else [None])
def test_gradients_through_torch_modules(module, float64):
    assert error([lambda: wrapped(MODULES[module]())], "lsd") < 1e-6
