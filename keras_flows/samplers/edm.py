"""EDM's stochastic sampler (arXiv 2206.00364, algorithm 2)."""

import dataclasses

import numpy as np
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import register
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.exponential import NO_SIGNAL
from keras_flows.samplers.exponential import at_least
from keras_flows.samplers.exponential import check_order


@register
@checked(
    s_churn=NOT_NEGATIVE,
    s_min=NOT_NEGATIVE,
    s_max=Optional(NOT_NEGATIVE),
    s_noise=NOT_NEGATIVE,
    order=Integer(1, 2),
    shift=POSITIVE,
)
@dataclasses.dataclass(frozen=True)
class EDM(Sampler):
    """Each step adds some noise, then solves the flow by Heun's rule.

    With the noise-to-signal ratio sigma / alpha at t, which is EDM's sigma,
    noise is added up to the time t' at which it is (1 + gamma) times that,
    gamma = min(s_churn / num_steps, sqrt(2) - 1); Heun's step runs from t' to
    r in the interpolant's own time. On `VarianceExploding` this is the
    published algorithm; elsewhere the same on that path. Pure noise is left
    as it is. The last step is Euler's.

    Args:
        s_churn: S_churn, how much noise is added in all; 0 for none.
        s_min: S_min, the least ratio at which noise is added.
        s_max: S_max, the largest, or None.
        s_noise: S_noise, factor of the added noise.
        order: 2, or 1 for Euler's step in the place of Heun's.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.

    The defaults are those that the paper took for ImageNet with 256 steps.
    """

    s_churn: float = 40.0
    s_min: float = 0.05
    s_max: float | None = 50.0
    s_noise: float = 1.003
    order: int = 2
    grid: object = "karras"
    shift: float = 1.0
    needs = ("velocity", "data")
    calls = "anywhere"

    def __post_init__(self):
        check_order("order", self.order, 2)
        for name in ("s_churn", "s_min", "s_noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(
                    f"`{name}` must not be negative. "
                    f"Received: {getattr(self, name)!r}."
                )
        if self.s_max is not None and self.s_max < self.s_min:
            raise ValueError(
                "`s_max` must not be below `s_min`. Received: s_max="
                f"{self.s_max!r}, s_min={self.s_min!r}."
            )

    @property
    def stochastic(self):
        return self.s_churn > 0

    def begin(self, interpolant, num_steps):
        """gamma, which depends on the number of steps."""
        return (np.asarray(min(self.s_churn / num_steps, 2**0.5 - 1.0)),)

    def advance(self, model, x, t, r, noise, state, left):
        x, t, r, noise = on_step(x, t, r, noise)
        if self.stochastic:
            x, t = self._churned(model, x, t, noise, state[0])
        step = bcast_right(r - t, x)
        first = model.pred(x, t)
        euler = x + step * first
        if left == 0 or self.order == 1:
            return euler, state
        return x + 0.5 * step * (first + model.pred(euler, r)), state

    def _churned(self, model, x, t, noise, gamma):
        """(x with more noise, its time)."""
        path = model.interpolant
        alpha, sigma = path.alpha(t), path.sigma(t)
        signal = alpha >= NO_SIGNAL
        alpha = at_least(alpha, NO_SIGNAL)
        ratio = sigma / alpha
        inside = ops.logical_and(signal, ratio >= self.s_min)
        if self.s_max is not None:
            inside = ops.logical_and(inside, ratio <= self.s_max)
        gamma = ops.convert_to_tensor(gamma, dtype=t.dtype)
        later = path.time_from_ratio(ratio * (1.0 + gamma))
        later = ops.where(inside, later, t)
        kept = ops.where(inside, path.alpha(later) / alpha, 1.0)
        sigma, after = kept * sigma, path.sigma(later)
        std = ops.sqrt(at_least((after - sigma) * (after + sigma), 0.0))
        # Noise n ~ N(n_mu, n_sigma^2): its mean grows beside its spread.
        x = bcast_right(kept, x) * x
        x = x + bcast_right((after - sigma) * model.n_mu, x)
        std = std * self.s_noise * model.n_sigma
        return x + bcast_right(std, x) * noise, later
