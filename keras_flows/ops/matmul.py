"""A product that accelerators do not round."""

import keras
from keras import ops


def exact_matmul(a, b):
    """a @ b of float32 matrices to float32 precision on every device.

    TPUs multiply in bfloat16 by default and GPUs, with TensorFlow or JAX, in
    TensorFloat-32: three digits, too few for differences of large numbers.
    """
    if keras.backend.backend() == "jax":
        import jax.numpy as jnp

        return jnp.matmul(a, b, precision="highest")
    if getattr(getattr(a, "device", None), "type", None) == "mps":
        return ops.matmul(a, b)  # Metal knows no float64 and does not round.
    double = ops.matmul(ops.cast(a, "float64"), ops.cast(b, "float64"))
    return ops.cast(double, a.dtype)
