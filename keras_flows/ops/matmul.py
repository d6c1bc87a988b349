"""Products that accelerators do not round."""

import contextlib

import keras
from keras import ops


@contextlib.contextmanager
def exact_products():
    """Within it products and convolutions of float32 are not rounded.

    TPUs multiply in bfloat16 by default and GPUs, with TensorFlow or JAX, in
    TensorFloat-32, as PyTorch convolves there: three digits, too few for
    differences of large numbers.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif backend == "torch":
        import torch

        products, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        holders, name, exact = (products, cudnn), "allow_tf32", False
        if hasattr(products, "fp32_precision"):
            # From 2.9 on, where the flags may not be read once this is set.
            holders, name, exact = (
                (products, cudnn.conv), "fp32_precision", "ieee",
            )  # fmt: skip
        before = [getattr(holder, name) for holder in holders]
        try:
            for holder in holders:
                setattr(holder, name, exact)
            yield
        finally:
            for holder, value in zip(holders, before, strict=True):
                setattr(holder, name, value)
    else:
        import tensorflow as tf

        rounded = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        try:
            yield
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(rounded)


def exact_matmul(a, b):
    """a @ b of float32 matrices to float32 precision on every device.

    See `exact_products`, which rules whole computations; this is for one
    product inside a compiled step.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, precision="highest")
    if getattr(getattr(a, "device", None), "type", None) == "mps":
        return ops.matmul(a, b)  # Metal knows no float64 and does not round.
    double = ops.matmul(ops.cast(a, "float64"), ops.cast(b, "float64"))
    return ops.cast(double, a.dtype)
