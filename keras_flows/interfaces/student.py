"""A student interface beside its frozen teacher."""

from keras_flows.interfaces.holder import Holder
from keras_flows.ops import eager_float64
from keras_flows.presets import registered_config

# sigma / alpha of one step's start, in standard deviations of the data.
_START = 5.0


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


def start_of(student, level=None, from_noise=False):
    """The level of noise at which a student's first step starts.

    Args:
        student: an interface.
        level: the user's, or None for the default: pure noise, or the level
            at which sigma / alpha is 5 x_sigma.
        from_noise: which of these.
    """
    if level is None:
        if from_noise:
            return 1.0
        path = student.interpolant
        with eager_float64() as number:
            # A row, as TensorFlow's `searchsorted` wants.
            t = number(path.time_from_ratio, [_START * student.x_sigma])
        return float(path.level(path.nearest_step(t))[0])
    if not 0.0 < level <= 1.0:
        raise ValueError(
            "`start_level` must be a level of noise, above 0 and at most "
            f"1. Received: {level!r}."
        )
    return level
