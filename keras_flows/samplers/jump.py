"""Samplers of flow maps and of policies that predict actions."""

import dataclasses

import numpy as np
from keras import ops

from keras_flows.ops import bcast_right
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import on_step
from keras_flows.samplers.exponential import at_least
from keras_flows.samplers.grids import jump_grid
from keras_flows.samplers.grids import refuse_start


@register
@checked(renoise=SHARE, shift=POSITIVE)
@dataclasses.dataclass(frozen=True)
class FlowMapJump(Sampler):
    """x_r = X_{t->r}(x_t) = x_t + (r - t) u(x_t, t, r).

    N calls are N jumps, the last straight to the end of the path: see
    `jump_grid`.

    With `renoise` g > 0 each step but the last jumps further, to the time
    sqrt(1 - g^2) of the way from the data to r (on `VarianceExploding`
    sigma(s) = sqrt(1 - g^2) sigma(r)) but not beyond `t_last`, and adds noise
    up to r: CTM's gamma sampling (arXiv 2310.02279); g = 1 is multistep
    consistency sampling.

    Args:
        grid: time grid, see `jump_grid`.
        renoise: g, between 0 and 1.
        shift: time shift of the grid.
    """

    grid: object = None
    renoise: float = 0.0
    shift: float = 1.0
    calls = "start"

    @property
    def needs(self):
        """The flow map, or where it ends, if noise is drawn anew."""
        return ("end",) if self.renoise == 1.0 else ("map",)

    def __post_init__(self):
        if not 0.0 <= self.renoise <= 1.0:
            raise ValueError(
                f"`renoise` must lie between 0 and 1. Received: {self.renoise}."
            )

    @property
    def last_differs(self):
        return self.stochastic

    @property
    def stochastic(self):
        return self.renoise > 0

    def draws(self, num_steps):
        # The last step adds no noise, and one step is the last.
        return self.stochastic and num_steps > 1

    def times(self, interpolant, num_steps, start=None):
        return jump_grid(
            interpolant, num_steps, self.grid, self.shift, start=start
        )

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        if self.renoise == 1.0 and last:
            return model.end(x, t)
        if last or not self.stochastic:
            return model.jump(x, t, r)
        path = model.interpolant
        keep = (1.0 - self.renoise**2) ** 0.5
        s = path.within(path.t_data + keep * (r - path.t_data))
        if self.renoise == 1.0:
            x_s = model.end(x, t)
        else:
            x_s = model.jump(x, t, s)
        ratio = path.alpha(r) / path.alpha(s)
        added = ops.square(path.sigma(r)) - ops.square(ratio * path.sigma(s))
        added = ops.sqrt(at_least(added, 0.0))
        # Noise n ~ N(n_mu, n_sigma^2): its mean grows beside its spread.
        mean = (path.sigma(r) - ratio * path.sigma(s)) * model.n_mu
        return (
            bcast_right(ratio, x) * x_s
            + bcast_right(mean, x)
            + bcast_right(added * model.n_sigma, x) * noise
        )


@register
@dataclasses.dataclass(frozen=True)
class OneStep(Sampler):
    """One call of an action predictor at the noise end: a = pi(z, t_noise)."""

    needs = ("action",)
    calls = "start"

    def times(self, interpolant, num_steps, start=None):
        """The time of the call, and the end."""
        refuse_start(start, "an action predictor")
        if num_steps != 1:
            raise ValueError(
                "`num_steps` must be 1: the actions are predicted in one "
                f"call, and trained at no other time. Received: {num_steps!r}."
            )
        return np.array([interpolant.t_noise, interpolant.t_data])

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        return model.denoise(x, t)


@register
@checked(t_fix=Number(above=0, below=1))
@dataclasses.dataclass(frozen=True)
class TwoStep(Sampler):
    """Two calls of an action predictor: a0 at the noise end, then at t_fix.

    a = pi(k a0 + (1 - t_fix) z, t_fix) with a0 = pi(z, t_noise); from
    z = 0 (mip) nothing is added. k = t_fix, or 1 for `form="public"`,
    whose training drops that factor. Source: arXiv 2512.01809.

    Args:
        t_fix: the time of the second call.
        form: "paper" or "public", as the model was trained.
    """

    t_fix: float = 0.9
    form: str = "paper"
    calls = "ends"

    @property
    def needs(self):
        """The two actions that such a model was trained for."""
        return (f"action at t = {self.t_fix} ({self.form})",)

    def times(self, interpolant, num_steps, start=None):
        """The times of the two calls."""
        refuse_start(start, "an action predictor")
        if num_steps != 2:
            raise ValueError(
                "`num_steps` of the two-step sampler must be 2. "
                f"Received: {num_steps!r}."
            )
        return np.array([interpolant.t_noise, self.t_fix])

    def step(self, model, x, t, r, noise, last):
        x, t, r, noise = on_step(x, t, r, noise)
        kept = 1.0 if self.form == "public" else self.t_fix
        first = model.denoise(x, t)
        return model.denoise(kept * first + (1.0 - self.t_fix) * x, r)
