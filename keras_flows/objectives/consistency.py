"""Consistency models: f(x_t, t) is where the probability flow ends.

Discrete time compares f at two times of one path (arXiv 2303.01469);
continuous time follows the derivative of f along it (arXiv 2410.11081).
"""

import dataclasses

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.objectives.derivatives import check_derivative
from keras_flows.objectives.derivatives import directional
from keras_flows.objectives.derivatives import normalized_tangent
from keras_flows.objectives.schedules import SCHEDULES
from keras_flows.objectives.schedules import num_levels
from keras_flows.ops import ERROR
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import given
from keras_flows.ops import mean_flat
from keras_flows.ops import register
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked
from keras_flows.samplers import FlowMapJump


@register
@checked(
    min_levels=Integer(2),
    max_levels=Integer(2),
    ect_stages=SIZE,
    ect_factor=Number(above=1, high=1000),
)
@dataclasses.dataclass(frozen=True)
class Consistency(Objective):
    """weight(t, s) |f(x_t, t) - sg f(x_s, s)|^2, s nearer to the data than t.

    x_s is on the path of the same (x, n), or where a teacher goes from x_t.
    With `stable_target` (x, n) are their means given x_t: x_s is then DDIM's
    step by the denoiser of the batch, and not one of many that x_t may lead to.
    Where s and t are, `schedule` says:

    - "constant": neighbours among `max_levels` levels, drawn evenly; with a
      teacher and its averages as target consistency distillation (arXiv
      2303.01469);
    - "cm": as many levels as the training has come to, from `min_levels`;
    - "ict": improved training (arXiv 2310.14189), doubling levels, times from
      the law, weight 1 / |t - s|;
    - "ect": easy tuning (arXiv 2406.14548), s = t (1 - n(t) / q^j) in stages
      j, times from the law, weight 1 / |t - s|.

    Args:
        schedule: one of these.
        min_levels, max_levels: of the schedules but "ect".
        ect_stages, ect_factor: number of stages and q of "ect".
    """

    schedule: str = "ict"
    min_levels: int = 10
    max_levels: int = 1280
    ect_stages: int = 8
    ect_factor: float = 2.0

    name = "consistency"
    terms = ("distance",)
    predicts = "data"
    sampler = FlowMapJump(renoise=1.0)
    num_steps = 1
    stable = True

    def __post_init__(self):
        given.choice("schedule", self.schedule, SCHEDULES)
        if not 2 <= self.min_levels <= self.max_levels:
            raise ValueError(
                "`min_levels` and `max_levels` must satisfy 2 <= min <= max. "
                f"Received: {self.min_levels}, {self.max_levels}."
            )
        if self.ect_stages < 1 or self.ect_factor <= 1:
            raise ValueError(
                "`ect_stages` must be at least 1 and `ect_factor` above 1. "
                f"Received: {self.ect_stages}, {self.ect_factor}."
            )

    def check(self, model):
        if not hasattr(model, "target_network"):
            raise ValueError(
                "`objective` 'consistency' is that of "
                "kf.ConsistencyInterface, whose network ends on the data. "
                f"Received: {type(model).__name__}."
            )

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        n = model.sample_n(ops.shape(x))
        t, s, weight = model.draw_pair(x)
        x_t = model.sample_x_t(x, n, t)
        if model.teacher is None:
            x_s = model.sample_x_t(*model.endpoints(x, n, t, condition), s)
        else:
            x_s = model.teacher.walk(
                x_t, t, s, condition, noise=model.standard_noise
            )
        ours = model.net(x_t, t, condition=condition, training=batch.training)
        target = model.net(
            x_s, s, condition=condition, network=model.target_network()
        )
        distance = batch.norm(ours - ops.stop_gradient(target))
        check_same_shape(distance=distance, weight=weight)
        return {"loss": weight * distance, "distance": distance}

    def draw_pair(self, model, x):
        """(t, s, weight) for the batch x, each (B,)."""
        path, shape = model.interpolant, ops.shape(x)[:1]
        if self.schedule == "ect":
            return self._easy_pair(model, path.within(model.draw_t(x)))
        levels = num_levels(
            self.schedule, model.progress(), self.min_levels, self.max_levels
        )
        intervals = levels - 1.0
        if self.schedule == "ict":
            place = ops.clip(path.level(model.draw_t(x)), 0.0, 1.0)
        else:
            place = model.sample_uniform(shape)
        index = ops.minimum(ops.floor(place * intervals), intervals - 1.0)
        t, s = (
            path.within(path.time_of_level((index + i) / intervals))
            for i in (1.0, 0.0)
        )
        if self.schedule == "ict":
            return t, s, 1.0 / ops.maximum(ops.abs(t - s), 1e-6)
        return t, s, ops.ones_like(t)

    def _easy_pair(self, model, t):
        """s = t (1 - n(t) / q^j) as a distance from the end, n = 1 + 8 sigmoid(
        -sigma / alpha).

        In stage 0 s is the data end: the loss of a denoiser.
        """
        path = model.interpolant
        stage = ops.minimum(
            ops.floor(model.progress() * self.ect_stages),
            self.ect_stages - 1.0,
        )
        ratio = path.sigma(t) / ops.maximum(path.alpha(t), 1e-6)
        nearer = (1.0 + 8.0 * ops.sigmoid(-ratio)) / ops.power(
            self.ect_factor, stage
        )
        kept = ops.maximum(1.0 - nearer, 0.0)
        s = path.t_last + kept * (t - path.t_last)
        # Where t is the end itself, nothing is compared.
        distance = ops.maximum(ops.abs(t - s), 1e-6)
        return t, s, 1.0 / distance


