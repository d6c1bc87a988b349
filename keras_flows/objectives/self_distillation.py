"""Flow maps by one condition a paper, and by a teacher's velocity.

`stop_gradient` names, as in arXiv 2505.18825: "convex" stops the teacher's
side, so that each term is convex in what it trains; "full" stops the
spatial Jacobian too; "none" stops nothing. `derivative` is "jvp" or
"finite_difference", see `directional`.
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import check_option
from keras_flows.objectives.derivatives import check_derivative
from keras_flows.objectives.derivatives import directional
from keras_flows.objectives.derivatives import normalized_tangent
from keras_flows.objectives.flow_map import FlowMap
from keras_flows.ops import bcast_right
from keras_flows.ops import mean_flat
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked


@register
@dataclasses.dataclass(frozen=True)
class LSD(FlowMap):
    """Lagrangian self-distillation (arXiv 2505.18825).

    d/dr X_{t->r}(x_t) against the model's own velocity at X_{t->r}(x_t).

    Args:
        stop_gradient: "convex" or "none".
        derivative: "jvp" or "finite_difference".
    """

    stop_gradient: str = "convex"
    derivative: str = "jvp"

    name = "lsd"

    def __post_init__(self):
        check_option("stop_gradient", self.stop_gradient, ("convex", "none"))
        check_derivative(self.derivative)

    def velocity(self, model, x_r, r, condition):
        """b_r(x_r), what the map is to follow."""
        return model.pred(x_r, r, condition=condition)

    def residual(self, model, x_t, v, t, r, condition):
        x_r, dx_dr = directional(
            lambda r: model.jump(x_t, t, r, condition=condition),
            (r,),
            (ops.ones_like(r),),
            self.derivative,
        )
        if self.stop_gradient == "none":
            return dx_dr - self.velocity(model, x_r, r, condition)
        x_r = ops.stop_gradient(x_r)
        return dx_dr - ops.stop_gradient(
            self.velocity(model, x_r, r, condition)
        )


@register
@dataclasses.dataclass(frozen=True)
class LMD(LSD):
    """Lagrangian map distillation (arXiv 2406.07507): a teacher's velocity."""

    name = "lmd"
    teacher = "required"

    def velocity(self, model, x_r, r, condition):
        return model.teacher.velocity(x_r, r, condition)


def eulerian(model, b, x_t, t, r, condition, stop_gradient, derivative):
    """d/dt X_{t->r}(x_t) + grad X_{t->r}(x_t) . b."""
    one = ops.ones_like(t)
    if stop_gradient != "none":
        b = ops.stop_gradient(b)
    if stop_gradient != "full":
        return directional(
            lambda x, t: model.jump(x, t, r, condition=condition),
            (x_t, t),
            (b, one),
            derivative,
        )[1]
    _, time_part = directional(
        lambda t: model.jump(x_t, t, r, condition=condition),
        (t,),
        (one,),
        derivative,
    )
    _, space_part = directional(
        lambda x: model.jump(x, t, r, condition=condition),
        (x_t,),
        (b,),
        derivative,
    )
    return time_part + ops.stop_gradient(space_part)


@register
@dataclasses.dataclass(frozen=True)
class ESD(FlowMap):
    """Eulerian self-distillation (arXiv 2505.18825).

    d/dt X_{t->r}(x_t) + grad X . b_t(x_t), with the model's own velocity at
    the START of the jump, (t, x_t).

    Args:
        stop_gradient: "full", "convex" or "none".
        derivative: "jvp" or "finite_difference".
    """

    stop_gradient: str = "full"
    derivative: str = "jvp"

    name = "esd"

    def __post_init__(self):
        check_option(
            "stop_gradient", self.stop_gradient, ("convex", "full", "none")
        )
        check_derivative(self.derivative)

    def velocity(self, model, x_t, t, condition):
        """b_t(x_t)."""
        return model.pred(x_t, t, condition=condition)

    def residual(self, model, x_t, v, t, r, condition):
        b = self.velocity(model, x_t, t, condition)
        return eulerian(
            model, b, x_t, t, r, condition, self.stop_gradient, self.derivative
        )


@register
@dataclasses.dataclass(frozen=True)
class EMD(ESD):
    """Eulerian map distillation (arXiv 2406.07507): a teacher's velocity."""

    stop_gradient: str = "convex"

    name = "emd"
    teacher = "required"

    def velocity(self, model, x_t, t, condition):
        return model.teacher.velocity(x_t, t, condition)


