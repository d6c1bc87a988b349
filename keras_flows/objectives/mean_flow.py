"""MeanFlow (arXiv 2505.13447): learn the average velocity u(x_t, t, r)."""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.objectives.base import check_option
from keras_flows.objectives.derivatives import check_derivative
from keras_flows.objectives.derivatives import directional
from keras_flows.ops import ERROR
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import note_rows
from keras_flows.ops import part
from keras_flows.ops import register
from keras_flows.ops import share_of
from keras_flows.ops import sum_flat


@register
@dataclasses.dataclass(frozen=True)
class MeanFlow(Objective):
    """|u - sg(v + (r - t) du/dt)|^2 / sg(|.|^2 + eps)^p.

    du/dt is the derivative of u along (w, 1, 0) for (x_t, t, r), in either
    direction of time. On rows with r = t that term is exactly zero, so the
    JVP runs on the other rows only.

    The logs' "mse" is |u - sg(.)|^2 without the weight, and "velocity_loss"
    and "map_loss" its means over the rows with r = t and over the others.

    Args:
        tangent: "sampled" takes w = v, as in the paper; "predicted" the
            network's own velocity w = u(x_t, t, t), as improved MeanFlow does
            (arXiv 2512.02012): u - (r - t) sg(du/dt) is then a function of
            x_t that regresses v, for one more forward pass of these rows.
        derivative: "jvp" or "finite_difference".
    """

    tangent: str = "sampled"
    derivative: str = "jvp"

    name = "mean_flow"
    terms = ("mse", "velocity_loss", "map_loss")
    needs_r = True
    sampler = "flow_map_jump"
    num_steps = 1
    stable = True

    def __post_init__(self):
        check_option("tangent", self.tangent, ("sampled", "predicted"))
        check_derivative(self.derivative)

    def check(self, model):
        if not hasattr(model, "training_velocity"):
            raise ValueError(
                "`objective` 'mean_flow' is that of kf.MeanFlowInterface, "
                "which has its guidance and its weight. For a flow map on "
                "other paths take kf.objectives.MF(stop_gradient='target'). "
                f"Received: {type(model).__name__}."
            )

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        n = model.sample_n(ops.shape(x))
        rows = model.rows(x)
        note_rows(rows)
        t, r = model.draw_t_r(x, rows)
        x_t = model.sample_x_t(x, n, t)
        x, n = model.endpoints(x, n, t, condition)
        v, condition = model.training_velocity(
            x, n, t, condition, batch.training, rows
        )

        (x_o, x_d), (t_o, t_d), (v_o, v_d), (c_o, c_d) = (
            rows.split(part) for part in (x_t, t, v, condition)
        )
        r_o, _ = rows.split(r)

        with part("diagonal"):
            u_d = model.pred(
                x_d, t_d, t_d, condition=c_d, training=batch.training
            )
        # No dropout inside the JVP: its mask would differ between u and du/dt.
        with part("off"):
            w_o = v_o
            if self.tangent == "predicted":
                w_o = model.pred(
                    x_o, t_o, t_o, condition=model.instant(c_o, t_o)
                )
            u_o, du_dt = directional(
                lambda x_t, t: model.pred(x_t, t, r_o, condition=c_o),
                (x_o, t_o),
                (ops.stop_gradient(w_o), ops.ones_like(t_o)),
                self.derivative,
            )
        target = v_o + bcast_right(r_o - t_o, v_o) * du_dt
        error = rows.merge(u_o - ops.stop_gradient(target), u_d - v_d)
        error = batch.kept(error)

        square = sum_flat(ops.square(error))
        weight = 1.0 / ops.power(
            ops.stop_gradient(square) + model.norm_eps, model.norm_power
        )
        check_same_shape(square=square, weight=weight)
        mse = batch.mean(ops.square(error))
        # With a weight of 1 / square the loss is 1 whatever the error.
        terms = {"loss": weight * square, ERROR: mse, "mse": mse}
        # The mse of the rows with r = t, and that of the others.
        off, diagonal = rows.shares(mse.dtype)
        for name, share in (("velocity_loss", diagonal), ("map_loss", off)):
            own = ops.square(error) * bcast_right(share, error)
            terms[name] = ops.stop_gradient(batch.mean(own))
            if rows.drawn:
                terms[share_of(name)] = share
        return terms
