"""A change of path: a predictor around a predictor."""

from __future__ import annotations

import typing

from keras import ops

from keras_flows.ops import bcast_right

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import PathLike


class OnPath:
    """The same predictor on another path, exactly.

    Two paths that mix data and noise in the same ratio sigma / alpha differ
    by a factor: x_t on the new path is c times the inner model's x at its
    time of that ratio, c = sqrt((alpha^2 + sigma^2) / (alpha'^2 + sigma'^2)).
    The model's data and noise there give every prediction here
    (arXiv 2206.00364, section 2).

    Args:
        inner: a predictor, such as a `Bound`.
        path: the new `Interpolant`.
    """

    def __init__(self, inner: Callable[..., Any], path: PathLike) -> None:
        self.inner, self.interpolant = inner, path
        self.n_mu, self.n_sigma = inner.n_mu, inner.n_sigma
        self.provides = inner.provides
        self.learn_sigma = inner.learn_sigma

    def joins(self, other):
        """See `Bound.joins`."""
        return (
            type(other) is OnPath
            and self.interpolant == other.interpolant
            and self.inner.joins(other.inner)
        )

    def joined(self, other):
        """See `Bound.joined`."""
        return OnPath(self.inner.joined(other.inner), self.interpolant)

    def there(self, t):
        """(the inner model's time, its x over ours), each (B,)."""
        new, old = self.interpolant, self.inner.interpolant
        if new == old:
            return t, ops.ones_like(t)
        alpha, sigma = new.alpha(t), new.sigma(t)
        # Pure noise has no finite ratio: one that float32 rounds to it.
        ratio = sigma / ops.maximum(alpha, 1e-7 * sigma + 1e-30)
        time = old.within(old.time_from_ratio(ratio))
        own = ops.square(alpha) + ops.square(sigma)
        inner = ops.square(old.alpha(time)) + ops.square(old.sigma(time))
        return time, ops.sqrt(inner / own)

    def _inside(self, x, t):
        """(x, t) of the inner path."""
        time, factor = self.there(t)
        return bcast_right(factor, x) * x, time

    def pred(self, x, t):
        """Velocity dx_t/dt on the new path, (B, ...)."""
        y, s = self._inside(x, t)
        v, old = self.inner.pred(y, s), self.inner.interpolant
        if self.interpolant == old:
            return v
        return self.interpolant.velocity(
            old.data_from_velocity(y, v, s),
            old.noise_from_velocity(y, v, s),
            t,
        )

    def pred_and_score(self, x, t):
        """(velocity, score) on the new path, from one network call."""
        v = self.pred(x, t)
        return v, self.interpolant.score_from_velocity(
            x, v, t, self.n_mu, self.n_sigma
        )

    def denoise(self, x, t):
        """Predicted data, (B, ...)."""
        return self.inner.denoise(*self._inside(x, t))

    def denoise_and_share(self, x, t):
        """(predicted data, share of the variance or None)."""
        return self.inner.denoise_and_share(*self._inside(x, t))

    def end(self, x, t):
        """Where the flow from x ends, on the new path, (B, ...)."""
        y = self.inner.end(*self._inside(x, t))
        last = ops.full_like(t, self.interpolant.t_last)
        return y / bcast_right(self.there(last)[1], y)

    def jump(self, x, t, r):
        """X_{t->r} on the new path, (B, ...)."""
        y, s = self._inside(x, t)
        end, factor = self.there(r)
        y = self.inner.jump(y, s, end)
        return y / bcast_right(factor, y)
