"""Scalar arguments: checked once, the same everywhere, and told by name."""

import functools
import inspect
import math
import numbers
import os
import pathlib

import numpy as np
from keras import ops


def number(name, value, low=-math.inf, high=math.inf, *, above=None,
           below=None, none=False):  # fmt: skip
    """A finite number as Python has it, an int where it was one.

    Args:
        name: of the argument, for the message.
        value: a number, NumPy's too, or an array of no dimensions.
        low, high: bounds that belong to the range.
        above, below: bounds that do not.
        none: whether None is right, too.

    Raises:
        ValueError: naming the argument, its range and what came.
    """
    if value is None and none:
        return None
    found = _scalar(value)
    if (
        found is None
        or not math.isfinite(found)
        or not low <= found <= high
        or (above is not None and found <= above)
        or (below is not None and found >= below)
    ):
        bounds = _said(low, high, above, below)
        raise ValueError(
            f"`{name}` must be a finite number{bounds}"
            f"{', or None' if none else ''}. Received: {_short(value)}."
        )
    return found


def whole(name, value, low=0, high=None, *, none=False):
    """An int from `low` to `high`: see `number`."""
    if value is None and none:
        return None
    found = _scalar(value)
    if (
        not isinstance(found, int)
        or found < low
        or (high is not None and found > high)
    ):
        most = "" if high is None else f" and at most {high}"
        raise ValueError(
            f"`{name}` must be an int of at least {low}{most}"
            f"{', or None' if none else ''}. Received: {_short(value)}."
        )
    return found


def flag(name, value):
    """True or False; 0 and 1 pass, words and other things do not."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    found = _scalar(value)
    if isinstance(found, int) and found in (0, 1):
        return bool(found)
    raise ValueError(
        f"`{name}` must be True or False. Received: {_short(value)}."
    )


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


def _scalar(value):
    """The int or float that a value is; None for anything else."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if hasattr(value, "dtype") and getattr(value, "shape", None) == ():
        try:
            item = np.asarray(value).item()
        except (TypeError, ValueError, RuntimeError):
            return None
        return None if hasattr(item, "dtype") else _scalar(item)
    return None


def _said(low, high, above, below):
    parts = []
    if above is not None:
        parts.append(f"above {above:g}")
    elif low > -math.inf:
        parts.append(f"of at least {low:g}")
    if below is not None:
        parts.append(f"below {below:g}")
    elif high < math.inf:
        parts.append(f"at most {high:g}")
    return " " + " and ".join(parts) if parts else ""


def _short(value):
    found = repr(value)
    return found if len(found) < 100 else f"{found[:97]}..."


def seed(name, value):
    """An int of at least 0, or None."""
    return whole(name, value, none=True)


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


def checked(**kinds):
    """A decorator: arguments are checked, and given on as checked.

    Args:
        kinds: {argument: function of (name, value) to the value}, such as
            `whole`, or `of(number, above=0)`.
    """

    def decorate(fn):
        signature = inspect.signature(fn)

        @functools.wraps(fn)
        def call(*args, **kwargs):
            bound = signature.bind(*args, **kwargs)
            for name in bound.arguments:
                if name in kinds:
                    value = bound.arguments[name]
                    bound.arguments[name] = kinds[name](name, value)
            return fn(*bound.args, **bound.kwargs)

        return call

    return decorate


def of(kind, *args, **options):
    """A kind of `checked` with its options."""
    return lambda name, value: kind(name, value, *args, **options)