@register
@checked(tangent_norm=POSITIVE)
@dataclasses.dataclass(frozen=True)
class TrigConsistency(Objective):
    """e^w / D |F - sg(F + g / (|g| + c))|^2 - w (sCT and sCD).

    With f = cos(t) x_t - sin(t) sigma_d F and F = network(x_t / sigma_d, t),

        g = -cos^2(t) (sigma_d F - dx_t/dt)
            - k cos(t) sin(t) (x_t + sigma_d dF/dt),

    k rising from 0 to 1 (`model.warmup`), dx_t/dt the velocity of the pair
    (x, n) or of the teacher, |g| a root mean square and w =
    `model.log_weight`. What is logged as the loss is |g|^2, without the learned
    weight and the normalisation; the loss itself is "weighted_loss".

    Args:
        tangent_norm: c.
        derivative: "jvp" or "finite_difference".
    """

    tangent_norm: float = 0.1
    derivative: str = "jvp"

    name = "trig_consistency"
    takes_mask = False
    terms = ("tangent_norm",)
    sampler = FlowMapJump(renoise=1.0)
    num_steps = 1
    stable = True

    def __post_init__(self):
        check_derivative(self.derivative)

    def check(self, model):
        if not hasattr(model, "log_weight"):
            raise ValueError(
                "`objective` 'trig_consistency' is that of kf.SCTInterface and "
                f"kf.SCDInterface. Received: {type(model).__name__}."
            )

    def __call__(self, model, batch):
        x, condition = batch.x, batch.condition
        n = model.sample_n(ops.shape(x))
        t = model.draw_t(x)
        x_t = model.sample_x_t(x, n, t)
        if model.teacher is None:
            ends = model.endpoints(x, n, t, condition)
            velocity = model.interpolant.velocity(*ends, t)
        else:
            velocity = model.teacher.velocity(x_t, t, condition)
        velocity = ops.stop_gradient(velocity)

        cos, sin = (bcast_right(wave, x_t) for wave in (ops.cos(t), ops.sin(t)))
        # The factor cos sin inside the derivative keeps its terms of unit size.
        both = ops.cos(t) * ops.sin(t)
        scaled, slope = directional(
            lambda x_t, t: model.net(x_t, t, condition=condition),
            (x_t, t),
            (bcast_right(both, x_t) * velocity, both),
            self.derivative,
        )
        g = -ops.square(cos) * (scaled - velocity) - model.warmup() * (
            cos * sin * x_t + slope
        )
        size = ops.sqrt(mean_flat(ops.square(g)))
        # `net` is sigma_d F, without dropout: the derivative has another mask.
        output = scaled / model.interpolant.sigma_d
        error = output - ops.stop_gradient(
            output + normalized_tangent(g, self.tangent_norm)
        )
        square = mean_flat(ops.square(error))
        log_weight = model.log_weight(t)
        check_same_shape(square=square, log_weight=log_weight)
        size = ops.stop_gradient(size)
        return {
            "loss": ops.exp(log_weight) * square - log_weight,
            ERROR: ops.square(size),
            "tangent_norm": size,
        }
