"""Splitting a batch: rows that need a JVP or not; rows of several networks."""

from __future__ import annotations

import typing

import numpy as np
from keras import ops
from keras import tree

if typing.TYPE_CHECKING:
    from typing import Any


class RowSplit:
    """Two interleaved groups of the rows of a batch.

    The *off-diagonal* rows (a share of the batch, r != t) are spread evenly
    through it, so that on a batch sharded over devices every device does the
    same work; where the share is 1/k and divides the batch they are taken by
    stride, which needs no communication. The group sizes are static whenever
    the batch size is.

    Where portion * batch_size is no whole number, one row is in both groups,
    and by the draw it is taken from the one or the other: their number is
    rounded at random, and a draw turns the pattern, so that each row of a
    batch of any size is off-diagonal with probability `portion`.

    Args:
        batch_size: int, or a scalar tensor where it is not known.
        portion: share of off-diagonal rows, between 0 and 1.
        place: two uniform draws of [0, 1), (2,), where `is_drawn`; else None.

    Attributes:
        num_off, num_diagonal: rows of the groups, the one in both in either.
        drawn: whether a row may be in both groups.
    """

    def __init__(
        self, batch_size: int, portion: float, place: Any = None
    ) -> None:
        self.batch_size = batch_size
        self.portion = portion
        self.drawn = self.is_drawn(batch_size, portion)
        self._stride = None
        if isinstance(batch_size, int):
            groups = self._static(batch_size)
        else:
            groups = self._dynamic(batch_size)
        self._off, self._diagonal, self._inverse = groups
        if self.drawn:
            self._turn(place)

    @staticmethod
    def is_drawn(batch_size, portion):
        """Whether the share of the rows may be no whole number."""
        if portion in (0.0, 1.0):
            return False
        if not isinstance(batch_size, int):
            return True
        count = batch_size * portion
        return abs(count - round(count)) > 1e-6

    @classmethod
    def of(cls, batch_size, portion, uniform):
        """A split, drawn where it must be.

        Args:
            batch_size, portion: see the class.
            uniform: function of a shape to uniform draws of [0, 1).
        """
        drawn = cls.is_drawn(batch_size, portion)
        return cls(batch_size, portion, uniform((2,)) if drawn else None)

    def _static(self, batch_size):
        rows = np.arange(batch_size)
        share = self.portion
        self.num_off = int(np.ceil(batch_size * share - 1e-6))
        # Row i is off-diagonal where the count (i num_off) // B steps up;
        # row 0 is, if any.
        is_off = (rows * self.num_off) // batch_size != (
            (rows - 1) * self.num_off
        ) // batch_size
        stride = round(1 / share) if share else 0
        if stride > 1 and share * stride == 1 and batch_size % stride == 0:
            self._stride = stride
        off, diagonal = np.flatnonzero(is_off), np.flatnonzero(~is_off)
        inverse = np.argsort(np.concatenate([off, diagonal]))
        self._surplus = batch_size * share - (self.num_off - 1)
        self.num_diagonal = batch_size - self.num_off + int(self.drawn)
        return off, diagonal, inverse

    def _dynamic(self, batch_size):
        rows = ops.cast(ops.arange(batch_size), "int32")
        count = ops.cast(batch_size, "float32") * self.portion
        self.num_off = ops.cast(ops.ceil(count - 1e-4), "int32")
        is_off = ops.not_equal(
            (rows * self.num_off) // batch_size,
            ((rows - 1) * self.num_off) // batch_size,
        )
        # A stable sort brings the off-diagonal rows to the front.
        key = rows + batch_size * ops.cast(ops.logical_not(is_off), "int32")
        order = ops.argsort(key)
        self._surplus = count - ops.cast(self.num_off - 1, "float32")
        self.num_diagonal = batch_size - self.num_off + int(self.drawn)
        return order[: self.num_off], order[self.num_off :], ops.argsort(order)

    def _turn(self, place):
        """Row 0 into both groups, and the pattern turned by a drawn number."""
        size = ops.cast(self.batch_size, "int32")
        turn = ops.cast(
            place[0] * ops.cast(self.batch_size, place.dtype), "int32"
        )
        turn = ops.minimum(turn, size - 1)
        self._first_off = place[1] < ops.cast(self._surplus, place.dtype)
        off, diagonal, inverse = (
            ops.cast(rows, "int32")
            for rows in (self._off, self._diagonal, self._inverse)
        )
        # The row in both is the last of the diagonal ones.
        last = ops.where(self._first_off, 0, size)
        rows = ops.cast(ops.arange(self.batch_size), "int32")
        inverse = ops.where(rows == 0, last, inverse)
        diagonal = ops.concatenate([diagonal, ops.zeros((1,), "int32")])
        self._off, self._diagonal = (
            (off + turn) % size,
            (diagonal + turn) % size,
        )
        self._inverse = ops.take(inverse, (rows - turn) % size, axis=0)

    def used_off(self):
        """Which rows of a drawn off-diagonal group count, (num_off,)."""
        return ops.logical_or(ops.arange(self.num_off) > 0, self._first_off)

    def shares(self, dtype):
        """(is off / portion, is diagonal / (1 - portion)), each (B,).

        Their means over the batch are 1 but for the rounding, and on average.
        """
        off = ops.ones((self.num_off,), dtype)
        diagonal = ops.ones((self.num_diagonal,), dtype)
        return (
            self.merge(off * inverse_of(self.portion), 0.0 * diagonal),
            self.merge(0.0 * off, diagonal * inverse_of(1.0 - self.portion)),
        )

    def split(self, x):
        """(off-diagonal rows, diagonal rows) of a tensor or a structure."""
        if x is None:
            return None, None
        flat = [self._split(leaf) for leaf in tree.flatten(x)]
        return (
            tree.pack_sequence_as(x, [off for off, _ in flat]),
            tree.pack_sequence_as(x, [diagonal for _, diagonal in flat]),
        )

    def _split(self, x):
        if self._stride is not None:
            rest = tuple(ops.shape(x)[1:])
            blocks = ops.reshape(x, (-1, self._stride) + rest)
            return blocks[:, 0], ops.reshape(blocks[:, 1:], (-1,) + rest)
        return ops.take(x, self._off, axis=0), ops.take(
            x, self._diagonal, axis=0
        )

    def merge(self, off, diagonal):
        """The inverse of `split` for one pair of tensors."""
        if self._stride is not None:
            rest = tuple(ops.shape(off)[1:])
            blocks = ops.concatenate(
                [
                    ops.expand_dims(off, 1),
                    ops.reshape(diagonal, (-1, self._stride - 1) + rest),
                ],
                axis=1,
            )
            return ops.reshape(blocks, (-1,) + rest)
        both = ops.concatenate([off, diagonal], axis=0)
        return ops.take(both, self._inverse, axis=0)


def inverse_of(share):
    """1 / share; 0 where there are no rows to scale."""
    return 1.0 / share if share > 0.0 else 0.0


def copies(x, count):
    """A tensor or a structure, `count` times one after the other by rows.

    Returns:
        Rows `count` times as many; for a `count` of 1, and where x is None, x.
    """
    if x is None or count == 1:
        return x
    return tree.map_structure(lambda a: ops.concatenate([a] * count, axis=0), x)


def parts(x, count):
    """The rows of a tensor or a structure, in `count` equal parts.

    Returns:
        List of `count` parts, one after the other in x; for a `count` of 1,
        and where x is None, x as it is.
    """
    if x is None or count == 1:
        return [x] * count
    size = ops.shape(tree.flatten(x)[0])[0] // count
    return [
        tree.map_structure(lambda a: a[k * size : (k + 1) * size], x)  # noqa: B023
        for k in range(count)
    ]


def by_step(function, networks, batch):
    """function(network, *rows), each step's network with its own rows."""
    rows = zip(*(parts(each, len(networks)) for each in batch), strict=True)
    found = [
        function(network, *each)
        for network, each in zip(networks, rows, strict=True)
    ]
    return found[0] if len(found) == 1 else ops.concatenate(found, axis=0)
