"""One bar for a whole training, in the place of a block for each epoch."""

import keras

from keras_flows.ops.bars import Bar


class ProgressBar(keras.callbacks.Callback):
    """Shows how far `fit` has come, and the loss.

    ```python
    x = kf.datasets.Checkerboard().sample(1024, seed=0)
    model = kf.SiTInterface(kf.networks.MLP(2, width=8, depth=1))
    model.compile("adam")
    bar = kf.callbacks.ProgressBar()
    model.fit(x, epochs=5, verbose=0, callbacks=[bar])
    ```

    The loss is Keras's, the mean over the epoch so far. Where the number of
    steps is not known there is no bar.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bar, self._seen = Bar(0, shown=False), 0

    def on_train_begin(self, logs=None):
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        self._bar = Bar((steps or 0) * (epochs or 1), shown=bool(steps))

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = 0

    def on_train_batch_end(self, batch, logs=None):
        # With `steps_per_execution` several end at once.
        steps, self._seen = batch + 1 - self._seen, batch + 1
        loss = (logs or {}).get("loss")
        self._bar.advance(steps, **({} if loss is None else {"loss": loss}))
