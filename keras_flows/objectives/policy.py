"""Objectives of robot policies, "Much Ado About Noising" (arXiv 2512.01809).

a = x is the action chunk, o = condition the observation, z ~ N(0, I), and
I_t = t a + (1 - t) z with noise at t = 0; t_fix = 0.9. The network predicts
the action itself.
"""

import dataclasses

from keras import ops
from keras import tree

from keras_flows.interpolants import Linear
from keras_flows.objectives.base import Objective
from keras_flows.objectives.base import check_option
from keras_flows.ops import register
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked
from keras_flows.samplers import OneStep
from keras_flows.samplers import TwoStep

FORMS = ("paper", "public")


def _at(x, time):
    """`time` for each row of x, (B,)."""
    return ops.full(ops.shape(x)[:1], time, dtype=x.dtype)


@register
@dataclasses.dataclass(frozen=True)
class Regression(Objective):
    """|pi(o, 0, t=0) - a|^2: behaviour cloning of the conditional mean."""

    name = "regression"
    predicts = "data"
    start = "zero"
    sampler = "one_step"
    num_steps = 1

    def provides(self, posterior):
        """Actions, at the noise end alone."""
        return frozenset(OneStep.needs)

    def __call__(self, model, batch):
        x = batch.x
        start = self._start(model, x)
        action = model.net(
            start,
            _at(x, model.interpolant.t_noise),
            condition=batch.condition,
            training=batch.training,
        )
        return {"loss": batch.norm(action - x)}

    def _start(self, model, x):
        return ops.zeros_like(x)


@register
@dataclasses.dataclass(frozen=True)
class StraightFlow(Regression):
    """|pi(o, z, t=0) - a|^2: regression from noise, one step of a flow."""

    name = "straight_flow"
    start = "noise"

    def _start(self, model, x):
        return model.sample_n(ops.shape(x))


@register
@checked(t_fix=Number(above=0, below=1))
@dataclasses.dataclass(frozen=True)
class MIP(Objective):
    """Minimum iterative policy.

    |pi(o, 0, 0) - a|^2 + |pi(o, I_fix, t_fix) - a|^2; acts by
    a0 = pi(o, 0, 0), then pi(o, t_fix a0, t_fix).

    Args:
        t_fix: the time of the second regression.
        form: "paper" is the text's; "public" the authors' code, which weighs
            the terms by 1/t_fix^2 and 1/(1 - t_fix)^2 and drops the factor
            t_fix from the input of the second call, in training and in acting
            alike.
    """

    t_fix: float = 0.9
    form: str = "paper"

    name = "mip"
    terms = ("first", "second")
    predicts = "data"
    start = "zero"
    sampler = "two_step"
    num_steps = 2

    def __post_init__(self):
        check_option("form", self.form, FORMS)

    def check_path(self, path):
        if path != Linear(noise_at=0.0):
            raise ValueError(
                f"`interpolant` of objective '{self.name}' must be "
                "Linear(noise_at=0.0): its second call is at t_fix a + "
                f"(1 - t_fix) z. Received: {path}."
            )

    def default_sampler(self):
        return TwoStep(self.t_fix, self.form)

    def provides(self, posterior):
        """Actions at the noise end and, from them, at t_fix."""
        return frozenset({*OneStep.needs, *self.default_sampler().needs})

    def _first(self, model, x):
        """Where the first call starts."""
        return ops.zeros_like(x)

    def _first_target(self, x, x_fix):
        return x

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        start = self._first(model, x)
        noise = model.sample_n(ops.shape(x))
        kept = 1.0 if self.form == "public" else self.t_fix
        x_fix = kept * x + (1.0 - self.t_fix) * noise
        # One call on both: faster than two, above all for small networks.
        if condition is not None:
            condition = tree.map_structure(
                lambda c: ops.concatenate([c, c]), condition
            )
        both = model.net(
            ops.concatenate([start, x_fix]),
            ops.concatenate(
                [_at(x, model.interpolant.t_noise), _at(x, self.t_fix)]
            ),
            condition=condition,
            training=batch.training,
        )
        first, second = ops.split(both, 2)
        first = first - self._first_target(x, x_fix)
        second = second - x
        if self.form == "public":
            first, second = first / self.t_fix, second / (1.0 - self.t_fix)
        first, second = batch.norm(first), batch.norm(second)
        return {"loss": first + second, "first": first, "second": second}


@register
@checked(t_fix=Number(above=0, below=1))
@dataclasses.dataclass(frozen=True)
class TSD(MIP):
    """Two-step denoising.

    |pi(o, z, 0) - I_fix / t_fix|^2 + |pi(o, I_fix, t_fix) - a|^2, I_fix with
    noise of its own; acts by a0 = pi(o, z, 0), then
    pi(o, t_fix a0 + (1 - t_fix) z, t_fix). Without the 1 / t_fix, which the
    public code lacks, the first call would regress t_fix a. (In
    `form="public"` I_fix already is a plus noise, and needs no factor.)
    """

    name = "tsd"
    start = "noise"

    def _first(self, model, x):
        return model.sample_n(ops.shape(x))

    def _first_target(self, x, x_fix):
        return x_fix if self.form == "public" else x_fix / self.t_fix
