"""A warning where a flow map's term drowns its velocity's from the start."""

import warnings

import keras

# {steps: how far the mean map loss of so many first steps may be above that
# of the velocity}. See docs/extending.md: where features of up to 100 radians
# spoil a network it is 2.8 times or more in the first 8, and ten times in all
# of them for MeanFlow; with the default ones at most 1.5 times.
_FAR = {8: 2.0, 16: 3.0, 32: 3.0, 64: 3.0}


class MapLossWatch(keras.callbacks.Callback):
    """Warns once of a map loss far above the velocity loss.

    It looks at the logs of a few early steps. At an exact flow map the residual
    is 0, or, where its target holds the sampled velocity, about the velocity
    loss. One that is far above holds a derivative by time that is noise: of
    features that are too fast.
    """

    def __init__(self):
        super().__init__()
        self._next = list(_FAR)

    def on_train_batch_end(self, batch, logs=None):
        steps = batch + 1
        if not self._next or steps < self._next[0]:
            return
        far = _FAR[self._next[0]]
        # Several, where there are many steps in one call.
        self._next = [n for n in self._next if n > steps]
        mapped, velocity = (
            (logs or {}).get(name) for name in ("map_loss", "velocity_loss")
        )
        if mapped is None or velocity is None:
            self._next = []
        elif velocity > 0.0 and mapped > far * velocity:
            self._next = []
            warnings.warn(
                f"In the first {steps} steps the map loss was {mapped:.3g} on "
                f"average, {mapped / velocity:.1f} times the velocity loss. "
                "The derivative of the network by its times t and r is too "
                "large to learn from, which spoils the velocity as well. Give "
                "it slower features of them: a smaller `max_frequency` of "
                "kf.networks.TimeFeatures, MLP, ChunkMLP or PolicyRNN, or "
                "`noise_scale` of SongUNet, such as the default, or times "
                "that are not scaled up before an embedding of your own.",
                stacklevel=2,
            )

    def on_epoch_end(self, epoch, logs=None):
        # The means of the next epoch are others.
        self._next = []
