"""What the objectives of flow maps share: rows, times, two terms.

A flow map is X_{t->r}(x) = x + (r - t) u(x, t, r), and u(x, t, t) the
velocity: L = E |u(x_t, t, t) - v|^2 + E |residual|^2, with the residual of a
paper's condition on pairs t -> r.
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import ERROR
from keras_flows.ops import bcast_right
from keras_flows.ops import inverse_of
from keras_flows.ops import note_rows
from keras_flows.ops import part
from keras_flows.ops import register
from keras_flows.ops import share_of
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked


class FlowMap(Objective):
    """Base class: flow matching on the diagonal, a residual beside it.

    A subclass gives `residual`. The model's `diagonal_portion` of the rows
    trains u(x_t, t, t) against v, the others `residual`. Each term is 0 on
    rows where it does not apply and divided by the share of its own rows, so
    that its batch mean is the mean over these, exactly where the share of the
    batch is a whole number of rows and on average elsewhere;
    `weighting="batch"` on the model leaves the division out.
    """

    terms = ("velocity_loss", "map_loss")
    needs_r = True
    sampler = "flow_map_jump"
    num_steps = 1
    stable = True

    def residual(self, model, x_t, v, t, r, condition):
        """A tensor like x_t that vanishes at the exact flow map.

        Where it uses v, be it linear in v: with the model's `stable_target` v
        is a mean.
        """
        raise NotImplementedError

    def unweighted(self, residual):
        """The residual without a weight that depends on it.

        None for a residual without one.
        """
        return None

    def pairs(self, model, shape):
        """(t, r) of the off-diagonal rows; None for the model's own law."""
        return None

    def check(self, model):
        if not hasattr(model, "weighting"):
            raise ValueError(
                f"`objective` '{self.name}' learns a flow map: give it to "
                "kf.FlowMapInterface, which draws pairs of times. Received: "
                f"{type(model).__name__}."
            )

    def __call__(self, model, batch):
        x = batch.x
        n = model.sample_n(ops.shape(x))
        rows = model.rows(x)
        note_rows(rows)
        t, r = self._times(model, x, rows)
        x_t = model.sample_x_t(x, n, t)
        x, n = model.endpoints(x, n, t, batch.condition)
        v = model.interpolant.velocity(x, n, t)

        (x_o, x_d), (t_o, t_d), (v_o, v_d), (c_o, c_d) = (
            rows.split(part) for part in (x_t, t, v, batch.condition)
        )
        r_o, _ = rows.split(r)
        if rows.drawn:
            # Another pair where the row of both groups is not off: r is t.
            r_o = ops.where(rows.used_off(), r_o, model.interpolant.t_last)

        with part("diagonal"):
            u_d = model.pred(
                x_d, t_d, t_d, condition=c_d, training=batch.training
            )
        velocity = batch.norm(u_d - v_d, lambda a: rows.split(a)[1])
        with part("off"):
            e_o = self.residual(model, x_o, v_o, t_o, r_o, c_o)
        mapped = batch.norm(e_o, lambda a: rows.split(a)[0])

        no_off, no_diagonal = ops.zeros_like(mapped), ops.zeros_like(velocity)
        velocity = rows.merge(no_off, velocity)
        mapped = rows.merge(mapped, no_diagonal)
        if model.weighting == "rows":
            # By the shares meant, not by the rows drawn: the mean over steps
            # is then that of large batches, for a batch of one too.
            velocity = velocity * inverse_of(1.0 - rows.portion)
            mapped = mapped * inverse_of(rows.portion)
        terms = {"loss": velocity + mapped}
        e_o = self.unweighted(e_o)
        if e_o is not None:
            error = batch.norm(e_o, lambda a: rows.split(a)[0])
            error = ops.stop_gradient(rows.merge(error, no_diagonal))
            if model.weighting == "rows":
                error = error * inverse_of(rows.portion)
            terms[ERROR] = velocity + error
        terms |= {
            "velocity_loss": velocity,
            "map_loss": mapped,
        }
        if rows.drawn:
            off, diagonal = rows.shares(mapped.dtype)
            terms[share_of("velocity_loss")] = diagonal
            terms[share_of("map_loss")] = off
        return terms

    def _times(self, model, x, rows):
        t, r = model.draw_t_r(x, rows)
        own = self.pairs(model, (rows.num_off,))
        if own is None:
            return t, r
        return tuple(
            rows.merge(off, rows.split(drawn)[1])
            for off, drawn in zip(own, (t, r), strict=True)
        )


@register
@checked(dt=Number(above=0, below=1))
@dataclasses.dataclass(frozen=True)
class CTM(FlowMap):
    """Consistency trajectory model (arXiv 2310.02279).

    X_{t->r}(x_t) against sg X_{s->r}(x_s), x_s one small step along: with
    the teacher's velocity (Euler) where there is one, else the model's own
    map. s = t + dt towards r, and never past it.

    Args:
        dt: length of the small step, in the path's time.
    """

    dt: float = 0.01

    name = "ctm"
    teacher = "optional"

    def residual(self, model, x_t, v, t, r, condition):
        step = ops.sign(r - t) * ops.minimum(self.dt, ops.abs(r - t))
        s = t + step
        if model.teacher is None:
            x_s = model.jump(x_t, t, s, condition=condition)
        else:
            x_s = x_t + bcast_right(step, x_t) * model.teacher.velocity(
                x_t, t, condition
            )
        target = model.jump(ops.stop_gradient(x_s), s, r, condition=condition)
        return model.jump(x_t, t, r, condition=condition) - ops.stop_gradient(
            target
        )


@register
@checked(finest=SIZE)
@dataclasses.dataclass(frozen=True)
class Shortcut(FlowMap):
    """Shortcut models (arXiv 2410.12557): two steps of d make one of 2 d.

    u(x_t, t, t + 2d) against the mean of u(x_t, t, t + d) and u(x', t + d,
    t + 2d), by the averaged weights; (t, r) are pairs on dyadic grids of
    levels.

    Args:
        finest: the grids have 1, 2, ..., 2^(finest - 1) steps.
    """

    finest: int = 7

    name = "shortcut"

    def residual(self, model, x_t, v, t, r, condition):
        network = model.emas[0].averaged() if model.emas else None
        w = 0.5 * (t + r)
        first = model.pred(x_t, t, w, condition=condition, network=network)
        x_w = x_t + bcast_right(w - t, x_t) * first
        second = model.pred(x_w, w, r, condition=condition, network=network)
        target = ops.stop_gradient(0.5 * (first + second))
        return model.pred(x_t, t, r, condition=condition) - target

    def pairs(self, model, shape):
        """The steps' number is uniform among the powers of 2, then the step."""
        path = model.interpolant
        steps = ops.power(
            2.0, ops.floor(model.sample_uniform(shape) * float(self.finest))
        )
        start = ops.floor(model.sample_uniform(shape) * steps)
        return tuple(
            path.within(path.time_of_level(1.0 - (start + i) / steps))
            for i in (0, 1)
        )
