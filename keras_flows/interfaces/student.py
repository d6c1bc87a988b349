"""A student interface beside its frozen teacher."""

from keras_flows.interfaces.holder import Holder
from keras_flows.presets import registered_config


def student_of(teacher):
    """A trainable copy of a teacher, with the weights that it teaches by.

    Raises:
        ValueError: of a holder, or if Keras does not know its classes.
    """
    if isinstance(teacher, Holder):
        raise ValueError(
            f"A copy of a {type(teacher).__name__} cannot be trained as a "
            "`student`: its batches are made on the held model's path. Pass "
            "`student=`, an interface of its own on the teacher's path."
        )
    registered_config(teacher)
    student = type(teacher).from_config(teacher.get_config())
    # Not the averages beside it, which no optimizer may move.
    student.network.trainable = True
    student.network.set_weights(teacher.inference_network().get_weights())
    return student


def check_student(student):
    """Refuse what cannot be trained beside a teacher."""
    if isinstance(student, Holder):
        raise ValueError(
            "`student` must be an interface of its own on the teacher's path. "
            f"Received a {type(student).__name__}."
        )
    if "data" not in student.provides:
        raise ValueError(
            "`student` must predict the data at any time of a path from "
            f"noise. Received a {type(student).__name__} with objective "
            f"'{student.objective.name}', which predicts "
            f"{' and '.join(sorted(student.provides))}."
        )
