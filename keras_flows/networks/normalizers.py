"""Normalisers of observations and actions, their statistics in the weights.

A normaliser is the map y = (x - offset) / scale of each feature and its
inverse; the kinds differ in how `adapt` finds offset and scale. A feature
that is constant in the data has scale 0: it becomes 0 whatever comes, and its
inverse the constant. So nothing blows up where a joint never moved.
"""

from __future__ import annotations

import difflib
import typing

import keras
import numpy as np
from keras import ops

from keras_flows.ops import deserialized
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any


@register
class Normalizer(keras.layers.Layer):
    """y = (x - offset) / scale over the last axis; identity until adapted.

    Args:
        floor: range below which a feature counts as constant, as a share of
            the largest magnitude in its data (and absolutely).
    """

    @checked(floor=POSITIVE)
    def __init__(self, floor: float = 1e-6, **kwargs: Any) -> None:
        kwargs.setdefault("dtype", float_dtype())
        kwargs.setdefault("trainable", False)
        super().__init__(**kwargs)
        self.floor = floor

    def build(self, input_shape):
        if self.built:
            return
        dim = (input_shape[-1],)
        self.offset = self.add_weight(
            shape=dim, initializer="zeros", trainable=False, name="offset"
        )
        self.scale = self.add_weight(
            shape=dim, initializer="ones", trainable=False, name="scale"
        )
        self.built = True

    def call(self, x):
        scale = ops.convert_to_tensor(self.scale)
        varies = scale > 0
        scale = ops.where(varies, scale, 1.0)
        return ops.where(varies, (x - self.offset) / scale, 0.0)

    def inverse(self, y):
        """x = offset + scale y."""
        return self.offset + self.scale * y

    def adapt(self, data):
        """Find offset and scale.

        Args:
            data: array (..., D), or an iterable of such arrays, which is
                read once and never held.

        Raises:
            ValueError: if there is no data, or it is not finite.
        """
        if hasattr(data, "shape") or not hasattr(data, "__iter__"):
            if len(getattr(data, "shape", ())) == 1:
                raise ValueError(
                    "`data` must hold rows, of shape (rows, features). "
                    f"Received one row, of shape {tuple(data.shape)}: of one "
                    "feature pass data[:, None]."
                )
            data = [data]
        state, count, width = None, 0, None
        for part in data:
            rows = given.array("data", part, finite=False)
            if not rows.ndim:
                raise ValueError("`data` must hold rows. Received one number.")
            rows = rows.reshape(-1, max(rows.shape[-1], 1))
            width = rows.shape[1] if width is None else width
            if rows.shape[1] != width:
                raise ValueError(
                    "`data` must have the same features in all its parts. "
                    f"Received {width} and then {rows.shape[1]}."
                )
            if not np.isfinite(rows).all():
                raise ValueError(
                    "`data` to adapt to holds NaN or infinite values, in "
                    f"feature {(~np.isfinite(rows)).any(0).argmax()} first."
                )
            if len(rows):
                state = self._update(state, rows)
                count += len(rows)
        if count == 0:
            raise ValueError("`data` to adapt to is empty.")
        offset, scale, size = self._statistics(state)
        if not self.built:
            self.build((None, len(offset)))
        if offset.shape != tuple(self.offset.shape):
            raise ValueError(
                f"`data` has {len(offset)} features; the normaliser was built "
                f"for {self.offset.shape[0]}."
            )
        varies = scale > self.floor * np.maximum(size, 1.0)
        self.offset.assign(offset.astype("float32"))
        self.scale.assign(np.where(varies, scale, 0.0).astype("float32"))

    def _update(self, state, rows):
        """The running state after more rows (N, D), float64."""
        low, high = rows.min(0), rows.max(0)
        if state is None:
            return low, high
        return np.minimum(state[0], low), np.maximum(state[1], high)

    def _statistics(self, state):
        """(offset, scale, magnitude), each (D,)."""
        low, high = state
        zero = np.zeros_like(low)
        return zero, zero + 1.0, zero

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "floor": self.floor}


@register
class MinMax(Normalizer):
    """The smallest value becomes -1 and the largest 1."""

    def _statistics(self, state):
        low, high = state
        size = np.maximum(np.abs(low), np.abs(high))
        return (low + high) / 2, (high - low) / 2, size


@register
class MeanStd(Normalizer):
    """Mean 0 and standard deviation 1."""

    def _update(self, state, rows):
        # Chan's merge of (count, mean, sum of squares), largest magnitude.
        count, mean = len(rows), rows.mean(0)
        squares = ((rows - mean) ** 2).sum(0)
        size = np.abs(rows).max(0)
        if state is None:
            return count, mean, squares, size
        count0, mean0, squares0, size0 = state
        total, delta = count0 + count, mean - mean0
        return (
            total,
            mean0 + delta * count / total,
            squares0 + squares + delta**2 * count0 * count / total,
            np.maximum(size0, size),
        )

    def _statistics(self, state):
        count, mean, squares, size = state
        return mean, np.sqrt(squares / count), size


@register
class Quantile(Normalizer):
    """Two quantiles become -1 and 1, whatever the outliers beyond them.

    Of more than `most` rows a random sample of that many is kept.

    Args:
        low, high: the quantiles.
        most: rows to keep.
    """

    @checked(low=SHARE, high=SHARE, most=SIZE)
    def __init__(
        self,
        low: float = 0.01,
        high: float = 0.99,
        most: float = 1_000_000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 <= low < high <= 1:
            raise ValueError(
                "`low` and `high` must be quantiles with 0 <= low < high <= "
                f"1. Received: {low}, {high}."
            )
        self.low, self.high, self.most = low, high, most

    def _update(self, state, rows):
        rng = np.random.Generator(np.random.Philox(0))
        keys = np.empty(0)
        if state is not None:
            old, keys, rng = state
            rows = np.concatenate([old, rows])
        # Each row draws a key once; the smallest `most` keys stay.
        keys = np.concatenate([keys, rng.random(len(rows) - len(keys))])
        if len(rows) > self.most:
            kept = np.argpartition(keys, self.most)[: self.most]
            rows, keys = rows[kept], keys[kept]
        return rows, keys, rng

    def _statistics(self, state):
        low, high = np.quantile(state[0], [self.low, self.high], axis=0)
        size = np.maximum(np.abs(low), np.abs(high))
        return (low + high) / 2, (high - low) / 2, size

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "most": self.most,
        }


_KNOWN = {
    "identity": Normalizer,
    "min_max": MinMax,
    "mean_std": MeanStd,
    "quantile": Quantile,
}


def get(identifier, argument="normalizer"):
    """A normaliser by name, config, or as it is.

    Names: "identity", "min_max", "mean_std", "quantile". Messages call it
    `argument`.
    """
    if isinstance(identifier, Normalizer):
        return identifier
    if isinstance(identifier, dict) and "class_name" in identifier:
        return deserialized(identifier, argument, Normalizer)
    if not isinstance(identifier, str) or identifier not in _KNOWN:
        near = difflib.get_close_matches(str(identifier), _KNOWN, 1)
        raise ValueError(
            f"Unknown `{argument}`: {identifier!r}. Known: {', '.join(_KNOWN)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    return _KNOWN[identifier]()
