"""Schedules of consistency training: how many levels are compared when."""

import math

from keras import ops

from keras_flows.ops import float_dtype

SCHEDULES = ("constant", "cm", "ict", "ect")


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
