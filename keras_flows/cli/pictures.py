"""Samples in the data's own units, and files of them."""

import keras
import numpy as np

from keras_flows import plot
from keras_flows.ops.files import replacing


def samples_of(model, scale, num_samples=None, **options):
    """Samples (n, ...) as NumPy, `--standardize` undone.

    Args:
        model: a `Generator`.
        scale: None, or {"mean", "std"} of the data.
        num_samples: see `generate`.
        options: of `generate`.
    """
    options = {"seed": 0, "batch_size": 1000, "progress": True} | options
    samples = model.generate(num_samples, **options)
    return unscaled(keras.ops.convert_to_numpy(samples), scale)


def unscaled(samples, scale):
    """Samples in the units that `--standardize` took them from."""
    if scale is None:
        return samples
    mean, std = (np.asarray(scale[k], "float32") for k in ("mean", "std"))
    return samples * std + mean


def write(path, samples):
    """A picture, .png, or the array itself, .npy or .npz.

    Raises:
        ValueError: if there is no picture of such samples.
    """
    suffix = str(path).rpartition(".")[2]
    if suffix == "png":
        plot.samples(samples, path)
        return
    if suffix not in ("npy", "npz"):
        raise ValueError(
            f"--out={path} must end in .png, .npy or .npz: what is to be "
            "written?"
        )
    with replacing(path) as temporary, temporary.open("wb") as file:
        if suffix == "npy":
            np.save(file, samples)
        else:
            np.savez(file, samples=samples)
