"""Shape and dtype helpers shared by every level."""

from __future__ import annotations

import typing

import keras
import numpy as np
from keras import ops

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import Tensor


def float_dtype():
    """The dtype of times, losses and JVP combinations.

    float32 under every dtype policy (bfloat16 times destroy few-step
    objectives), and float64 where the user set `floatx` to float64.
    """
    return "float64" if keras.config.floatx() == "float64" else "float32"


def known(x):
    """The values of x as a NumPy array, or None while a function is traced."""
    if isinstance(x, (float, int, np.ndarray)):
        return np.asarray(x)
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        traced = isinstance(x, jax.core.Tracer)
    elif backend == "tensorflow":
        import tensorflow as tf

        traced = not tf.executing_eagerly()
    else:
        import torch

        # Nor may a `Recording` see that a value was looked at.
        traced = (
            torch._C._functorch.peek_interpreter_stack() is not None
            or torch._C._len_torch_dispatch_stack() > 0
        )
    return None if traced else np.asarray(ops.convert_to_numpy(x))


def dtype_of(x):
    """Name of the dtype, also of one that the backend lacks, or None."""
    dtype = getattr(x, "dtype", None)
    try:
        return None if dtype is None else keras.backend.standardize_dtype(dtype)
    except ValueError:
        return str(dtype)


def on_state(x, t, r=None):
    """(x, t, r) as tensors, with a time for each example of x.

    Args:
        x: (B, ...), what `keras.ops.convert_to_tensor` takes.
        t: times of x, (B,), or a number, the time of all.
        r: times to go to, as t, or None.

    Raises:
        ValueError: if a time is no number, or x no batch of examples.
    """
    if _on_host(x):
        x = _numbers(x, "x_t", "finite numbers, (batch, ...)")
        # Not of tensors: a part of a batch in training may have no rows.
        if not x.ndim or not len(x):
            raise ValueError(
                "`x_t` must be a batch of states, (batch, ...). Received the "
                f"shape {x.shape}."
            )
    x = ops.convert_to_tensor(x)
    if not len(x.shape):
        raise ValueError(
            "`x_t` must be a batch of states, (batch, ...). Received one "
            "number."
        )
    return x, _times(t, x, "t"), None if r is None else _times(r, x, "r")


def on_jump(x, t, r):
    """As `on_state`, of a jump, which has a time to go to.

    Raises:
        ValueError: also without `r`, or if it is not one for each of x.
    """
    if r is None:
        raise ValueError("`r` is missing: the time to jump to. Received: None.")
    x, t, r = on_state(x, t, r)
    if (
        len(r.shape) != 1
        or None not in (r.shape[0], x.shape[0])
        and (r.shape[0] != x.shape[0])
    ):
        raise ValueError(
            "`r` must be one time, or one for each example of x. Received "
            f"the shape {tuple(r.shape)} beside x of {tuple(x.shape)}."
        )
    return x, t, r


def _on_host(x):
    """Whether x is no tensor, or variable, of the backend."""
    return isinstance(x, (np.ndarray, np.generic)) or not hasattr(x, "dtype")


def _numbers(x, argument, what):
    """An array of real numbers: an array of words has no dtype elsewhere."""
    try:
        found = np.asarray(x)
    except (TypeError, ValueError):
        found = np.asarray(None)
    real = found.dtype.kind in "iufb" or str(found.dtype) == "bfloat16"
    if not real or not np.isfinite(found).all():
        raise ValueError(f"`{argument}` must be {what}. Received: {x!r}.")
    return found


def _times(t, x, argument):
    if _on_host(t):
        what = "finite numbers, one time or one for each example of x"
        found = _numbers(t, argument, what)
        if found.dtype.kind == "b":
            raise ValueError(f"`{argument}` must be {what}. Received: {t!r}.")
        t = found.astype(float_dtype())
    t = ops.convert_to_tensor(t)
    if not keras.backend.is_float_dtype(t.dtype):
        t = ops.cast(t, float_dtype())
    return t if len(t.shape) else ops.broadcast_to(t, ops.shape(x)[:1])


def bcast_right(x: ArrayLike, y: ArrayLike) -> Tensor:
    """Reshape `x` of shape (B,) to (B, 1, ..., 1), the rank of `y`."""
    missing = len(y.shape) - len(x.shape)
    if missing < 0:
        raise ValueError(
            f"`x` of shape {tuple(x.shape)} has a higher rank than `y` of "
            f"shape {tuple(y.shape)}; it cannot be broadcast to it."
        )
    for _ in range(missing):
        x = ops.expand_dims(x, -1)
    return x


def example_size(x):
    """Number of elements of one example of x (B, ...): an int where it is
    known, else a float32 scalar (TensorFlow, of free sizes)."""
    size = 1
    for side in ops.shape(x)[1:]:
        known = isinstance(side, int)
        size = size * (side if known else ops.cast(side, float_dtype()))
    return size


def mean_flat(x: ArrayLike) -> Tensor:
    """Mean over every axis but the first: (B, ...) -> (B,)."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape))))


def sum_flat(x: ArrayLike) -> Tensor:
    """Sum over every axis but the first: (B, ...) -> (B,)."""
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))


def check_same_shape(**tensors):
    """Refuse to subtract or weigh tensors that would broadcast silently.

    A weight of shape (B, 1) against a loss of shape (B,) gives (B, B)
    without a word; here it is an error that names both.
    """
    (first, a), *rest = tensors.items()
    for name, b in rest:
        if tuple(a.shape) != tuple(b.shape):
            raise ValueError(
                f"`{first}` and `{name}` must have the same shape. Received "
                f"{first} of shape {tuple(a.shape)} and {name} of shape "
                f"{tuple(b.shape)}."
            )
