"""What users hand in beside numbers: arrays, paths, words, functions.

Each kind is a function of (name, value) to the value, and an argument of
`checked`, as those of `scalars` are.
"""

import functools
import os
import pathlib

import numpy as np
from keras import ops


def text(name, value, *, none=False):
    """A string that is not empty."""
    if (value is None and none) or (isinstance(value, str) and value):
        return value
    raise ValueError(
        f"`{name}` must be a string{', or None' if none else ''}. "
        f"Received: {_short(value)}."
    )


def path_of(name, value, *, none=False):
    """A path as pathlib has it."""
    if value is None and none:
        return None
    if isinstance(value, (str, os.PathLike)) and os.fspath(value):
        return pathlib.Path(value)
    raise ValueError(f"`{name}` must be a path. Received: {_short(value)}.")


def function(name, value, *, none=False):
    """Something that can be called, and is no class."""
    called = callable(value) and not isinstance(value, type)
    if called or (value is None and none):
        return value
    raise ValueError(
        f"`{name}` must be a function{', or None' if none else ''}. "
        f"Received: {_short(value)}."
    )


def array(name, value, *, last=None, ndim=None, finite=True):
    """Numbers as float64 NumPy, of a shape.

    Args:
        name: of the argument, for the message.
        value: what NumPy or the backend makes an array of.
        last: sizes that the last dimension may have, or one, or None.
        ndim: number of dimensions, or None.
        finite: whether NaN and infinity are refused.

    Raises:
        ValueError: naming the argument, and what is wrong.
    """
    found = plain_array(name, value).astype("float64")
    if ndim is not None and found.ndim != ndim:
        raise ValueError(
            f"`{name}` must have {ndim} dimensions. Received the shape "
            f"{found.shape}."
        )
    if last is not None and found.shape[-1:] != (last,):
        raise ValueError(
            f"`{name}` must have {last} numbers in its last dimension. "
            f"Received the shape {found.shape}."
        )
    if finite and not np.isfinite(found).all():
        raise ValueError(f"`{name}` must be finite. It holds NaN or infinity.")
    return found


def plain_array(name, value):
    """Real numbers as NumPy, in their own dtype: no words, no complex."""
    try:
        # A tensor's own conversion, from any device.
        found = (
            ops.convert_to_numpy(value)
            if hasattr(value, "dtype")
            else np.asarray(value)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`{name}` must be an array: {error}") from error
    if found.dtype.kind not in "fiub" and str(found.dtype) != "bfloat16":
        raise ValueError(
            f"`{name}` must be an array of numbers. Received: "
            f"{found.dtype if found.ndim else _short(value)}."
        )
    return found


def of(kind, **options):
    """A kind with its options, such as `of(array, last=2)`."""
    return functools.partial(kind, **options)


def _short(value):
    found = repr(value)
    return found if len(found) < 100 else f"{found[:97]}..."
