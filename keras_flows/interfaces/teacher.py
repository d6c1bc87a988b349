"""A frozen teacher inside another interface."""

import keras
from keras import ops
from keras import tree

from keras_flows import samplers
from keras_flows.interfaces import checks


class Taught:
    """An interface with a frozen teacher; a mixin over `Interface`.

    The teacher's variables are among the interface's own, not trainable: they
    are saved with it, and no optimizer has slots for them. Its first EMA, if
    it has one, is what teaches.
    """

    # Where an interface lets the teacher walk from one time to another.
    teacher_sampler = None
    teacher_steps = 1

    def _set_teacher(self, teacher, guidance_scale=1.0):
        if teacher is not None:
            checks.check_teacher(teacher, self)
            # So that a first EMA without an update is the live weights.
            teacher.inference_network()
        if guidance_scale != 1.0 and (
            teacher is None or teacher.null_label is None
        ):
            raise ValueError(
                "`teacher_guidance_scale` needs a teacher whose network has a "
                f"null label. Received {guidance_scale} and teacher "
                f"{teacher!r}."
            )
        self.teacher = teacher
        self.teacher_guidance_scale = guidance_scale

    def instructor(self, condition, network=None):
        """The teacher as samplers see it, with its guidance.

        Args:
            condition: of the batch.
            network: called in the place of the teacher's own.
        """
        scale, negative = self.teacher_guidance_scale, None
        if network is None:
            emas = self.teacher.emas
            network = emas[0].averaged() if emas else self.teacher.network
        if scale != 1.0:
            negative = tree.map_structure(
                lambda c: ops.full_like(c, self.teacher.null_label), condition
            )
        return samplers.Predictor(
            self.teacher, network, condition, negative, scale
        )

    def teach(self, x_t, t, condition=None):
        """The teacher's (guided) velocity at x_t, (B, ...)."""
        return self.instructor(condition).pred(x_t, t)

    def teacher_walk(self, x_t, t, s, condition=None):
        """x_s from x_t by `teacher_steps` of the teacher's sampler, (B, ...).

        Args:
            x_t: (B, ...).
            t: (B,), the times of x_t.
            s: (B,), times nearer to the data.
        """
        return self.walk(self.instructor(condition), x_t, t, s)

    def walk(self, model, x_t, t, s):
        """As `teacher_walk`, by what any `Predictor` says."""
        sampler = self.teacher_sampler
        for i in range(self.teacher_steps):
            start, end = (
                t + (s - t) * (k / self.teacher_steps) for k in (i, i + 1)
            )
            noise = None
            if sampler.stochastic:
                noise = (self.sample_n(ops.shape(x_t)) - self.n_mu) / (
                    self.n_sigma
                )
            x_t = sampler.step(model, x_t, start, end, noise, False)
        return ops.stop_gradient(x_t)

    def _start_emas(self):
        super()._start_emas()
        if self.teacher is not None:
            self.teacher._start_emas()

    @classmethod
    def from_config(cls, config, custom_objects=None):
        teacher = config.get("teacher")
        if isinstance(teacher, dict):
            teacher = keras.saving.deserialize_keras_object(
                teacher, custom_objects=custom_objects
            )
            teacher.trainable = False
            config = {**config, "teacher": teacher}
        return super().from_config(config, custom_objects)


def serialize_teacher(teacher):
    """The config of a teacher, or None."""
    if teacher is None:
        return None
    return keras.saving.serialize_keras_object(teacher)


def get_teacher_sampler(identifier):
    """A one-step sampler for `teacher_walk`, from its name or itself.

    Raises:
        ValueError: if it looks at earlier steps.
    """
    sampler = samplers.get(identifier)
    if sampler.history:
        raise ValueError(
            "`teacher_sampler` must be a one-step sampler, such as 'ddim', "
            f"'heun' or kf.samplers.DDIM(eta=0.5). Received: {sampler}."
        )
    return sampler
