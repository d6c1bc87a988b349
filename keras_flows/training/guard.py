"""Stopping a run whose steps have all become non-finite."""

import keras
from keras import ops


class NonFiniteError(ArithmeticError):
    """Raised by `fit` after too many non-finite steps in a row."""


def spoil_unless_finite(scaled, loss):
    """The scaled loss, whose gradients are NaN where `loss` is not finite.

    A loss scaler skips a step by its gradients alone, and they may be finite
    where the loss is not.
    """
    finite = ops.isfinite(ops.stop_gradient(loss))
    return scaled * ops.cast(ops.where(finite, 1.0, float("nan")), scaled.dtype)


class NonFiniteGuard(keras.callbacks.Callback):
    """Raises once `max_skipped_steps` steps in a row were skipped.

    The count lives on the device; it is read once every
    `max_skipped_steps` steps only, so that no step waits for the host.
    """

    def __init__(self, max_skipped_steps):
        super().__init__()
        self.max_skipped_steps = max_skipped_steps
        self._next_check = max_skipped_steps - 1

    def on_epoch_begin(self, epoch, logs=None):
        self._next_check = self.max_skipped_steps - 1

    def on_train_batch_end(self, batch, logs=None):
        if batch >= self._next_check:
            self._next_check = batch + self.max_skipped_steps
            self._check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def _check(self):
        in_a_row = int(self.model.skipped_in_a_row.numpy())
        if in_a_row >= self.max_skipped_steps:
            raise NonFiniteError(
                f"Training stopped: the loss or its gradient was not finite "
                f"in {in_a_row} steps in a row. The weights are those before "
                "the first of them. Look for a learning rate that is too "
                "high, data that is not normalised or holds NaN, or a float16 "
                "policy (bfloat16 is safer); `max_skipped_steps` on the "
                "interface sets the limit."
            )
