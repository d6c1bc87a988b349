"""Kernel distance: the unbiased squared MMD of features (KID, 1801.01401)."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.metrics.checks import check_pair
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike


def _kernel(x, y):
    """(x . y / dim + 1)^3."""
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _squared_mmd(x, y):
    """Unbiased estimate for as many x as y."""
    n = len(x)
    xx, yy = _kernel(x, x), _kernel(y, y)
    within = xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)
    return within / (n * (n - 1)) - 2.0 * _kernel(x, y).mean()


@checked(num_subsets=SIZE, subset_size=Integer(2), seed=SEED)
def kernel_distance(
    real: ArrayLike,
    fake: ArrayLike,
    num_subsets: int = 100,
    subset_size: int = 1000,
    seed: int | None = 0,
) -> Any:
    """Kernel distance of two sets of features, "KID" for InceptionV3's.

    Mean over random subsets of

        sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (n (n - 1))
            - 2 sum_{ij} k(x_i, y_j) / n^2,    k(x, y) = (x . y / dim + 1)^3.

    It is 0 on average for equal distributions (and so may be negative),
    whatever the number of samples.

    Args:
        real: features (n, dim).
        fake: features (m, dim).
        num_subsets: number of subsets.
        subset_size: samples of each set per subset, without replacement.
        seed: seed of the subsets.

    Returns:
        dict of "value" (mean), "std" over subsets, "num_subsets",
        "subset_size" and "seed".

    Raises:
        ValueError: if there are fewer samples than `subset_size`.
    """
    real, fake = check_pair(real, fake)
    least = min(len(real), len(fake))
    if least < 2:
        raise ValueError(
            "`real` and `fake` must have 2 rows at least. Received "
            f"{len(real)} and {len(fake)}."
        )
    if not 2 <= subset_size <= least:
        raise ValueError(
            f"`subset_size` must lie in [2, {least}], {least} being the "
            f"samples of the smaller set. Received: {subset_size}."
        )
    rng = np.random.default_rng(seed)
    values = [
        _squared_mmd(
            rng.choice(real, subset_size, replace=False),
            rng.choice(fake, subset_size, replace=False),
        )
        for _ in range(num_subsets)
    ]
    return {
        "value": float(np.mean(values)),
        "std": float(np.std(values)),
        "num_subsets": num_subsets,
        "subset_size": subset_size,
        "seed": seed,
    }
