"""Scikit-learn's digits: 1,797 real 8 x 8 images that need no download."""

import numpy as np

# Test and validation images; the rest trains.
SPLITS = {"test": (0, 400), "validation": (400, 600), "train": (600, 1797)}


def raw_digits(split):
    """(images (n, 8, 8, 1) uint8 of 0 to 16, labels (n,) int32) of a split.

    The splits are disjoint parts of one fixed permutation: "train" 1,197,
    "validation" 200 and "test" 400 images.

    Raises:
        ValueError: if there is no such split.
        ImportError: if scikit-learn is not installed.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise ValueError(
            f"`split` must be one of {sorted(SPLITS)}. Received: {split!r}."
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn: pip install scikit-learn"
        ) from error
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    part = order[slice(*SPLITS[split])]
    images = bunch.images[part].astype("uint8")[..., None]
    return images, bunch.target[part].astype("int32")


def digits(split):
    """(images (n, 8, 8, 1) float32 in [-1, 1], labels (n,) int32)."""
    images, labels = raw_digits(split)
    return images.astype("float32") / 8.0 - 1.0, labels
