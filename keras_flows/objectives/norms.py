"""Norms of a residual: (B, ...) -> (B,), means over the elements.

Source: arXiv 2512.01809 (l2, l1, smooth l1), 2310.14189 (pseudo-Huber).
"""

from keras import ops

from keras_flows.ops import example_size
from keras_flows.ops import mean_flat


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


def pseudo_huber(residual):
    """mean of sqrt(e^2 + c^2) - c with c = 0.00054 sqrt(elements)."""
    c = 0.00054 * example_size(residual) ** 0.5
    return mean_flat(ops.sqrt(ops.square(residual) + c**2) - c)


_KNOWN = {f.__name__: f for f in (l2, l1, smooth_l1, pseudo_huber)}


def get(identifier):
    """A norm by name, or a function (B, ...) -> (B,) as it is."""
    if callable(identifier):
        return identifier
    if identifier not in _KNOWN:
        raise ValueError(
            f"Unknown `norm`: {identifier!r}. Known: "
            f"{', '.join(sorted(_KNOWN))}."
        )
    return _KNOWN[identifier]
