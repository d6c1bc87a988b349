"""What callbacks that sample during training share."""

import keras

from keras_flows.training.callback_list import last_batch


class Every(keras.callbacks.Callback):
    """Calls `run(step)` after every so many training steps.

    Steps are counted over all epochs, and on from where a compiled model
    was, so that a resumed run goes on with the count. The model samples with
    its first EMA's weights.

    Args:
        every: number of training steps.
        generate: dict of arguments of `generate`: condition, num_steps, seed
            and so on. With a `seed` every call has the same noise.
    """

    def __init__(self, every, generate):
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(
                "`every` must be a number of steps, at least 1. "
                f"Received: {every!r}."
            )
        self.every = every
        self.generate = {"seed": 0, **generate}

    def on_train_begin(self, logs=None):
        self._step = int(self.model.optimizer.iterations.numpy())

    def on_epoch_begin(self, epoch, logs=None):
        self._base = self._step

    def on_train_batch_end(self, batch, logs=None):
        before, self._step = (
            self._step,
            self._base + last_batch(batch, self) + 1,
        )
        # Several steps may be one call.
        if before // self.every == self._step // self.every:
            return
        # JAX keeps the weights in the training loop's state until asked.
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.run(self._step)

    def samples(self):
        """Samples as a NumPy array."""
        return keras.ops.convert_to_numpy(self.model.generate(**self.generate))
