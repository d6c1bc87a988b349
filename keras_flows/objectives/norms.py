"""Norms of a residual: (B, ...) -> (B,).

Means over the elements of an example, but for pseudo-Huber, which is a
function of the example's whole Euclidean norm. Source: arXiv 2512.01809 (l2,
l1, smooth l1), 2310.14189 (pseudo-Huber).
"""

import keras
from keras import ops

from keras_flows.ops import example_size
from keras_flows.ops import given
from keras_flows.ops import mean_flat
from keras_flows.ops import sum_flat


def l2(residual):
    """mean e^2."""
    return mean_flat(ops.square(residual))


def l1(residual):
    """mean |e|."""
    return mean_flat(ops.abs(residual))


def smooth_l1(residual):
    """mean of e^2 / 2 where |e| < 1, |e| - 1/2 elsewhere."""
    size = ops.abs(residual)
    return mean_flat(
        ops.where(size < 1.0, 0.5 * ops.square(residual), size - 0.5)
    )


def pseudo_huber(residual, count=None):
    """sqrt(|e|^2 + c^2) - c, |e| over the whole example, c = 0.00054 sqrt(d).

    Like |e|^2 / (2 c) while the root mean square of e is below 0.00054, like
    |e| above: its gradient has about the same length at every error.

    Args:
        residual: e, (B, ...).
        count: d, the number of elements that count, (B,); None for all. What
            does not count is 0 in the residual.
    """
    if count is None:
        count = example_size(residual)
    # With nothing left the root of 0 would have no derivative.
    squared = 0.00054**2 * ops.maximum(ops.cast(count, residual.dtype), 1.0)
    square = sum_flat(ops.square(residual))
    # The difference of the two roots, without its rounding.
    return square / (ops.sqrt(square + squared) + ops.sqrt(squared))


def masked(norm, kept, mask):
    """The norm of what a mask keeps, (B,).

    Scaled so that its batch mean is the mean over the kept elements, and of
    `pseudo_huber` the mean over the examples of which any is kept.

    Args:
        norm: function (B, ...) -> (B,).
        kept: the residual, (B, T, ...), 0 where the mask is.
        mask: (B, T), 1 where the residual counts and 0 elsewhere.
    """
    if norm is pseudo_huber:
        count = example_size(kept[:, 0]) * sum_flat(mask)
        share = ops.mean(ops.cast(count > 0, kept.dtype))
        found = pseudo_huber(kept, count)
    else:
        share, found = ops.mean(mask), norm(kept)
    return found / ops.maximum(share, keras.config.epsilon())


_KNOWN = {f.__name__: f for f in (l2, l1, smooth_l1, pseudo_huber)}


def get(identifier):
    """A norm by name, or a function (B, ...) -> (B,) as it is."""
    if callable(identifier) and not isinstance(identifier, type):
        return identifier
    return _KNOWN[given.choice("norm", identifier, sorted(_KNOWN))]
