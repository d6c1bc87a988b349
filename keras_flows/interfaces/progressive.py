"""Progressive distillation: two steps in one, stage by stage."""

import itertools

from keras import ops

from keras_flows.interfaces.consistency import Scheduled
from keras_flows.interfaces.student import Student
from keras_flows.interfaces.student import student_of
from keras_flows.networks import clone_network
from keras_flows.ops import bcast_right
from keras_flows.ops import check_same_shape
from keras_flows.ops import float_dtype
from keras_flows.ops import mean_flat
from keras_flows.ops import register
from keras_flows.samplers import DDIM
from keras_flows.samplers import Predictor


@register
class ProgressiveInterface(Scheduled, Student):
    """Progressive distillation: the student learns two steps in one.

    In stage k, with N = num_steps[k], t = i / N of the noise fraction: from
    x_t two DDIM steps of the last stage's student (at first the teacher)
    lead to x_r, r = (i - 1) / N; the student's data prediction learns what
    one DDIM step would need to come there,

        x = (x_r - (sigma_r / sigma_t) x_t) / (alpha_r - alpha_t sigma_r /
        sigma_t),

    with weight max(alpha^2 / sigma^2, 1). Sample it with `generate(num_steps=
    num_steps[-1])`. Source: arXiv 2202.00512.

    Args:
        teacher: a frozen interface.
        student: the interface to train, on the same path; by default a copy
            of the teacher.
        num_steps: the students' numbers of steps, each half of the one
            before; the teacher is taken at twice the first.
        steps_per_stage: updates of the optimizer in each stage.
        teacher_guidance_scale: of the teacher in the first stage; 1.0 for
            none.
        name: model name.
    """

    def __init__(
        self,
        teacher,
        student=None,
        *,
        num_steps=(32, 16, 8, 4, 2, 1),
        steps_per_stage=10_000,
        teacher_guidance_scale=1.0,
        name=None,
    ):
        super().__init__(
            student_of(teacher) if student is None else student, name=name
        )
        num_steps = tuple(int(n) for n in num_steps)
        if (
            not num_steps
            or num_steps[-1] < 1
            or any(a != 2 * b for a, b in itertools.pairwise(num_steps))
        ):
            raise ValueError(
                "`num_steps` must halve from stage to stage, as in (8, 4, 2, "
                f"1). Received: {num_steps}."
            )
        self._set_student(teacher, teacher_guidance_scale)
        self.teacher_sampler, self.teacher_steps = DDIM(), 2
        self.num_steps = num_steps
        self.steps_per_stage = steps_per_stage
        self.snapshot = clone_network(self.interface.network, "snapshot")
        self._count_updates(steps_per_stage * len(num_steps))
        self._track(("distance",))
        self.built = True

    def after_update(self, updated):
        """At the end of a stage the student becomes the teacher."""
        super().after_update(updated)
        ends = ops.logical_and(
            updated, ops.equal(self.updates % self.steps_per_stage, 0)
        )
        for old, new in zip(
            self.snapshot.variables, self.interface.network.variables,
            strict=True,
        ):  # fmt: skip
            old.assign(ops.where(ends, ops.cast(new, old.dtype), old.value))

    def _stage(self):
        """(number of steps, whether the first teacher teaches) now."""
        stage = ops.minimum(
            self.updates // self.steps_per_stage, len(self.num_steps) - 1
        )
        table = ops.convert_to_tensor(self.num_steps, dtype=float_dtype())
        return ops.take(table, stage), ops.equal(stage, 0)

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The terms "loss" and "distance", each (B,)."""
        path = self.interpolant
        if training:
            condition = self.drop_condition(condition)
        steps, first = self._stage()
        index = ops.floor(self.sample_uniform(ops.shape(x)[:1]) * steps) + 1.0
        t, r = (
            path.time_from_fraction((index - back) / steps)
            for back in (0.0, 1.0)
        )
        n = self.sample_n(ops.shape(x))
        x_t = self.sample_x_t(x, n, t)

        last = Predictor(self.interface, self.snapshot, condition)
        x_r = ops.cond(
            first,
            lambda: self.teacher_walk(x_t, t, r, condition),
            lambda: self.walk(last, x_t, t, r),
        )
        kept = bcast_right(path.sigma(r) / path.sigma(t), x)
        alpha_t, alpha_r = (bcast_right(path.alpha(s), x) for s in (t, r))
        target = (x_r - kept * x_t) / (alpha_r - alpha_t * kept)
        error = self.denoise(x_t, t, condition=condition) - target
        distance = mean_flat(ops.square(error))
        weight = ops.maximum(ops.square(path.alpha(t) / path.sigma(t)), 1.0)
        check_same_shape(distance=distance, weight=weight)
        return {"loss": weight * distance, "distance": distance}

    @property
    def default_sampler(self):
        return DDIM()

    @property
    def default_num_steps(self):
        return self.num_steps[-1]

    def get_config(self):
        return {
            **super().get_config(),
            "num_steps": list(self.num_steps),
            "steps_per_stage": self.steps_per_stage,
        }
