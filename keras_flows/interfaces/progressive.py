"""Progressive distillation: two steps in one, stage by stage."""

from __future__ import annotations

import typing

import keras
import numpy as np
from keras import ops

from keras_flows import objectives
from keras_flows import samplers
from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.arguments import with_arguments
from keras_flows.interfaces.holder import Holder
from keras_flows.interfaces.student import check_student
from keras_flows.interfaces.student import student_of
from keras_flows.interfaces.teacher import Teacher
from keras_flows.interfaces.teacher import check_needs
from keras_flows.interfaces.teacher import walk
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.samplers.grids import refuse_start
from keras_flows.training import Progress
from keras_flows.training import Snapshot
from keras_flows.training import data_checks

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_flows.interfaces.generator import Generator
    from keras_flows.interfaces.interface import Interface


@register
class ProgressiveInterface(Holder):
    """Progressive distillation: the student learns two steps in one.

    The loss is `objectives.Progressive`. Sample it with `generate(num_steps=
    num_steps[-1])`, by DDIM at the levels i / N that it was trained for.
    Source: arXiv 2202.00512.

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

    @checked_arguments
    def __init__(
        self,
        teacher: Generator,
        student: Interface | None = None,
        *,
        num_steps: Sequence[int] = (32, 16, 8, 4, 2, 1),
        steps_per_stage: int = 10_000,
        teacher_guidance_scale: float = 1.0,
        name: str | None = None,
    ) -> None:
        check_needs(teacher, ("data",))
        student = student_of(teacher) if student is None else student
        check_student(student)
        own = objectives.Progressive(num_steps, steps_per_stage)
        super().__init__(student, own.terms, inner_terms=False, name=name)
        self._own = own
        self.teacher = Teacher(
            teacher, student, teacher_guidance_scale, "ddim", 2, ("data",)
        )
        self.teacher_guidance_scale = teacher_guidance_scale
        self.snapshot = Snapshot(student.network, "snapshot")
        self.training_progress = Progress(own.total_steps)
        self.built = True

    @property
    def objective(self):
        """`objectives.Progressive`."""
        return self._own

    @property
    def provides(self):
        """Steps of DDIM between its levels."""
        return frozenset({"step"})

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The terms "loss" and "distance", each (B,); a mask as `Interface`."""
        self.check_batch(x, condition, None)
        mask = data_checks.check_extras(extras, x, self)
        if training:
            condition = self.interface.drop_condition(condition)
        x = ops.cast(x, float_dtype())
        batch = objectives.Batch(x, condition, training, mask)
        return batch.terms(self.objective, self)

    def last_student_walk(self, x_t, t, r, condition):
        """x_r by two DDIM steps of the last stage's student, (B, ...)."""
        predictor = self.bind(self.snapshot.network(), condition)
        return walk(predictor, self.teacher.sampler, 2, x_t, t, r)

    def after_update(self, updated):
        """At the end of a stage but the last the student teaches."""
        progress = self.training_progress
        progress.advance(updated)
        ends = self.objective.ends_stage(progress.count(), updated)
        self.snapshot.take(self.network, ends)

    def sampling_times(self, sampler=None, num_steps=None, start=None):
        refuse_start(start, "a student of fixed steps")
        own = self.objective.num_steps
        num_steps = own[-1] if num_steps is None else num_steps
        if num_steps not in own:
            raise ValueError(
                "`num_steps` must be one that the student was trained for: "
                f"{own}, the last of them at the end. Received: {num_steps!r}."
            )
        sampler = samplers.get("ddim" if sampler is None else sampler)
        if sampler != samplers.DDIM(clip=getattr(sampler, "clip", None)):
            raise ValueError(
                "`sampler` must be 'ddim': the student was trained to make "
                f"its steps. Received: {sampler}."
            )
        path, levels = self.interpolant, np.linspace(1.0, 0.0, num_steps + 1)
        times = path.nearest_step(path.time_of_level(levels))
        return sampler, num_steps, times

    @property
    def default_sampler(self):
        return samplers.DDIM()

    @property
    def default_num_steps(self):
        return self.objective.num_steps[-1]

    def get_config(self):
        config = {
            "student": keras.saving.serialize_keras_object(self.interface),
            "num_steps": list(self.objective.num_steps),
            "steps_per_stage": self.objective.steps_per_stage,
        }
        return with_arguments(config, self, ProgressiveInterface)
