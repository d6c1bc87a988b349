"""Pairs of times (t, r) from noise to data, for flow maps."""

from keras import ops


def time_pairs(path, draw, shape, rows):
    """(t, r) of the given shape, r on the data side of t.

    Two draws of the training law, ordered; for the uniform law they are
    uniform on the triangle. On the diagonal rows r = t is the first draw,
    so that it keeps the law itself.

    Args:
        path: the `Interpolant`.
        draw: function of a shape to times of the law.
        shape: tuple, (B,).
        rows: the `RowSplit` of the batch: its diagonal rows have r = t.
    """
    first, second = draw(shape), draw(shape)
    onward = path.toward_data(first, second)
    t = ops.where(onward, first, second)
    r = ops.where(onward, second, first)
    (t, _), (r, _) = rows.split(t), rows.split(r)
    _, diagonal = rows.split(first)
    return rows.merge(t, diagonal), rows.merge(r, diagonal)
