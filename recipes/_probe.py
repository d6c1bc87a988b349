"""The probe of recipes/images.py: a network that reads an image's factors.

It learns from the training images, and judges samples: how many of them have
each factor that was asked for, how far its features are from those of real
images. Without labels to learn, or with one class alone, it learns by how many
quarter turns an image is turned (RotNet, arXiv 1803.07728); the share of
samples that it finds upright is then the accuracy.
"""

import keras
import numpy as np
from keras import layers

import keras_flows as kf
from keras_flows.ops.files import replacing

BATCH_SIZE = 128
TURNS = {"upright": 4}


def factors_of(data):
    """The numbers of classes, by name, of what the probe reads."""
    several = {k: n for k, n in data.factors.items() if n > 1}
    return several or TURNS


def as_rows(data, labels, num):
    """Labels of the factors, (num, factors) int32; 0 for upright images."""
    factors = factors_of(data)
    if factors is TURNS:
        return np.zeros((num, 1), "int32")
    if isinstance(labels, dict):
        return np.stack([labels[name] for name in factors], axis=-1)
    return np.asarray(labels)[:, None]


def network(shape, units):
    """A small convolutional classifier, its features 64 numbers."""
    inputs = keras.Input(shape)
    x = inputs
    for i, (filters, strides) in enumerate([(32, 2), (64, 2), (64, 1)]):
        x = layers.Conv2D(
            filters, 3, strides, "same", activation="gelu", name=f"conv_{i}"
        )(x)
    x = layers.Dropout(0.2)(layers.Flatten()(x))
    x = layers.Dense(64, "gelu", name="features")(x)
    x = layers.Dense(units, name="logits")(layers.Dropout(0.1)(x))
    return keras.Model(inputs, x, name="probe")


def token_encoder(model, grid):
    """The probe's last convolution as grid x grid tokens, for REPA."""
    x = model.get_layer("conv_2").output
    x = layers.Resizing(grid, grid)(x)
    tokens = layers.Reshape((grid * grid, x.shape[-1]))(x)
    encoder = keras.Model(model.input, tokens, name="probe_tokens")
    encoder.trainable = False
    return encoder


class Probe:
    """The probe of a data set, trained, or from `path` if it is there.

    Args:
        data: of `_image_data`.
        path: of its .keras file.
        steps: steps of its training.
        seed: of weights and batches.
    """

    def __init__(self, data, path, steps, seed):
        self.data, self.factors = data, factors_of(data)
        if path.exists():
            self.model = keras.saving.load_model(path)
        else:
            self.model = self._trained(steps, seed)
            with replacing(path) as temporary:
                self.model.save(temporary)
        self.extractor = kf.metrics.ClassifierFeatures(
            self.model, batch_size=500
        )

    def _trained(self, steps, seed):
        keras.utils.set_random_seed(seed)
        model = network(self.data.shape, sum(self.factors.values()))
        rate = keras.optimizers.schedules.CosineDecay(2e-3, steps)
        model.compile(keras.optimizers.AdamW(rate), self._loss)
        model.fit(self._batches(seed), steps_per_epoch=steps, verbose=0)
        model.compile()  # without the loss, which no file can hold
        return model

    def _loss(self, labels, logits):
        return sum(
            keras.losses.sparse_categorical_crossentropy(
                labels[:, k], part, from_logits=True
            )
            for k, part in enumerate(self._parts(logits))
        )

    def _parts(self, logits):
        """The logits of each factor."""
        ends = np.cumsum([0, *self.factors.values()])
        return [
            logits[:, a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)
        ]

    def _batches(self, seed):
        rng = np.random.default_rng(seed)
        for images, *labels in self.data.batches(BATCH_SIZE, seed):
            if self.factors is TURNS:
                turns = rng.integers(0, 4, len(images))
                images = np.stack(
                    [np.rot90(x, k) for x, k in zip(images, turns, strict=True)]
                )
                yield images, turns[:, None]
                continue
            if self.data.training is not None:
                # Few images: each is seen in more than one place.
                images = np.roll(images, rng.integers(-2, 3, 2), axis=(1, 2))
            yield images, as_rows(self.data, *labels, len(images))

    def read(self, images):
        """Features (n, 64), and the labels seen, (n, factors)."""
        parts = [
            self.extractor(images[i : i + 500])
            for i in range(0, len(images), 500)
        ]
        features, logits = (
            np.concatenate([np.asarray(part[key]) for part in parts])
            for key in ("features", "logits")
        )
        seen = [part.argmax(axis=-1) for part in self._parts(logits)]
        return features, np.stack(seen, axis=-1)


class Judge:
    """What a set of samples is worth, against a reference of real images.

    Args:
        probe: a `Probe`.
        reference: real images that were not trained on.
    """

    def __init__(self, probe, reference):
        self.probe, self.data = probe, probe.data
        self.features, _ = probe.read(reference)
        self.statistics = kf.metrics.GaussianStatistics(
            self.features.shape[-1]
        ).update(self.features)

    def __call__(self, images, labels):
        """A dict of numbers: "fd", "precision", "recall", "accuracy" (a dict
        by factors), and where there are training images "nearest"."""
        features, seen = self.probe.read(images)
        own = kf.metrics.GaussianStatistics(features.shape[-1])
        both = kf.metrics.precision_recall(
            self.features[: len(features)], features
        )
        right = seen == as_rows(self.data, labels, len(images))
        found = {
            "fd": kf.metrics.frechet_distance(
                own.update(features), self.statistics
            ),
            "precision": both["precision"],
            "recall": both["recall"],
            "accuracy": dict(
                zip(self.probe.factors, right.mean(axis=0), strict=True)
            ),
        }
        if self.data.training is not None:
            near = nearest(images, self.data.training)
            found["nearest"] = float(np.median(near))
        return keras.tree.map_structure(float, found)


def nearest(x, others):
    """Root mean square distance of each image to its nearest other."""
    x, others = (a.reshape(len(a), -1).astype("float64") for a in (x, others))
    square = (
        np.sum(x**2, 1)[:, None] + np.sum(others**2, 1) - 2.0 * x @ others.T
    )
    return np.sqrt(np.maximum(square.min(axis=1), 0.0) / x.shape[1])


def summary(draws):
    """The mean of each number over draws, and that of "fd" with its range."""
    fds = [draw["fd"] for draw in draws]
    mean = keras.tree.map_structure(lambda *a: float(np.mean(a)), *draws)
    return {**mean, "fd_range": [min(fds), max(fds)], "draws": len(draws)}
