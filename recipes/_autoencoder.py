"""A small autoencoder, and a data set seen through it, for --latents."""

import keras
import numpy as np
from _image_data import Kept
from keras import layers

from keras_flows.ops.files import replacing

BATCH_SIZE = 64


def _encoder(shape, channels):
    inputs = keras.Input(shape)
    x = inputs
    for filters, strides in ((32, 2), (64, 2), (64, 1)):
        x = layers.Conv2D(filters, 3, strides, "same", activation="gelu")(x)
    x = layers.Conv2D(channels, 1)(x)
    # Of mean 0 and variance 1 in each latent's channels, as noise is.
    x = layers.BatchNormalization(scale=False, center=False, momentum=0.9)(x)
    return keras.Model(inputs, x, name="encoder")


def _decoder(shape, channels):
    inputs = keras.Input((shape[0] // 4, shape[1] // 4, channels))
    x = layers.Conv2D(64, 3, padding="same", activation="gelu")(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="gelu")(x)
    for filters in (64, 32):
        x = layers.Conv2DTranspose(
            filters, 4, 2, padding="same", activation="gelu"
        )(x)
    x = layers.Conv2D(shape[-1], 3, padding="same")(x)
    return keras.Model(inputs, x, name="decoder")


def trained(data, path, steps, channels, seed):
    """The autoencoder of a data set, from `path` if it is there.

    Four pixels a side become one of `channels` numbers; the loss is the mean
    squared error of the pixels.
    """
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    encoder = _encoder(data.shape, channels)
    decoder = _decoder(data.shape, channels)
    model = keras.Sequential([encoder, decoder], name="autoencoder")
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.AdamW(rate), "mse")
    batches = (
        (images, images) for images, *_ in data.batches(BATCH_SIZE, seed)
    )
    model.fit(batches, steps_per_epoch=steps, verbose=0)
    model.compile()
    with replacing(path) as temporary:
        model.save(temporary)
    return model


class Latents(Kept):
    """A data set whose training images are latents.

    Args:
        data: the data set of pixels, which samples are compared with.
        model: of `trained`.
    """

    def __init__(self, data, model):
        self.pixels = data
        self.encoder, self.decoder = model.layers
        self.classes, self.labels = data.classes, data.labels
        self.shape = self.encoder.output.shape[1:]
        rows = np.arange(len(data.images))
        parts = np.array_split(rows, -(-len(rows) // 500))
        self.images = np.concatenate(
            [self.encoder.predict_on_batch(data.floats(p)) for p in parts]
        )
        shown = rows[:500]
        error = self.decode(self.images[shown]) - data.floats(shown)
        self.description = (
            f"{data.description}, in latents {self.shape} of an autoencoder "
            f"with a root mean square error of {np.sqrt(np.mean(error**2)):.3f}"
        )

    def decode(self, samples):
        """The images of latents."""
        return self.decoder.predict(samples, batch_size=256, verbose=0)
