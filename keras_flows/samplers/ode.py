"""Solvers of the probability flow dx/dt = v(x, t)."""

import dataclasses

from keras_flows.ops import bcast_right
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step


@register
@checked(shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class Euler(Sampler):
    """x_r = x_t + (r - t) v(x_t, t).

    Args:
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
    """

    grid: object = None
    shift: float = 1.0
    order = 1
    reversible = True
    calls = "start"
    last_differs = False

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        return x + bcast_right(r - t, x) * model.pred(x, t)


@register
@checked(shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class Heun(Sampler):
    """The trapezoidal rule: two network calls a step, the last step Euler.

    d1 = v(x, t), x' = x + (r - t) d1, d2 = v(x', r),
    x_r = x + (r - t) (d1 + d2) / 2. The last step is Euler's because many
    velocities are singular at the data end. Source: arXiv 2206.00364,
    algorithm 1.

    Args:
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
    """

    grid: object = None
    shift: float = 1.0
    order = 2
    reversible = True
    calls = "ends"

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        h = bcast_right(r - t, x)
        first = model.pred(x, t)
        euler = x + h * first
        if last:
            return euler
        second = model.pred(euler, r)
        return x + 0.5 * h * (first + second)
