"""Flow matching and denoising: one regression for SiT, EDM and the rest.

Source: arXiv 2210.02747 (flow matching), 2206.00364 (EDM's weighting).
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import check_same_shape
from keras_flows.ops import mean_flat
from keras_flows.ops import register


@register
@dataclasses.dataclass(frozen=True)
class Flow(Objective):
    """E weight(t) |net(x_t, t) - target(x, n, t)|^2.

    For a velocity network the target is dx_t/dt and the weight 1; EDM's
    target is x and its weight (t^2 + sd^2) / (t sd)^2.
    """

    name = "flow"
    terms = ("mse",)
    stable = True

    def __call__(self, model, batch):
        x = batch.x
        n = model.sample_n(ops.shape(x))
        t = model.draw_t(x)
        x_t = model.sample_x_t(x, n, t)
        x, n = model.endpoints(x, n, t, batch.condition)
        output = model.net(
            x_t, t, condition=batch.condition, training=batch.training
        )
        mse = batch.norm(output - model.target(x, n, t))
        weight = model.loss_weight(t)
        check_same_shape(mse=mse, weight=weight)
        return {"loss": weight * mse, "mse": mse}


def denoising_loss(model, network, x, n, t, condition):
    """`Flow`'s loss, in l2, of another network in the model's place, (B,)."""
    x_t = model.sample_x_t(x, n, t)
    ends = model.endpoints(x, n, t, condition)
    output = model.net(x_t, t, condition=condition, network=network)
    error = output - model.target(*ends, t)
    return model.loss_weight(t) * mean_flat(ops.square(error))
