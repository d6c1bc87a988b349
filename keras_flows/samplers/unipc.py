"""UniPC: a predictor and a corrector from the same predictions."""

import dataclasses

from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.exponential import Span
from keras_flows.samplers.exponential import check_order
from keras_flows.samplers.exponential import integral


@register
@checked(order=Integer(1), corrector=FLAG, shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class UniPC(Sampler):
    """UniP-p predicts x_r; the next step's prediction there corrects it.

    One network call a step. The integral of x_hat over lambda (see
    `exponential`) takes the polynomial through the last p predictions, and
    in the corrector through that at r as well. The paper's B(h) is left
    only where there are two: int u = h B(h) / 2 with B1 = h, B2 = 1 - e^-h.
    The first steps, without a past, and the last ones are of lower order,
    the last of order 1 and not corrected, as published. Source: arXiv
    2302.04867, with x_hat.

    Args:
        order: p, 1 to 3. The predictor is of order p, both of p + 1.
        variant: "bh1" or "bh2", the paper's B1 and B2.
        corrector: whether to correct; without it UniP.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
    """

    order: int = 2
    variant: str = "bh2"
    corrector: bool = True
    grid: object = None
    shift: float = 1.0
    needs = ("data",)
    calls = "start"
    in_log_snr = True

    def __post_init__(self):
        check_order("order", self.order, 3)
        given.choice("variant", self.variant, ("bh1", "bh2"))

    @property
    def history(self):
        return self.order

    def advance(self, model, x, t, r, noise, state, left):
        x, t, r, noise = on_step(x, t, r, noise)
        x_hat = model.denoise(x, t)
        before, past = state[:1], state[1:]
        if before and self.corrector:
            order = min(self.order, len(past) // 2, left + 2)
            x = self._solve(
                Span(model, past[1], t),
                before[0],
                (x_hat, *past[: 2 * order : 2]),
                (t, *past[1 : 2 * order : 2]),
            )
        past = (x_hat, t, *past)
        order = min(self.order, len(past) // 2, left + 1)
        x_r = self._solve(
            Span(model, t, r),
            x,
            past[: 2 * order : 2],
            past[1 : 2 * order : 2],
        )
        return x_r, (x, *past[: 2 * self.history])

    def _solve(self, span, x, values, times):
        moments = span.moments(len(values))
        if len(values) == 2:
            b = span.h if self.variant == "bh1" else moments[0]
            moments[1] = 0.5 * span.h * b
        nodes = [span.node(time) for time in times]
        return span.end(x, integral(values, nodes, moments))
