"""Pairs of times (t, r) from noise to data, for flow maps."""

from keras import ops

from keras_flows.ops import RowSplit


def time_pairs(path, draw, shape, diagonal_portion):
    """(t, r) of the given shape, r on the data side of t.

    Two draws of the training law, ordered; for the uniform law they are
    uniform on the triangle. On the diagonal rows r = t is the first draw,
    so that it keeps the law itself.

    Args:
        path: the `Interpolant`.
        draw: function of a shape to times of the law.
        shape: tuple, (B,).
        diagonal_portion: share of the rows with r = t; `RowSplit` says which.
    """
    first, second = draw(shape), draw(shape)
    onward = path.toward_data(first, second)
    t = ops.where(onward, first, second)
    r = ops.where(onward, second, first)
    rows = RowSplit(shape[0], 1.0 - diagonal_portion)
    (t, _), (r, _) = rows.split(t), rows.split(r)
    _, diagonal = rows.split(first)
    return rows.merge(t, diagonal), rows.merge(r, diagonal)
