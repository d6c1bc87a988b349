"""Numbers and flags that users hand in: checked, and Python's own after."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any
from typing import TypeVar

# A function or a class: `checked` leaves its signature as it is.
Checked = TypeVar("Checked", bound=Callable[..., Any])


def _plain(value):
    """A NumPy number, or a tensor of one element, as Python's own."""
    if hasattr(value, "item") and math.prod(getattr(value, "shape", ())) == 1:
        return value.item()
    return value


def number(name, value, low=None, high=None, *, above=None, below=None):
    """A finite real number within its range, as Python's own.

    Args:
        name: of the argument, for the message.
        value: int, float or a NumPy number; no bool and no string.
        low, high: least and largest value, or None.
        above, below: bounds that are outside themselves, or None.

    Raises:
        ValueError: naming the argument, its range and what came.
    """
    return Number(low, high, above=above, below=below)(name, value)


def integer(name, value, low=None, high=None):
    """A whole number within its range, as `number`; no float."""
    return Integer(low, high)(name, value)


def flag(name, value):
    """True or False; no string, which would always be true."""
    return Flag()(name, value)


@dataclasses.dataclass(frozen=True)
class Number:
    """The range of a number; calling it is `number`."""

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    multiple: int = dataclasses.field(default=1, kw_only=True)
    kind: str = dataclasses.field(default="a finite number", kw_only=True)
    types: tuple = dataclasses.field(default=(int, float), kw_only=True)

    def __call__(self, name, value):
        found = _plain(value)
        fits = (
            isinstance(found, self.types)
            and not isinstance(found, bool)
            and -math.inf < found < math.inf
            and (self.low is None or found >= self.low)
            and (self.high is None or found <= self.high)
            and (self.above is None or found > self.above)
            and (self.below is None or found < self.below)
            and (self.multiple == 1 or found % self.multiple == 0)
        )
        if not fits:
            raise ValueError(
                f"`{name}` must be {self.kind}{self._range()}. "
                f"Received: {value!r}."
            )
        return found

    def _range(self):
        words = [
            f" {word} {bound}"
            for word, bound in (
                ("of at least", self.low),
                ("above", self.above),
                ("at most", self.high),
                ("below", self.below),
            )
            if bound is not None
        ]
        return " and".join(words)


def Integer(low=None, high=None, multiple=1):
    """The range of a whole number, a multiple of another."""
    kind = "an int" if multiple == 1 else f"a multiple of {multiple}, an int"
    return Number(low, high, multiple=multiple, kind=kind, types=(int,))


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    def __call__(self, name, value):
        found = _plain(value)
        if not isinstance(found, bool):
            raise ValueError(
                f"`{name}` must be True or False. Received: {value!r}."
            )
        return found


@dataclasses.dataclass(frozen=True)
class Optional:
    """What may be None as well."""

    inner: object

    def __call__(self, name, value):
        return None if value is None else self.inner(name, value)


FLAG = Flag()
# More is never meant, and float32 overflows on the way.
MOST = 10**9
REAL = Number(-MOST, MOST)
POSITIVE = Number(above=0, high=MOST)
NOT_NEGATIVE = Number(0, MOST)
SHARE = Number(0, 1)
# Sizes are int32 somewhere on the way.
SIZE = Integer(1, 2**31 - 1)
COUNT = Integer(0, 2**31 - 1)
EVEN = Integer(0, 2**31 - 1, multiple=2)
PAIRS = Integer(2, 2**31 - 1, multiple=2)
# Sine and cosine of two times, or of two coordinates.
FOURFOLD = Integer(4, 2**31 - 1, multiple=4)
# Of files, which may be larger.
BYTES = Integer(1, 2**63 - 1)
SEED = Optional(Integer(0, 2**64 - 1))
GUIDANCE = Number(-1000, 1000)
LOCATION = Number(-1000, 1000)
SCALE = Number(above=0, high=1000)


def _plain_kind(kind):
    # A function of one's own may say that it is of numbers too.
    return isinstance(kind, (Number, Flag, Optional)) or getattr(
        kind, "of_numbers", False
    )


def checked(**ranges: Any) -> Callable[[Checked], Checked]:
    """Decorator of a function, or of a class for its constructor.

    Each argument that is named must be what its range takes, and arrives as a
    Python number:

        @checked(width=SIZE, dropout=SHARE)
        def __init__(self, width, dropout=0.0): ...
    """

    def decorate(target):
        if isinstance(target, type):
            target.__init__ = decorate(target.__init__)
            return target
        signature = inspect.signature(target)
        unknown = set(ranges) - set(signature.parameters)
        if unknown:
            raise TypeError(f"{target.__qualname__} has no {sorted(unknown)}.")

        # Numbers first: to look at them costs nothing.
        ordered = sorted(ranges, key=lambda name: not _plain_kind(ranges[name]))
        by_place = [
            name
            for name, parameter in signature.parameters.items()
            if parameter.kind
            in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        # One that is by keyword alone has a place beyond all.
        plan = [
            (
                name,
                ranges[name],
                by_place.index(name) if name in by_place else math.inf,
            )
            for name in ordered
        ]

        @functools.wraps(target)
        def call(*args, **kwargs):
            # By hand: `signature.bind` takes longer than all checks.
            count = len(args)
            for name, kind, place in plan:
                if name in kwargs:
                    kwargs[name] = kind(name, kwargs[name])
                elif place < count:
                    value = kind(name, args[place])
                    args = (*args[:place], value, *args[place + 1 :])
            return target(*args, **kwargs)

        # Keras reads the arguments' names off the outermost function.
        call.__signature__ = signature
        return call

    return decorate
