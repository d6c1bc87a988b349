"""Solvers of the reverse SDE with the same marginals as the flow."""

import dataclasses

from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step


@register
@checked(scale=NOT_NEGATIVE, shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class EulerMaruyama(Sampler):
    """x_r = x + v dt + w score |dt| / 2 + sqrt(w |dt|) z.

    Every diffusion coefficient w(t) >= 0 keeps the marginals, in either
    direction of time (arXiv 2303.08797, 2401.08740). The last step returns
    the mean, without noise.

    Args:
        diffusion: "sigma" for w = scale sigma(t), "constant" for w = scale.
        scale: factor of w; 0 is Euler.
        grid: time grid, see `time_grid`.
        shift: time shift of the grid.
    """

    diffusion: str = "sigma"
    scale: float = 1.0
    grid: object = None
    shift: float = 1.0
    order = 1
    needs = ("velocity", "score")
    calls = "start"
    stochastic = True

    def __post_init__(self):
        given.choice("diffusion", self.diffusion, ("sigma", "constant"))
        if self.scale < 0:
            raise ValueError(
                f"`scale` must not be negative. Received: {self.scale}."
            )

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        v, score = model.pred_and_score(x, t)
        w = self.scale * (
            model.interpolant.sigma(t)
            if self.diffusion == "sigma"
            else ops.ones_like(t)
        )
        w = bcast_right(w, x)
        dt = bcast_right(r - t, x)
        length = ops.abs(dt)
        mean = x + v * dt + 0.5 * w * score * length
        if last:
            return mean
        return mean + ops.sqrt(w * length) * noise
