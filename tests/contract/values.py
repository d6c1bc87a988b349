"""Kinds of arguments: what to try, and what each value must lead to.

Values are Python expressions, so that each call can be printed and run again.
A verdict is "good" (it must work), "bad" (it must be refused by name) or
"either" (it works, rightly, or is refused by name).
"""

import dataclasses
import math
import numbers
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

# What no argument but a few has any use for.
WRONG = (
    "float('nan')", "float('inf')", "-float('inf')", "None", "'a word'", "''",
    "b'bytes'", "1j", "[]", "()", "{}", "object()", "int",
    "np.zeros((0,))", "np.zeros((3, 1, 2))", "np.array(['a', 'b'])",
    "np.array([np.nan, 1.0])", "np.float32('nan')", "np.array(None)",
    "[1, 2]", "['a', 'b']", "{'a': 1}", "Ellipsis",
)  # fmt: skip
# Numbers, each meant by some argument.
NUMBERS = (
    "-1", "0", "1", "2", "3", "0.5", "-0.5", "1.5", "2.0", "1e-12", "1e30",
    "-1e30", "2**70", "-2**70", "True", "False", "np.int64(2)", "np.uint8(1)",
    "np.float32(0.5)", "np.float64(2.0)", "np.array(0.5)", "np.array(2)",
    "np.array([1])", "np.bool_(True)", "ops.convert_to_tensor(0.5)",
    "'0.5'", "'2'",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of argument.

    Args:
        verdict: function of a value to "good", "bad" or "either".
        values: expressions to try beside `WRONG` and `NUMBERS`.
        drawn: strategy of further expressions, or None.
        pool: whether `WRONG` and `NUMBERS` are tried.
    """

    verdict: Callable
    values: tuple = ()
    drawn: object = None
    pool: bool = True

    def expressions(self):
        """A strategy of expressions, half of them of the kind itself."""
        own = [st.sampled_from(self.values)] if self.values else []
        own += [self.drawn] if self.drawn is not None else []
        wrong = st.sampled_from(WRONG + NUMBERS)
        if not own:
            return wrong
        return st.one_of(*own, wrong) if self.pool else st.one_of(*own)


def _plain(value):
    """A number as Python has it; None for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return None
    if isinstance(value, (numbers.Real, np.integer, np.floating)):
        return value.item() if hasattr(value, "item") else value
    return None


def _unclear(value):
    """Whether it may pass for a number: a flag, or an array of one."""
    if isinstance(value, (bool, np.bool_)):
        return True
    return np.shape(value) in ((), (1,)) and hasattr(value, "dtype")


def real(low=-math.inf, high=math.inf, most=50.0, none=False):
    """A finite number; beyond `most` in size it may be refused."""

    def verdict(value):
        if value is None:
            return "good" if none else "bad"
        number = _plain(value)
        if number is None:
            return "either" if _is_number(value) else "bad"
        if not -(10.0**300) < number < 10.0**300:
            return "bad"
        if not low <= number <= high:
            return "bad"
        edge = number in (low, high) or abs(number) > most
        return "either" if edge or 0 < abs(number) < 1e-3 else "good"

    inside = st.floats(max(low, -most), min(high, most), allow_nan=False)
    return Kind(verdict, drawn=inside.map(lambda v: repr(round(v, 4))))


def _is_number(value):
    """Whether a flag, array or tensor of one finite number."""
    if not _unclear(value):
        return False
    try:
        return math.isfinite(float(np.asarray(value).reshape(())))
    except (TypeError, ValueError):
        return False


def integer(low=0, high=None, most=4, none=False):
    """An int; above `most`, and where 2.0 comes, it may be refused."""

    def verdict(value):
        if value is None:
            return "good" if none else "bad"
        number = _plain(value)
        if number is None:
            return "either" if _is_number(value) else "bad"
        if not math.isfinite(number) or number != int(number):
            return "bad"
        if number < low or (high is not None and number > high):
            return "bad"
        whole = isinstance(value, (int, np.integer))
        return "good" if whole and number <= most else "either"

    top = most if high is None else min(most, high)
    return Kind(verdict, drawn=st.integers(low, top).map(repr))


def choice(*names, none=False, other=lambda value: False):
    """One of some words; `other` says what else has a meaning."""

    def verdict(value):
        if value is None:
            return "good" if none else "bad"
        if isinstance(value, str):
            return "good" if value in names else "bad"
        return "either" if other(value) else "bad"

    return Kind(verdict, tuple(map(repr, names)))


def flag():
    """True or False; a word, of which all are true, is wrong."""

    def verdict(value):
        if isinstance(value, bool):
            return "good"
        return "bad" if isinstance(value, (str, bytes)) else "either"

    return Kind(verdict, ("True", "False", "'no'", "'False'"))


def seed():
    """An int from 0, or None."""
    return dataclasses.replace(integer(0, None, 2**31, none=True))


def listed(good=(), bad=(), either=(), pool=True, unclear=()):
    """Expressions with their verdicts; what is not listed is wrong.

    Args:
        good, bad, either: expressions.
        pool: whether `WRONG` and `NUMBERS` are tried.
        unclear: those of `WRONG` and `NUMBERS` that may have a meaning.
    """
    table = {text: "good" for text in good}
    table |= {text: "bad" for text in bad}
    table |= {text: "either" for text in (*either, *unclear)}
    values = (*good, *bad, *either)
    return Kind(table, values, pool=pool)


def any_text():
    """A word, or None: any string is right."""

    def verdict(value):
        if value is None or (isinstance(value, str) and value.isidentifier()):
            return "good"
        return "either" if isinstance(value, str) else "bad"

    return Kind(verdict, ("'a_name'", "'a/b'", "'a name'"))


def verdict_of(kind, text, value):
    """The verdict of a kind on an expression and its value."""
    if isinstance(kind.verdict, dict):
        return kind.verdict.get(text, "bad")
    try:
        return kind.verdict(value)
    except Exception:
        return "bad"


def array(shape, dtype="float32", integers=False, loose=False):
    """An array of a batch of data: its kinds of error, as expressions.

    Args:
        shape: with the batch first.
        dtype: of the good one.
        integers: whether it holds class labels from 0 to 2.
        loose: whether other shapes may have a meaning.
    """
    full = f"filled({shape}, {dtype!r})"
    rows, *rest = shape
    wrong = [f"filled({shape}, 'str')", f"filled({shape}, 'complex64')"]
    shapes = [
        f"filled({other}, {dtype!r})"
        for other in (
            (rows, *rest, 1),
            (*shape[:-1], shape[-1] + 1),
            (0, *rest),
            *((shape[1:],) if rest else ()),
        )
    ]
    either = [
        f"filled({shape}, 'float64')",
        f"filled({shape}, 'float16')",
        f"filled({shape}, 'int64')",
        f"filled({shape}, 'bool')",
        f"filled({shape}, 'uint8')",
        f"filled({shape}, 'object')",
        f"{full}.tolist()",
        f"ops.convert_to_tensor({full})",
    ]
    if not integers:
        wrong.append(f"filled({shape}, {dtype!r}, np.nan)")
        wrong.append(f"filled({shape}, {dtype!r}, np.inf)")
    (either if loose else wrong).extend(shapes)
    # An array of any shape may fit somewhere: what fits is right.
    unclear = tuple(t for t in WRONG + NUMBERS if "np." in t or "ops." in t)
    if loose:
        unclear += ("[1, 2]", "[]", *(t for t in NUMBERS if t[0] != "'"))
    return listed((full,), tuple(wrong), tuple(either), unclear=unclear)
