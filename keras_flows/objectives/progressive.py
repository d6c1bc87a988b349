"""Progressive distillation (arXiv 2202.00512): two steps in one."""

import dataclasses
import itertools

from keras import ops

from keras_flows.objectives.base import Objective
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked


@register
@checked(num_steps=given.SIZES, steps_per_stage=SIZE)
@dataclasses.dataclass(frozen=True)
class Progressive(Objective):
    """max(alpha^2 / sigma^2, 1) |x_hat(x_t) - x|^2, x what two steps ask for.

    In stage k, with N = num_steps[k], t has the level i / N: from x_t two DDIM
    steps of the last stage's student (at first the teacher) lead to x_r, r of
    the level (i - 1) / N, and

        x = (x_r - (sigma_r / sigma_t) x_t) / (alpha_r - alpha_t sigma_r /
        sigma_t)

    is what one DDIM step would need to come there.

    Args:
        num_steps: the students' numbers of steps, each half of the one
            before; the teacher is taken at twice the first.
        steps_per_stage: updates of the optimizer in each stage. After the
            last one the student goes on learning from the same teacher.
    """

    num_steps: tuple = (32, 16, 8, 4, 2, 1)
    steps_per_stage: int = 10_000

    name = "progressive"
    terms = ("distance",)
    predicts = "data"

    def __post_init__(self):
        steps = self.num_steps
        if not steps or any(a != 2 * b for a, b in itertools.pairwise(steps)):
            raise ValueError(
                "`num_steps` must halve from stage to stage, as in (8, 4, 2, "
                f"1). Received: {steps}."
            )

    @property
    def total_steps(self):
        """Updates of all stages."""
        return self.steps_per_stage * len(self.num_steps)

    def stage(self, updates):
        """(number of steps, whether the first teacher teaches), scalars."""
        stage = ops.minimum(
            updates // self.steps_per_stage, len(self.num_steps) - 1
        )
        table = ops.convert_to_tensor(self.num_steps, dtype=float_dtype())
        return ops.take(table, stage), ops.equal(stage, 0)

    def ends_stage(self, updates, updated):
        """Whether this update was the last of a stage that has a successor."""
        return ops.logical_and(
            ops.logical_and(
                updated, ops.equal(updates % self.steps_per_stage, 0)
            ),
            updates < self.total_steps,
        )

    def __call__(self, model, batch):
        x, condition, path = batch.x, batch.condition, model.interpolant
        steps, first = self.stage(model.training_progress.count())
        index = ops.floor(model.sample_uniform(ops.shape(x)[:1]) * steps) + 1.0
        t, r = (
            path.nearest_step(path.time_of_level((index - back) / steps))
            for back in (0.0, 1.0)
        )
        n = model.sample_n(ops.shape(x))
        x_t = model.sample_x_t(x, n, t)
        x_r = ops.cond(
            first,
            lambda: model.teacher.walk(x_t, t, r, condition),
            lambda: model.last_student_walk(x_t, t, r, condition),
        )
        kept = bcast_right(path.sigma(r) / path.sigma(t), x)
        alpha_t, alpha_r = (bcast_right(path.alpha(s), x) for s in (t, r))
        target = (x_r - kept * x_t) / (alpha_r - alpha_t * kept)
        error = model.denoise(x_t, t, condition=condition) - target
        distance = batch.mean(ops.square(error))
        weight = ops.maximum(ops.square(path.alpha(t) / path.sigma(t)), 1.0)
        check_same_shape(distance=distance, weight=weight)
        return {"loss": weight * distance, "distance": distance}
