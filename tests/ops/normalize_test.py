"""Layer and group normalisation: formula and derivatives."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.ops import value_and_gradients


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["layer", "layer without weights", "rms"])
def test_normalisation_is_the_formula(kind, dtype, rng):
    """Value and gradient, where PyTorch runs its fused kernel."""
    x = keras.Variable(rng.standard_normal((6, 8)), dtype=dtype)
    weigh = ops.convert_to_tensor(rng.standard_normal((6, 8)), dtype="float32")
    if kind == "rms":
        layer = kf.networks.RMSNormalization(epsilon=1e-3)
    else:
        layer = kf.networks.LayerNormalization(
            epsilon=1e-3, affine=kind == "layer"
        )
    layer.build((6, 8))
    for v in layer.trainable_variables:
        v.assign(1.0 + 0.3 * rng.standard_normal(8))

    def formula():
        y = ops.cast(x, "float32")
        if kind != "rms":
            y = y - ops.mean(y, axis=1, keepdims=True)
        y = y * ops.rsqrt(ops.mean(y * y, axis=1, keepdims=True) + 1e-3)
        for v, combine in zip(
            layer.trainable_variables, (ops.multiply, ops.add)
        ):
            y = combine(y, v)
        return ops.cast(y, dtype)

    variables = [x, *layer.trainable_variables]
    found, expected = (
        value_and_gradients(
            lambda y=y: ops.sum(weigh * ops.cast(y(), "float32")), variables
        )
        for y in (lambda: layer.call(ops.convert_to_tensor(x)), formula)
    )
    # A digit of bfloat16 is 2^-8; sums of 48 of order 1 in all.
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    for a, b in zip((found[0], *found[1]), (expected[0], *expected[1])):
        a, b = (ops.convert_to_numpy(ops.cast(v, "float32")) for v in (a, b))
        assert np.abs(a - b).max() < tolerance * max(1.0, np.abs(b).max())


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's")
@pytest.mark.parametrize("api", ["func", "forward_ad"])
@pytest.mark.parametrize("layer", ["LayerNormalization", "RMSNormalization"])
def test_normalisation_is_right_under_foreign_jvps(layer, api, rng):
    """The gradient through a JVP that `kf.ops.jvp` did not take."""
    import torch

    x, v, w = (
        ops.convert_to_tensor(rng.standard_normal((6, 8)), dtype="float64")
        for _ in range(3)
    )
    x.requires_grad_()
    layer = getattr(kf.networks, layer)(epsilon=1e-3, dtype="float64")
    layer.build((6, 8))
    keras.config.set_floatx("float64")
    try:

        def derivative(x):
            if api == "func":
                return torch.func.jvp(layer, (x,), (v,))[1]
            forward = torch.autograd.forward_ad
            with forward.dual_level():
                y = layer(forward.make_dual(x, v))
                return forward.unpack_dual(y).tangent

        found = torch.autograd.grad(derivative(x).square().sum(), x)[0]
        h, y = 1e-5, x.detach()

        def total(y):
            step = (layer(y + h * v) - layer(y - h * v)) / (2.0 * h)
            return step.square().sum()

        slope = (total(y + 1e-4 * w) - total(y - 1e-4 * w)) / 2e-4
        assert abs((found * w).sum() - slope) < 1e-4 * abs(slope)
    finally:
        keras.config.set_floatx("float32")
