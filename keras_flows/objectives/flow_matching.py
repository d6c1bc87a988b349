"""Flow matching and denoising: one regression for SiT, EDM and the rest.

Source: arXiv 2210.02747 (flow matching), 2206.00364 (EDM's weighting).
"""

from keras import ops

from keras_flows.ops import check_same_shape


def flow(model, x, condition, training):
    """E weight(t) |net(x_t, t) - target(x, n, t)|^2.

    For a velocity network the target is dx_t/dt and the weight 1; EDM's
    target is x and its weight (t^2 + sd^2) / (t sd)^2.
    """
    n = model.sample_n(ops.shape(x))
    t = model.draw_t(x)
    x_t = model.sample_x_t(x, n, t)
    x, n = model.endpoints(x, n, t, condition)
    error = model.net(
        x_t, t, condition=condition, training=training
    ) - model.target(x, n, t)
    mse = model.norm(error)
    weight = model.loss_weight(t)
    check_same_shape(mse=mse, weight=weight)
    return {"loss": weight * mse, "mse": mse}


flow.terms = ("mse",)
