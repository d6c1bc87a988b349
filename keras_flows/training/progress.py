"""How far a training has come, for schedules inside the compiled step."""

import keras
from keras import ops

from keras_flows.ops import SIZE
from keras_flows.ops import checked
from keras_flows.ops import float_dtype


class Progress(keras.layers.Layer):
    """Counts the optimizer's updates; saved with the model.

    Args:
        total_steps: updates over which the schedule runs, at least 1.
    """

    @checked(total_steps=SIZE)
    def __init__(self, total_steps, name=None):
        super().__init__(trainable=False, name=name)
        if total_steps < 1:
            raise ValueError(
                "`total_steps` must be at least 1, the steps over which the "
                f"schedule runs. Received: {total_steps!r}."
            )
        self.total_steps = total_steps
        self.updates = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="updates",
        )
        self.built = True

    def count(self):
        """Updates so far, an int32 scalar."""
        return ops.convert_to_tensor(self.updates)

    def advance(self, updated):
        """Count one update where the boolean tensor `updated` is true."""
        self.updates.assign_add(ops.cast(updated, "int32"))

    def share(self):
        """Share of `total_steps` done, a scalar in [0, 1]."""
        done = ops.cast(self.updates, float_dtype()) / float(self.total_steps)
        return ops.minimum(done, 1.0)
