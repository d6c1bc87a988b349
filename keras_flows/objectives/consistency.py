"""Consistency models: f(x_t, t) is where the probability flow ends.

Discrete time compares f at two times of one path (arXiv 2303.01469);
continuous time follows the derivative of f along it (arXiv 2410.11081).
"""

import math

from keras import ops

from keras_flows.objectives.derivatives import directional
from keras_flows.objectives.derivatives import normalized_tangent
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import float_dtype
from keras_flows.ops import mean_flat
from keras_flows.ops import register


def consistency(model, x, condition, training):
    """weight(t, s) |f(x_t, t) - sg f(x_s, s)|, s nearer to the data than t.

    x_s is on the path of the same (x, n), or where a teacher goes from x_t.
    With `stable_target` (x, n) are their means given x_t: x_s is then DDIM's
    step by the denoiser of the batch, and not one of many that x_t may lead to.
    """
    n = model.sample_n(ops.shape(x))
    t, s, weight = model.draw_pair(x)
    x_t = model.sample_x_t(x, n, t)
    if model.teacher is None:
        x_s = model.sample_x_t(*model.endpoints(x, n, t, condition), s)
    else:
        x_s = model.teacher_walk(x_t, t, s, condition)
    ours = model.net(x_t, t, condition=condition, training=training)
    target = model.net(
        x_s, s, condition=condition, network=model.target_network()
    )
    distance = model.norm(ours - ops.stop_gradient(target))
    check_same_shape(distance=distance, weight=weight)
    return {"loss": weight * distance, "distance": distance}


consistency.terms = ("distance",)
register(consistency)


def trig_consistency(model, x, condition, training, *, tangent_norm=0.1,
                     derivative="jvp"):  # fmt: skip
    """e^w / D |F - sg(F + g / (|g| + c))|^2 - w (sCT and sCD).

    With f = cos(t) x_t - sin(t) sigma_d F and F = network(x_t / sigma_d, t),

        g = -cos^2(t) (sigma_d F - dx_t/dt)
            - k cos(t) sin(t) (x_t + sigma_d dF/dt),

    k rising from 0 to 1 (`model.warmup`), dx_t/dt the velocity of the pair
    (x, n) or of the teacher, c = `tangent_norm`, |g| a root mean square and
    w = `model.log_weight`.
    """
    n = model.sample_n(ops.shape(x))
    t = model.draw_t(x)
    x_t = model.sample_x_t(x, n, t)
    if model.teacher is None:
        ends = model.endpoints(x, n, t, condition)
        velocity = model.interpolant.velocity(*ends, t)
    else:
        velocity = model.teach(x_t, t, condition)
    velocity = ops.stop_gradient(velocity)

    cos, sin = (bcast_right(wave, x_t) for wave in (ops.cos(t), ops.sin(t)))
    # The factor cos sin inside the derivative keeps its terms of unit size.
    both = ops.cos(t) * ops.sin(t)
    scaled, slope = directional(
        lambda x_t, t: model.pred(x_t, t, condition=condition),
        (x_t, t),
        (bcast_right(both, x_t) * velocity, both),
        derivative,
    )
    g = -ops.square(cos) * (scaled - velocity) - model.warmup() * (
        cos * sin * x_t + slope
    )
    size = ops.sqrt(mean_flat(ops.square(g)))
    # `pred` is sigma_d F, without dropout: the derivative has another mask.
    output = scaled / model.interpolant.sigma_d
    error = output - ops.stop_gradient(
        output + normalized_tangent(g, tangent_norm)
    )
    square = mean_flat(ops.square(error))
    log_weight = model.log_weight(t)
    check_same_shape(square=square, log_weight=log_weight)
    return {
        "loss": ops.exp(log_weight) * square - log_weight,
        "tangent_norm": ops.stop_gradient(size),
    }


trig_consistency.terms = ("tangent_norm",)
register(trig_consistency)


def karras_levels(u, low, high, rho=7.0):
    """Noise levels (low^(1/rho) + u (high^(1/rho) - low^(1/rho)))^rho."""
    a, b = low ** (1.0 / rho), high ** (1.0 / rho)
    return (a + u * (b - a)) ** rho


def inverse_karras_levels(sigma, low, high, rho=7.0):
    """The u of `karras_levels`."""
    a, b = low ** (1.0 / rho), high ** (1.0 / rho)
    return (ops.power(sigma, 1.0 / rho) - a) / (b - a)


def num_levels(schedule, progress, low, high):
    """Number of noise levels N after a share `progress` of the training.

    "constant": high. "cm": ceil(sqrt(p ((high + 1)^2 - low^2) + low^2) - 1)
    + 1 (arXiv 2303.01469). "ict": low 2^j + 1, at most high + 1, the doubling
    j coming in equal parts of the training (arXiv 2310.14189).

    Args:
        schedule: one of these names.
        progress: scalar tensor in [0, 1].
        low: levels to start with.
        high: levels to end with.
    """
    progress = ops.cast(progress, float_dtype())
    if schedule == "constant":
        return ops.full_like(progress, float(high))
    if schedule == "cm":
        grown = progress * ((high + 1.0) ** 2 - low**2) + low**2
        return ops.ceil(ops.sqrt(grown) - 1.0) + 1.0
    stages = math.floor(math.log2(high / low)) + 1
    stage = ops.minimum(ops.floor(progress * stages), stages - 1.0)
    return ops.minimum(low * ops.power(2.0, stage), float(high)) + 1.0
