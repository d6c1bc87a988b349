"""Inception score: exp E_x KL(p(y | x) || p(y)) (arXiv 1606.03498)."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.metrics.checks import check_features
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike


class InceptionScore:
    """Inception score of the logits of samples.

    Per split, exp of the mean over samples of sum_y p(y|x) (log p(y|x) -
    log p(y)), p(y) being the split's mean of p(y|x). Published figures are of
    `InceptionV3Features`'s "logits_unbiased": the first code left the bias
    out and others followed.

    Args:
        splits: number of parts, whose scores' mean and deviation are given.
        seed: seed of the order in which samples are split (samples sorted by
            class would make splits of few classes); None keeps their order,
            as ADM's evaluator does.

    Example:

    ```python
    logits = kf.metrics.InceptionV3Features()(images)["logits_unbiased"]
    kf.metrics.InceptionScore()(logits)["value"]
    ```
    """

    @checked(splits=SIZE, seed=SEED)
    def __init__(self, splits: int = 10, seed: int | None = 0) -> None:
        self.splits = splits
        self.seed = seed

    def __call__(self, logits: ArrayLike) -> Any:
        """Score of logits (n, K): a dict.

        Returns:
            dict of "value" (mean over splits), "std", "splits",
            "num_samples" and "seed".

        Raises:
            ValueError: if there are fewer samples than splits, or logits
                are not finite.
        """
        logits = check_features(logits, "logits")
        if len(logits) < self.splits:
            raise ValueError(
                f"`logits` of at least {self.splits} samples are needed for "
                f"as many splits. Received: {len(logits)}."
            )
        if self.seed is not None:
            order = np.random.default_rng(self.seed).permutation(len(logits))
            logits = logits[order]
        logits = logits - logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        scores = [_score(part) for part in np.array_split(log_p, self.splits)]
        return {
            "value": float(np.mean(scores)),
            "std": float(np.std(scores)),
            "splits": self.splits,
            "num_samples": len(logits),
            "seed": self.seed,
        }


def _score(log_p):
    p = np.exp(log_p)
    # A class of probability 0 in float64 adds 0, not 0 times infinity.
    marginal = np.log(np.maximum(p.mean(axis=0), np.finfo("float64").tiny))
    return np.exp((p * (log_p - marginal)).sum(axis=1).mean())
