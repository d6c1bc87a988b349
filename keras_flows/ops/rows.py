"""Splitting a batch: rows that need a JVP or not; rows of several networks."""

import numpy as np
from keras import ops
from keras import tree


class RowSplit:
    """Two interleaved groups of the rows of a batch.

    The *off-diagonal* rows (a share of the batch, r != t) are spread evenly
    through it, so that on a batch sharded over devices every device does the
    same work; where the share is 1/k and divides the batch they are taken by
    stride, which needs no communication. The group sizes are static whenever
    the batch size is.

    Args:
        batch_size: int, or a scalar tensor where it is not known.
        portion: share of off-diagonal rows, between 0 and 1.
    """

    def __init__(self, batch_size, portion):
        self.batch_size = batch_size
        self.portion = portion
        self._stride = None
        self._off = self._diagonal = self._inverse = None
        if isinstance(batch_size, int):
            self._static(batch_size)
        else:
            self._dynamic(batch_size)

    def _static(self, batch_size):
        rows = np.arange(batch_size)
        share = self.portion
        # Row i is off-diagonal where the running count floor(i * share)
        # steps up; row 0 is, so a batch of one still sees the JVP.
        is_off = np.floor(rows * share + 1e-9) != np.floor(
            (rows - 1) * share + 1e-9
        )
        if share == 0:
            is_off[:] = False
        self.num_off = int(is_off.sum())
        self.num_diagonal = batch_size - self.num_off
        stride = round(1 / share) if share else 0
        if stride > 1 and share * stride == 1 and batch_size % stride == 0:
            self._stride = stride
        self._off = np.flatnonzero(is_off)
        self._diagonal = np.flatnonzero(~is_off)
        self._inverse = np.argsort(np.concatenate([self._off, self._diagonal]))

    def _dynamic(self, batch_size):
        rows = ops.cast(ops.arange(batch_size), "float32")
        is_off = ops.not_equal(
            ops.floor(rows * self.portion + 1e-6),
            ops.floor((rows - 1) * self.portion + 1e-6),
        )
        if self.portion == 0:
            is_off = ops.zeros_like(is_off)
        self.num_off = ops.sum(ops.cast(is_off, "int32"))
        self.num_diagonal = batch_size - self.num_off
        # A stable sort brings the off-diagonal rows to the front.
        index = ops.cast(ops.arange(batch_size), "int32")
        key = index + batch_size * ops.cast(ops.logical_not(is_off), "int32")
        order = ops.argsort(key)
        self._off = order[: self.num_off]
        self._diagonal = order[self.num_off :]
        self._inverse = ops.argsort(order)

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
