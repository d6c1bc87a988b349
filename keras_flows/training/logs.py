"""Means of a loss's terms over the steps of an epoch."""

import keras
from keras import ops

from keras_flows.ops import ERROR
from keras_flows.ops import WEIGHTED
from keras_flows.ops import share_of


class Mean(keras.metrics.Mean):
    """As Keras's, and NaN where nothing has counted.

    0.0 would be the best loss that there is, for every callback.
    """

    def result(self):
        nothing = ops.equal(self.count, 0)
        return ops.where(nothing, float("nan"), super().result())


def trackers(terms):
    """{name: Mean} of what may be logged, "loss" first."""
    names = (
        "loss", *terms, WEIGHTED, "regularization", "gradient_norm",
    )  # fmt: skip
    return {name: Mean(name=name) for name in dict.fromkeys(names)}


def renamed(means):
    """Means by the names of the logs: see `keras_flows.ops.terms`."""
    if ERROR not in means:
        return dict(means)
    return {**means, WEIGHTED: means["loss"], "loss": means[ERROR]}


def update(trackers, means, weight, finite):
    """Add a step to the trackers that it has values for.

    Args:
        trackers: as of `trackers`.
        means: {term: mean}, shares among them.
        weight: number of examples.
        finite: whether the step counts.
    """
    for name, tracker in trackers.items():
        if name not in means:
            continue
        value = ops.cast(means[name], "float32")
        counts = ops.cast(weight, "float32") * ops.cast(finite, "float32")
        # A term of no rows in this step has no mean.
        share = ops.cast(means.get(share_of(name), 1.0), "float32")
        if name == "gradient_norm":
            # A loss scaler skips gradients that overflow, and goes on.
            share = ops.cast(ops.isfinite(value), "float32")
        counts = counts * share
        value = value / ops.where(share > 0, share, 1.0)
        tracker.update_state(
            ops.where(counts > 0, value, ops.zeros_like(value)),
            sample_weight=counts,
        )
