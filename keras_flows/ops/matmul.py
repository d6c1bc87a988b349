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

        products = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(allow_tf32=False):
                yield
        finally:
            torch.set_float32_matmul_precision(products)
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
