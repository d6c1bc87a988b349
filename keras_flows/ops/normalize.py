"""Normalisation over the last axis whose derivatives are right."""

import keras
from keras import ops

from keras_flows.ops.autodiff import in_jvp
from keras_flows.ops.tensors import float_dtype


def layer_norm(x, epsilon, gamma=None, beta=None):
    """gamma (x - mean) / sqrt(var + epsilon) + beta, of the dtype of x.

    In float32 at least. By the explicit formula, but for PyTorch's fused
    kernel where no forward derivative is taken: the gradient through its JVP
    is wrong without a word (pytorch#196700).
    """
    if _fused():
        import torch

        return _in_floats(
            torch.nn.functional.layer_norm, x, (gamma, beta), epsilon
        )
    y = ops.cast(x, float_dtype())
    y = y - ops.mean(y, axis=-1, keepdims=True)
    return _scaled(y, epsilon, gamma, beta, x.dtype)


def rms_norm(x, epsilon, gamma):
    """gamma x / sqrt(mean(x^2) + epsilon), as `layer_norm` without a mean."""
    if _fused():
        import torch

        return _in_floats(torch.nn.functional.rms_norm, x, (gamma,), epsilon)
    return _scaled(ops.cast(x, float_dtype()), epsilon, gamma, None, x.dtype)


def _fused():
    return keras.backend.backend() == "torch" and not in_jvp()


def _in_floats(kernel, x, weights, epsilon):
    """kernel(x, ...), whose sums are in float32 also where x is not."""
    if weights[0] is None:
        return kernel(x, x.shape[-1:], eps=epsilon)
    y = ops.cast(x, float_dtype())
    weights = (ops.cast(w, y.dtype) for w in weights)
    return ops.cast(kernel(y, x.shape[-1:], *weights, epsilon), x.dtype)


def _scaled(y, epsilon, gamma, beta, dtype):
    square = ops.mean(y * y, axis=-1, keepdims=True)
    if keras.backend.backend() == "torch":
        import torch

        # A number added as a tensor has a tangent of zeros, whose shape
        # PyTorch finds out in Python: forty times as long.
        square = torch.ops.aten.add.Scalar(square, epsilon)
    else:
        square = square + epsilon
    y = y * ops.rsqrt(square)
    if gamma is not None:
        y = y * ops.cast(gamma, y.dtype)
    if beta is not None:
        y = y + ops.cast(beta, y.dtype)
    return ops.cast(y, dtype)
