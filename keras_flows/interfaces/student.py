"""A student interface beside its frozen teacher."""

import keras

from keras_flows.interfaces.consistency import DataJump
from keras_flows.interfaces.reparametrized import ReparametrizedInterface
from keras_flows.interfaces.teacher import Taught
from keras_flows.interfaces.teacher import serialize_teacher
from keras_flows.interfaces.wrapper import SamplingWrapper


def student_of(teacher):
    """A trainable copy of a teacher, with the weights that it teaches by."""
    student = type(teacher).from_config(teacher.get_config())
    # Not the averages beside it, which no optimizer may move.
    student.network.trainable = True
    student.network.set_weights(teacher.inference_network().get_weights())
    return student


class Student(DataJump, Taught, SamplingWrapper):
    """A student interface beside its frozen teacher; a base class.

    The student's own loss is not used, nor its options, `stable_target` among
    them (DMD's fake network follows the teacher's).
    """

    def _set_student(self, teacher, guidance_scale):
        if isinstance(self.interface, ReparametrizedInterface):
            # Its batches are made on the wrapped model's path.
            raise ValueError(
                "A ReparametrizedInterface cannot be trained as a `student`, "
                "by default the teacher's copy. Pass `student=`, an interface "
                "of its own on the teacher's path."
            )
        self._set_teacher(teacher, guidance_scale)
        self._init_generation()

    def get_config(self):
        return {
            "teacher": serialize_teacher(self.teacher),
            "student": keras.saving.serialize_keras_object(self.interface),
            "teacher_guidance_scale": self.teacher_guidance_scale,
            "name": self.name,
        }
