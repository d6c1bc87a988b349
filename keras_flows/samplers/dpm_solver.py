"""DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095)."""

import dataclasses

import numpy as np
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.ddpm import clipped
from keras_flows.samplers.exponential import Span
from keras_flows.samplers.exponential import check_order
from keras_flows.samplers.exponential import check_tau
from keras_flows.samplers.exponential import integral
from keras_flows.samplers.exponential import log_snr
from keras_flows.samplers.exponential import starts_without_signal


@register
@checked(
    order=Integer(1, 3),
    tau=NOT_NEGATIVE,
    curvature=REAL,
    shift=POSITIVE,
    clip=Optional(POSITIVE),
    lower_order_final=Optional(FLAG),
)
@dataclasses.dataclass(frozen=True)
class DPMSolverPP(Sampler):
    """DPM-Solver++(1M, 2M, 3M), and with tau > 0 SDE-DPM-Solver++.

    One network call a step. The integral of x_hat over lambda (see
    `exponential`) takes the polynomial through the last `order` predictions;
    of order 2 it is (1 - e^-h) (x_hat + h x_hat' / 2), as published. The
    first steps, without a past, and the last ones are of lower order, the
    last of order 1; it is exact where r is `t_data`. Source: arXiv
    2211.01095, algorithms 2 and 4.

    Args:
        order: 1 (DDIM), 2 or 3. Of order in the step size where tau is 0;
            with noise all are of order 1.
        tau: strength of the noise, 0 for the flow, 1 for the published SDE.
        curvature: factor of the second-difference term of order 3. The
            published code of 3M halves that term (0.5), with which the
            solver is of order 2 only.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
        clip: bound of |x_hat|, 1.0 for images in [-1, 1], or None.
        lower_order_final: whether the step before the last of order 3 is of
            order 2; None for below 15 steps only, as diffusers has it. In the
            paths' default grids the error at 10 steps of
            `VariancePreserving` is 0.067 with it and 0.043 without, but at 20
            of `Linear` 0.001 and 0.008 (a Gaussian mixture).
        solver_type: the integral of two predictions: "midpoint", which takes
            int u = h int 1 / 2, or "heun", the polynomial's own, as k-diffusion
            and diffusers have both.
    """

    order: int = 2
    tau: float = 0.0
    curvature: float = 1.0
    grid: object = None
    shift: float = 1.0
    clip: float | None = None
    lower_order_final: bool | None = True
    solver_type: str = "midpoint"
    needs = ("data",)
    calls = "start"
    in_log_snr = True

    def __post_init__(self):
        check_order("order", self.order, 3)
        check_tau(self.tau)
        if self.lower_order_final is not None:
            FLAG("lower_order_final", self.lower_order_final)
        given.choice("solver_type", self.solver_type, ("midpoint", "heun"))

    @property
    def stochastic(self):
        return self.tau > 0

    @property
    def history(self):
        return self.order - 1

    def steps(self, times):
        lowers = self.lower_order_final
        if lowers is None:
            lowers = len(times) - 1 < 15
        for t, r, left in super().steps(times):
            kept = max(1, self.history)
            yield t, r, left if lowers or left == 0 else kept

    def advance(self, model, x, t, r, noise, state, left):
        x, t, r, noise = on_step(x, t, r, noise)
        past = (clipped(model.denoise(x, t), self.clip), t, *state)
        order = min(self.order, len(past) // 2, left + 1)
        values, times = past[: 2 * order : 2], past[1 : 2 * order : 2]
        span = Span(model, t, r, self.tau)
        moments = span.moments(order)
        if order == 2 and self.solver_type == "midpoint":
            moments[1] = 0.5 * span.h * moments[0]
        elif order == 3:
            moments[2] = self.curvature * moments[2]
        nodes = [span.node(time) for time in times]
        x = span.end(x, integral(values, nodes, moments), noise)
        return x, past[: 2 * self.history]


@register
@checked(order=Integer(1, 3), shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class DPMSolver(Sampler):
    """DPM-Solver-1, -2 and -3: `order` network calls a step, no memory.

    With n_hat = (x - alpha x_hat) / sigma, s at lambda(t) + h / 2 and
    x_s = alpha(s) x_hat + sigma(s) n_hat, order 2 is

        x_r = alpha(r) x_hat + sigma(r) n_hat
              - sigma(r) (e^h - 1) (n_hat(x_s, s) - n_hat),

    and order 3 (its algorithm 5) does so with two such times. The last step
    is of order 1, and so is the first where it starts from pure noise
    (`Linear`, `Trigonometric`, `TrigFlow`): e^h is infinite there. Source:
    arXiv 2206.00927.

    Args:
        order: 1 (DDIM), 2 or 3.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
    """

    order: int = 2
    grid: object = None
    shift: float = 1.0
    needs = ("data",)
    calls = "between"
    in_log_snr = True

    def __post_init__(self):
        check_order("order", self.order, 3)

    def begin(self, interpolant, num_steps):
        """A mark for the first step, which has to be of order 1."""
        return (np.zeros(()),) if starts_without_signal(interpolant) else ()

    def advance(self, model, x, t, r, noise, state, left):
        x, t, r, noise = on_step(x, t, r, noise)
        order = 1 if state or left == 0 else self.order
        data, n_hat = _data_and_noise(model, x, t)
        path, h = model.interpolant, self._length(model, t, r)
        if order == 1:
            return _mix(path, data, n_hat, r), ()
        first, fraction = self._inside(path, t, h, 1.0 / order)
        _, change = _data_and_noise(
            model, _mix(path, data, n_hat, first), first
        )
        change = change - n_hat
        if order == 2:
            gain = self._gain(path, t, r) / (2.0 * fraction)
        else:
            second, end = self._inside(path, t, h, 2.0 / 3.0)
            x_s = (
                _mix(path, data, n_hat, second)
                - bcast_right(
                    self._excess(path, t, second, end * h) / fraction * end, x
                )
                * change
            )
            change = _data_and_noise(model, x_s, second)[1] - n_hat
            gain = self._excess(path, t, r, h) / end
        x = _mix(path, data, n_hat, r) - bcast_right(gain, x) * change
        return x, ()

    def _length(self, model, t, r):
        path = model.interpolant
        return log_snr(path, r) - log_snr(path, t)

    def _inside(self, path, t, h, share):
        """The time at lambda(t) + share h, and the share it really has."""
        lam = log_snr(path, t)
        s = path.time_from_ratio(ops.exp(-(lam + share * h)))
        return s, (log_snr(path, s) - lam) / h

    def _gain(self, path, t, r):
        """sigma(r) (e^h - 1)."""
        return path.alpha(r) * path.sigma(t) / path.alpha(t) - path.sigma(r)

    def _excess(self, path, t, r, h):
        """sigma(r) ((e^h - 1) / h - 1)."""
        return self._gain(path, t, r) / h - path.sigma(r)


def _data_and_noise(model, x, t):
    """(x_hat, n_hat), which add up to x."""
    path = model.interpolant
    data = model.denoise(x, t)
    alpha, sigma = (bcast_right(c, x) for c in (path.alpha(t), path.sigma(t)))
    return data, (x - alpha * data) / sigma


def _mix(path, data, n_hat, t):
    """alpha(t) data + sigma(t) noise."""
    return (
        bcast_right(path.alpha(t), data) * data
        + bcast_right(path.sigma(t), data) * n_hat
    )
