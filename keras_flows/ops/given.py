"""What users hand in beside numbers: arrays, paths, words, functions.

Each kind is a function of (name, value) to the value, and an argument of
`checked`, as those of `scalars` are.
"""

import difflib
import functools
import os
import pathlib

import keras
import numpy as np
from keras import ops

from keras_flows.ops.scalars import MOST
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import Integer


def text(name, value, *, none=False):
    """A string that is not empty."""
    if (value is None and none) or (isinstance(value, str) and value):
        return value
    raise ValueError(
        f"`{name}` must be a string{', or None' if none else ''}. "
        f"Received: {_short(value)}."
    )


def choice(name, value, words, *, none=False):
    """One of some words, or None where that has a meaning."""
    if isinstance(value, str) and value in words or none and value is None:
        return value
    near = difflib.get_close_matches(str(value), words, 1)
    raise ValueError(
        f"`{name}` must be one of {', '.join(words)}{' or None' * none}. "
        f"Received: {_short(value)}."
        + (f" Did you mean {near[0]!r}?" if near else "")
    )


def sizes(name, value, *, ndim=None, low=1, single=False, like=None):
    """Whole numbers as a tuple of Python's own: a shape, say.

    Args:
        name: of the argument, for the message.
        value: tuple, list or array.
        ndim: how many there must be, or None.
        low: the least of each.
        single: whether one number stands for a tuple of it.
        like: what the message writes for it, or None.
    """
    several = isinstance(value, (tuple, list)) or (
        isinstance(value, np.ndarray) and value.ndim == 1
    )
    try:
        parts = value if several or not single else [value]
        found = tuple(Integer(low)(name, part) for part in parts)
    except (TypeError, ValueError):
        found = None
    many = several or single
    if found is None or not many or ndim not in (None, len(found)):
        count = "" if ndim is None else f"{ndim} "
        raise ValueError(
            f"`{name}` must be {like or 'a tuple'}, {count}whole numbers of "
            f"at least {low}{', or one such number' * single}. Received: "
            f"{_short(value)}."
        )
    return found


def factors(name, value):
    """Positive numbers as a tuple."""
    try:
        return tuple(POSITIVE(name, each) for each in value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a tuple of positive numbers. Received: "
            f"{_short(value)}."
        ) from error


def shape(name, value):
    """A shape, whose sizes may be tensors: those of a graph."""
    parts = value if isinstance(value, (tuple, list)) else [value]
    traced = any(map(ops.is_tensor, parts))
    return value if traced else sizes(name, value, low=0)


def seed(name, value):
    """None, an int or a `keras.random.SeedGenerator`."""
    known = isinstance(value, keras.random.SeedGenerator) or value is None
    return value if known else SEED(name, value)


def dtype(name, value):
    """What Keras makes a dtype policy of, one that computes in floats."""
    try:
        policy = keras.dtype_policies.get(value)
        fits = keras.backend.is_float_dtype(policy.compute_dtype)
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"`{name}` must be a float dtype or a policy of one, such as "
            f"'bfloat16' or 'mixed_bfloat16'. Received: {_short(value)}."
        )
    return value


def pair(name, value, low=-MOST, high=MOST, *, equal=False):
    """(a, b), two numbers with low <= a < b <= high, as Python's own.

    Args:
        name: of the argument, for the message.
        value: the two.
        low, high: the bounds of both.
        equal: whether a = b is right as well.
    """
    found = array(name, value)
    rises = found.shape == (2,) and low <= found[0] <= found[1] <= high
    if not rises or (found[0] == found[1] and not equal):
        raise ValueError(
            f"`{name}` must be two numbers, (low, high) with {low} <= low "
            f"{'<=' if equal else '<'} high <= {high}. Received: "
            f"{_short(value)}."
        )
    return tuple(found.tolist())


def having(name, value, methods, what, *, none=False):
    """An object, no class, that has some methods.

    Args:
        name: of the argument, for the message.
        value: the object.
        methods: their names, or attributes'.
        what: what such an object is, in words.
        none: whether None has a meaning.
    """
    if none and value is None:
        return None
    lacks = [method for method in methods if not hasattr(value, method)]
    if isinstance(value, type) or lacks:
        told = value.__name__ if isinstance(value, type) else type(value)
        raise ValueError(
            f"`{name}` must be {what}, with {', '.join(methods)}. Received: "
            f"{told}, {'a class' if not lacks else f'without {lacks[0]}'}."
        )
    return value


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


def rows(name, value):
    """A tensor, or an array of numbers, with a row for each example."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise ValueError(
            f"`{name}` must be a tensor or array. Received: {_short(value)}."
        )
    # Of a NumPy array; bfloat16 has the kind V.
    kind = getattr(value.dtype, "kind", "f")
    if kind not in "fiubV" or not len(value.shape):
        raise ValueError(
            f"`{name}` must be an array of numbers with one row for each "
            f"example. Received dtype {value.dtype}, shape "
            f"{tuple(value.shape)}."
        )
    return value


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


SIZES = of(sizes)
LEVELS = of(pair, low=0.0, high=1.0)
MODEL = of(having, methods=("unpack", "generate"), what="an interface")
IMAGE_SHAPE = of(sizes, ndim=3, like="(height, width, channels)")


def _short(value):
    found = repr(value)
    return found if len(found) < 100 else f"{found[:97]}..."
