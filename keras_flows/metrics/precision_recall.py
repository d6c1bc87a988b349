"""Improved precision and recall of generative models (arXiv 1904.06991)."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.metrics.checks import check_pair
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike

# float64 distances by one matrix product err by some 1e-13 of the largest
# squared norm; a copy of a sample must count as being at distance 0.
SLACK = 1e-12


def _squared_distances(x, y):
    """|x_i - y_j|^2, (n, m)."""
    squares = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1)
    return np.maximum(squares - 2.0 * x @ y.T, 0.0)


def _chunks(x, size):
    return (x[i : i + size] for i in range(0, len(x), size))


def _squared_radii(x, k, size):
    """Squared distance of each sample to its k-th neighbour, (n,)."""
    return np.concatenate(
        [
            # The nearest is the sample itself.
            np.partition(_squared_distances(chunk, x), k, axis=1)[:, k]
            for chunk in _chunks(x, size)
        ]
    )


def _covered(points, centres, squared_radii, size):
    """Share of points within the ball of at least one centre."""
    inside = [
        (_squared_distances(chunk, centres) <= squared_radii).any(axis=1)
        for chunk in _chunks(points, size)
    ]
    return float(np.concatenate(inside).mean())


@checked(k=SIZE, batch_size=SIZE)
def precision_recall(
    real: ArrayLike, fake: ArrayLike, k: float = 3, batch_size: int = 500
) -> Any:
    """Precision and recall by k-nearest-neighbour balls.

    Precision is the share of fake samples within the ball of at least one
    real sample, whose radius is that sample's distance to its k-th real
    neighbour; recall the same with the sets exchanged. Both rise with fewer
    samples: compare figures of equal numbers only (50,000 each, features of
    VGG16 in the paper, InceptionV3 in ADM's evaluator).

    Args:
        real: features (n, dim).
        fake: features (m, dim).
        k: neighbour that gives the radius.
        batch_size: rows of distances held at a time.

    Returns:
        dict of "precision", "recall", "k", "num_real" and "num_fake".

    Raises:
        ValueError: if a set has no more than k samples.
    """
    real, fake = check_pair(real, fake)
    least = min(len(real), len(fake))
    if not 1 <= k < least:
        raise ValueError(
            f"`k` must lie in [1, {least - 1}]: the smaller set has {least} "
            f"samples, each with {least - 1} neighbours. Received: {k}."
        )
    # Distances do not change; the squares that cancel in them get small.
    centre = real.mean(axis=0)
    real, fake = real - centre, fake - centre
    norms = max((x * x).sum(axis=1).max() for x in (real, fake))
    slack = SLACK * norms
    real_radii = _squared_radii(real, k, batch_size) + slack
    fake_radii = _squared_radii(fake, k, batch_size) + slack
    return {
        "precision": _covered(fake, real, real_radii, batch_size),
        "recall": _covered(real, fake, fake_radii, batch_size),
        "k": k,
        "num_real": len(real),
        "num_fake": len(fake),
    }