@register
@dataclasses.dataclass(frozen=True)
class MF(FlowMap):
    """Mean flow as a flow map: d/dt X + sg(grad X . dx_t/dt).

    As the policy literature writes it (arXiv 2512.01809), with the sampled
    velocity v. The spatial part is always stopped: v is in it and in its
    gradient, whose mean would not vanish at the exact map. What is left to
    train is the time derivative, against a lagging spatial one, which may
    diverge in long runs.

    Args:
        stop_gradient: "full" for that; "target" for the loss of arXiv
            2505.13447, which trains u itself and takes no gradient through a
            derivative: u - sg(v + (r - t) du/dt), du/dt along (v, 1) for
            (x_t, t).
        derivative: "jvp" or "finite_difference".
    """

    stop_gradient: str = "full"
    derivative: str = "jvp"

    name = "mf"

    def __post_init__(self):
        check_option("stop_gradient", self.stop_gradient, ("full", "target"))
        check_derivative(self.derivative)

    def residual(self, model, x_t, v, t, r, condition):
        if self.stop_gradient == "full":
            return eulerian(
                model, v, x_t, t, r, condition, "full", self.derivative
            )
        u, du_dt = directional(
            lambda x, t: model.pred(x, t, r, condition=condition),
            (x_t, t),
            (v, ops.ones_like(t)),
            self.derivative,
        )
        return u - ops.stop_gradient(v + bcast_right(r - t, x_t) * du_dt)


@register
@checked(midpoint=FLAG)
@dataclasses.dataclass(frozen=True)
class PSD(FlowMap):
    """Progressive self-distillation (arXiv 2505.18825), in u.

    u(x_t, t, r) against g u(x_t, t, w) + (1 - g) u(X_{t->w}(x_t), w, r) with
    w = t + g (r - t).

    Args:
        midpoint: whether g = 1/2 (PSD-M) or uniform (PSD-U).
        stop_gradient: "convex" or "none".
    """

    midpoint: bool = True
    stop_gradient: str = "convex"

    name = "psd"

    def __post_init__(self):
        check_option("stop_gradient", self.stop_gradient, ("convex", "none"))

    def residual(self, model, x_t, v, t, r, condition):
        if self.midpoint:
            g = 0.5 * ops.ones_like(t)
        else:
            g = model.sample_uniform(ops.shape(t))
        w = t + g * (r - t)
        first = model.pred(x_t, t, w, condition=condition)
        x_w = x_t + bcast_right(w - t, x_t) * first
        if self.stop_gradient == "convex":
            x_w = ops.stop_gradient(x_w)
        second = model.pred(x_w, w, r, condition=condition)
        g = bcast_right(g, x_t)
        target = g * first + (1.0 - g) * second
        if self.stop_gradient == "convex":
            target = ops.stop_gradient(target)
        return model.pred(x_t, t, r, condition=condition) - target


@register
@checked(tangent_norm=POSITIVE)
@dataclasses.dataclass(frozen=True)
class AYF(FlowMap):
    """Align Your Flow's Eulerian map distillation (arXiv 2506.14603).

    u - sg(u + g / (|g| + c)), whose g = b - u + (r - t) du/dt vanishes at the
    map of the teacher's velocity b; du/dt runs along (b, 1) for (x_t, t). What
    is logged as the loss has |g|^2 in the place of the normalised "map_loss".

    Args:
        tangent_norm: c, see `normalized_tangent`.
        derivative: "jvp" or "finite_difference".
    """

    tangent_norm: float = 0.1
    derivative: str = "jvp"

    name = "ayf"
    teacher = "required"
    # g is normalised by all of an example.
    takes_mask = False

    def __post_init__(self):
        check_derivative(self.derivative)

    def residual(self, model, x_t, v, t, r, condition):
        b = ops.stop_gradient(model.teacher.velocity(x_t, t, condition))
        u, du_dt = directional(
            lambda x, t: model.pred(x, t, r, condition=condition),
            (x_t, t),
            (b, ops.ones_like(t)),
            self.derivative,
        )
        g = b - u + bcast_right(r - t, x_t) * du_dt
        return u - ops.stop_gradient(
            u + normalized_tangent(g, self.tangent_norm)
        )

    def unweighted(self, residual):
        """g again, from its normalised form."""
        # rms(g / (rms(g) + c)) = rms(g) / (rms(g) + c).
        rms = ops.sqrt(mean_flat(ops.square(residual)))
        scale = self.tangent_norm / ops.maximum(1.0 - rms, 1e-6)
        return bcast_right(scale, residual) * residual
