"""Stopping a run whose steps have all become non-finite."""

import warnings

import keras
from keras import ops

from keras_flows.training.callback_list import last_batch
from keras_flows.training.logs import Logs


class NonFiniteError(ArithmeticError):
    """Raised by `fit` after too many non-finite steps in a row."""


def spoil_unless_finite(scaled, loss):
    """The scaled loss, whose gradients are NaN where `loss` is not finite.

    A loss scaler skips a step by its gradients alone, and they may be finite
    where the loss is not.
    """
    finite = ops.isfinite(ops.stop_gradient(loss))
    return scaled * ops.cast(ops.where(finite, 1.0, float("nan")), scaled.dtype)


# So many steps at most go by between two looks at the device.
_LOOK_EVERY = 32


class NonFiniteGuard(keras.callbacks.Callback):
    """Says which steps were skipped; raises after too many in a row.

    The logs of a step hold the count of the skipped steps and that of those
    in a row, on the device. They are kept unread, and read together every
    `max_skipped_steps` steps, 32 at most, and at the end of an epoch.

    Args:
        max_skipped_steps: how many in a row are too many.
    """

    def __init__(self, max_skipped_steps):
        super().__init__()
        self.max_skipped_steps = max_skipped_steps
        self._every = min(max_skipped_steps, _LOOK_EVERY)
        self._skipped = self._epoch = self._before = self._batch = 0
        self._unseen = []

    def on_train_begin(self, logs=None):
        # Those of an earlier fit, or of the run that goes on.
        self._skipped = int(self.model.skipped_steps.numpy())

    def on_epoch_begin(self, epoch, logs=None):
        self._next_look = self._every - 1
        self._epoch, self._batch = epoch, -1

    def on_train_batch_end(self, batch, logs=None):
        batch = last_batch(batch, self)
        self._unseen.append((batch, logs))
        if batch >= self._next_look:
            self._next_look = batch + self._every
            self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()
        self._before += self._batch + 1

    def _look(self):
        """Say what the steps since the last look skipped."""
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        in_a_row = self._count(unseen[-1])[1]
        if self._count(unseen[-1])[0] > self._skipped:
            for batch, logs in unseen:
                skipped, several = self._count((batch, logs))
                in_a_row = max(in_a_row, several)
                if skipped > self._skipped:
                    self._say(skipped - self._skipped, batch)
                self._skipped, self._batch = skipped, batch
        self._batch = unseen[-1][0]
        self._check(in_a_row)

    def _count(self, step):
        """(skipped so far, in a row) of a step's logs."""
        _, logs = step
        skipped = int((logs or {}).get("skipped_steps", self._skipped))
        in_a_row = (
            logs.hidden("skipped_in_a_row")
            if (isinstance(logs, Logs))
            else None
        )
        if in_a_row is None:
            in_a_row = self.model.skipped_in_a_row.numpy()
        return skipped, int(in_a_row)

    def _say(self, count, batch):
        """One warning for the skipped among the steps since the last."""
        first, step = self._batch + 1, self._before + batch + 1
        which, batches = f"step {step}", f"batch index {batch}"
        if batch > first:
            # Several steps in one call.
            which = f"{count} of the steps up to {step}"
            batches = f"batch indices {first} to {batch}"
        warnings.warn(
            f"Skipped {which} of this fit (epoch {self._epoch + 1}, {batches})"
            ": its loss or gradient was not finite. It changed no weight and "
            "is in no mean of the logs.",
            stacklevel=2,
        )

    def _check(self, in_a_row):
        if in_a_row >= self.max_skipped_steps:
            raise NonFiniteError(
                f"Training stopped: the loss or its gradient was not finite "
                f"in {in_a_row} steps in a row. The weights are those before "
                "the first of them. Look for a learning rate that is too "
                "high, data that is not normalised or holds NaN, or a float16 "
                "policy (bfloat16 is safer); `max_skipped_steps` on the "
                "interface sets the limit."
            )
