"""SA-Solver: Adams' methods for the SDE with noise tau(t)."""

import dataclasses

from keras import ops

from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.exponential import Span
from keras_flows.samplers.exponential import check_order
from keras_flows.samplers.exponential import check_tau
from keras_flows.samplers.exponential import integral

# Of times: a bound of `interval` that is a time of the grid is inside.
_ROUNDING = 1e-6


@register
@checked(
    predictor_order=Integer(1, 4),
    corrector_order=Integer(0, 4),
    tau=NOT_NEGATIVE,
    shift=POSITIVE,
)
@dataclasses.dataclass(frozen=True)
class SASolver(Sampler):
    """Stochastic Adams-Bashforth predicts, Adams-Moulton corrects.

    One network call a step: x_r is predicted from the last predictions of
    x_hat, and corrected, with the same noise, by the one that the next step
    makes there (see `exponential`). A polynomial through two takes
    int u = (1 + tau^2) h^2 / 2, as the published code does. The first steps
    and the last ones are of lower order, the last is not corrected. Source:
    arXiv 2309.05019.

    Args:
        predictor_order: how many predictions predict, 1 to 4; the published
            3 and 4, or 2 and 2 under strong guidance.
        corrector_order: how many correct, that at r counted: 1 to 4, or 0
            for no corrector.
        tau: strength of the noise inside `interval`; 0 is the flow.
        interval: (low, high) between which there is noise, or None for
            everywhere. Published: noise levels 0.2 to 0.8, and sigma 0.05 to
            1 for EDM's models, which is (0.05, 1.0) `by` "ratio".
        by: what `interval` bounds: the noise "level" between 0 and 1, or
            the "ratio" sigma / alpha.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.

    Attributes:
        order: that of the flow, or 1 with noise (in the strong sense).
    """

    predictor_order: int = 3
    corrector_order: int = 4
    tau: float = 1.0
    interval: tuple | None = (0.2, 0.8)
    by: str = "level"
    grid: object = None
    shift: float = 1.0
    needs = ("data",)
    calls = "start"
    in_log_snr = True

    def __post_init__(self):
        check_order("predictor_order", self.predictor_order, 4)
        if self.corrector_order != 0:
            check_order("corrector_order", self.corrector_order, 4)
        check_tau(self.tau)
        if self.interval is not None:
            # A saved interval comes back as a list.
            found = given.pair("interval", self.interval, 0.0, equal=True)
            object.__setattr__(self, "interval", found)
        given.choice("by", self.by, ("level", "ratio"))

    @property
    def stochastic(self):
        return self.tau > 0

    @property
    def order(self):
        if self.stochastic:
            return 1
        return max(
            self.predictor_order,
            min(self.predictor_order + 1, self.corrector_order),
        )

    @property
    def history(self):
        return max(self.predictor_order, self.corrector_order - 1)

    def advance(self, model, x, t, r, noise, state, left):
        x, t, r, noise = on_step(x, t, r, noise)
        x_hat = model.denoise(x, t)
        before, past = state[:2], state[2:]
        if before and self.corrector_order:
            order = min(self.corrector_order, len(past) // 2 + 1, left + 3)
            x = self._solve(
                model,
                (past[1], t),
                *before,
                (x_hat, *past[: 2 * order - 2 : 2]),
                (t, *past[1 : 2 * order - 2 : 2]),
            )
        past = (x_hat, t, *past)
        order = min(self.predictor_order, len(past) // 2, left + 1)
        noise = ops.zeros_like(x) if noise is None else noise
        x_r = self._solve(
            model,
            (t, r),
            x,
            noise,
            past[: 2 * order : 2],
            past[1 : 2 * order : 2],
        )
        return x_r, (x, noise, *past[: 2 * self.history])

    def _solve(self, model, ends, x, noise, values, times):
        span = Span(model, *ends, self._tau(model.interpolant, ends[0]))
        moments = span.moments(len(values))
        if len(values) == 2:
            moments[1] = 0.5 * span.k * span.h**2
        nodes = [span.node(time) for time in times]
        return span.end(x, integral(values, nodes, moments), noise)

    def _tau(self, path, t):
        """tau(t), (B,)."""
        tau = self.tau * ops.ones_like(t)
        if self.interval is None:
            return tau
        low, high = self.interval
        if self.by == "level":
            at, one = path.level(t), 1.0
        else:
            at, one = path.sigma(t), path.alpha(t)
        inside = ops.logical_and(
            at >= (low - _ROUNDING) * one, at <= (high + _ROUNDING) * one
        )
        return ops.where(inside, tau, 0.0)
