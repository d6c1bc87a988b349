"""Pairs of times (t, r) from noise to data, for flow maps."""

from keras import ops

PAIRS = ("ordered", "first", "clipped")


def time_pairs(path, draw, shape, rows, pairs="first", draw_r=None):
    """(t, r) of the given shape, r on the data side of t.

    Two draws, one of the law of t and one of that of r:

    - "ordered": t is the noisier one, r the other; rows with r = t have the
      noisier one too, which is not the law itself (MeanFlow's published code,
      arXiv 2505.13447);
    - "first": so, but on rows with r = t both are the first draw, which keeps
      the law;
    - "clipped": t is the first draw on all rows, r the second, or t where
      that is the noisier one (the second sampler of MeanFlow's PyTorch code).

    Of one uniform law "ordered" and "first" are uniform on the triangle.

    Args:
        path: the `Interpolant`.
        draw: function of a shape to times of the law.
        shape: tuple, (B,).
        rows: the `RowSplit` of the batch: its diagonal rows have r = t.
        pairs: one of the above.
        draw_r: as `draw`, of the law of r; None for that of t.
    """
    first, second = draw(shape), (draw_r or draw)(shape)
    onward = path.toward_data(first, second)
    clipped = pairs == "clipped"
    t = first if clipped else ops.where(onward, first, second)
    r = ops.where(onward, second, first)
    same = first if pairs == "first" else t
    (t, _), (r, _) = rows.split(t), rows.split(r)
    _, diagonal = rows.split(same)
    return rows.merge(t, diagonal), rows.merge(r, diagonal)
