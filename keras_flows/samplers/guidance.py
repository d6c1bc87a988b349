"""Guidance: a predictor around two predictors."""

from __future__ import annotations

import typing

import numpy as np
from keras import ops
from keras import tree

from keras_flows.ops import bcast_right
from keras_flows.ops import given

if typing.TYPE_CHECKING:
    from typing import Any


class Guided:
    """negative + scale (positive - negative), of every prediction.

    The positive is the model's under its condition; the negative is one of

    - the model's own under another condition, both from one call on a doubled
      batch: classifier-free guidance (arXiv 2207.12598);
    - that of a weaker model: autoguidance (arXiv 2406.02507).

    Outside `interval` the scale is 1 (arXiv 2404.07724).

    Args:
        positive, negative: predictors on one path, such as `Bound`s.
        scale: scalar, number or tensor; 1 is off.
        interval: (low, high), two levels of noise between which guidance
            acts, or None for everywhere.
        channels: how many of the (last axis's) channels are guided, the
            first ones; None for all.
    """

    def __init__(
        self,
        positive: Any,
        negative: Any,
        scale: float,
        interval: tuple[float, float] | None = None,
        channels: int | None = None,
    ) -> None:
        self.positive, self.negative = positive, negative
        self.interpolant = positive.interpolant
        self.n_mu, self.n_sigma = positive.n_mu, positive.n_sigma
        self.provides = positive.provides
        self.learn_sigma = positive.learn_sigma
        self.scale = scale
        self.interval = interval
        self.channels = channels

    def _pair(self, name, x, *times):
        """(positive, negative)."""
        if not self.positive.joins(self.negative):
            return tuple(
                getattr(predictor, name)(x, *times)
                for predictor in (self.positive, self.negative)
            )
        joined = self.positive.joined(self.negative)
        both = getattr(joined, name)(
            ops.concatenate([x, x]),
            *(ops.concatenate([t, t]) for t in times),
        )
        halves = [ops.split(part, 2) for part in tree.flatten(both)]
        return tuple(
            tree.pack_sequence_as(both, [half[i] for half in halves])
            for i in (0, 1)
        )

    def _combine(self, positive, negative, t):
        scale = ops.cast(self.scale, positive.dtype)
        guided = negative + scale * (positive - negative)
        if self.interval is not None:
            low, high = self.interval
            level = self.interpolant.level(t)
            inside = ops.logical_and(level >= low, level <= high)
            guided = ops.where(bcast_right(inside, positive), guided, positive)
        if self.channels is None:
            return guided
        k = self.channels
        return ops.concatenate([guided[..., :k], positive[..., k:]], axis=-1)

    def _guided(self, name, x, *times):
        return tree.map_structure(
            lambda p, n: self._combine(p, n, times[0]),
            *self._pair(name, x, *times),
        )

    def pred(self, x, t):
        """Velocity, (B, ...)."""
        return self._guided("pred", x, t)

    def jump(self, x, t, r):
        """Flow map X_{t->r}(x), (B, ...)."""
        return self._guided("jump", x, t, r)

    def end(self, x, t):
        """Where the flow from x ends, (B, ...)."""
        return self._guided("end", x, t)

    def denoise(self, x, t):
        """Predicted data, (B, ...)."""
        return self._guided("denoise", x, t)

    def pred_and_score(self, x, t):
        """(velocity, score), from one network call."""
        return self._guided("pred_and_score", x, t)

    def denoise_and_share(self, x, t):
        """(predicted data, share of the variance); the share is not guided.

        So do DiT's published samples: the variance is the positive's.
        """
        if not self.learn_sigma:
            return self.denoise(x, t), None
        positive, negative = self._pair("denoise_and_share", x, t)
        return self._combine(positive[0], negative[0], t), positive[1]


def acts(interval, calls, path, t, r):
    """Whether a step from t to r calls the model inside a guidance interval.

    Args:
        interval: (low, high), levels of noise, or None for everywhere.
        calls: of the sampler, see `Sampler`.
        path: the `Interpolant`.
        t, r: numbers, times.
    """
    if interval is None or calls == "anywhere":
        return True
    low, high = interval
    start, end = path.level(t), path.level(r)
    if calls == "between":
        return bool(min(start, end) <= high and max(start, end) >= low)
    called = (start,) if calls == "start" else (start, end)
    return bool(any(low <= level <= high for level in called))


def channels_of(channels, shape):
    """`guidance_channels`, checked."""
    if channels is None:
        return None
    most = shape[-1] if shape else None
    whole = isinstance(channels, (int, np.integer))
    if (
        isinstance(channels, bool)
        or not whole
        or channels < 1
        or (most is not None and channels > most)
    ):
        raise ValueError(
            "`guidance_channels` must be an int from 1 to the number of "
            f"channels ({most}). Received: {channels!r}."
        )
    return int(channels)


def interval_of(interval):
    """`guidance_interval`, checked."""
    if interval is None:
        return None
    return given.pair("guidance_interval", interval, 0.0, 1.0, equal=True)
