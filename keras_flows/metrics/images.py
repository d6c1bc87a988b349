"""Images on the host: their checks, 8 bits, resizing, and ADM's files."""

from __future__ import annotations

import typing

import numpy as np
from keras import ops

from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike


def check_images(images, channels=3, grey_to_rgb=False, name="images"):
    """Images as float32 NumPy, or an error that says what to do.

    Args:
        images: (B, H, W, channels), floats in [-1, 1].
        channels: number of channels that must be there.
        grey_to_rgb: whether one channel is repeated to three.
        name: what messages call them.

    Raises:
        ValueError: if they are integers, not finite, outside [-1, 1] or of
            another shape.
    """
    images = given.plain_array(name, images)
    if images.ndim != 4:
        raise ValueError(
            f"`{name}` must have the shape (B, height, width, channels). "
            f"Received: {images.shape}."
        )
    if images.dtype.kind in "iub":
        raise ValueError(
            f"`{name}` must be floats in [-1, 1]. Received: "
            f"{images.dtype}; convert 8 bits by kf.metrics.to_float."
        )
    images = images.astype("float32")
    if grey_to_rgb and images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    if images.shape[-1] != channels:
        remedy = "channels come last"
        if channels == 3 and images.shape[-1] == 1:
            remedy = (
                "grey images are repeated to three channels only if the "
                "extractor is made with grey_to_rgb=True"
            )
        raise ValueError(
            f"`{name}` must have {channels} channels. Received the shape "
            f"{images.shape}; {remedy}."
        )
    if not np.isfinite(images).all():
        raise ValueError(
            f"`{name}` hold NaN or infinity: find where it arose; no metric "
            "is defined for such samples."
        )
    low, high = (images.min(), images.max()) if images.size else (0, 0)
    # A float32 rounding beyond the range is none of the caller's doing.
    if max(-low, high) > 1.0 + 1e-6:
        raise ValueError(
            f"`{name}` must lie in [-1, 1]. Received: [{low:.4g}, "
            f"{high:.4g}]; clip samples by np.clip(images, -1, 1), scale "
            "8 bits by kf.metrics.to_float."
        )
    return images


@checked(images=given.plain_array)
def to_uint8(images: ArrayLike) -> Array:
    """8-bit images: floor(127.5 x + 128) of [-1, 1], clipped (EDM, SiT)."""
    images = images.astype("float32")
    if not np.isfinite(images).all():
        raise ValueError("`images` hold NaN or infinity; they have no 8 bits.")
    return np.clip(np.floor(images * 127.5 + 128.0), 0, 255).astype("uint8")


@checked(images=given.plain_array)
def to_float(images: ArrayLike) -> Array:
    """Images in [-1, 1] of 8-bit ones: x / 127.5 - 1, float32."""
    if images.dtype != np.uint8:
        raise ValueError(f"`images` must be uint8. Received: {images.dtype}.")
    return images.astype("float32") / np.float32(127.5) - np.float32(1.0)


def _corners(length, size):
    """Lower and upper neighbours and the upper one's weight, each (size,)."""
    place = np.arange(size, dtype="float32") * np.float32(length / size)
    lower = np.floor(place).astype("int32")
    upper = np.minimum(lower + 1, length - 1)
    return lower, upper, place - lower.astype("float32")


def resize_tf1(images, size):
    """Bilinear resize as TensorFlow 1 did it, which the FID's graph holds.

    Output pixel i lies at i * length / size: the corners are not aligned and
    pixels have no half-pixel centres; no antialiasing.

    Args:
        images: tensor (B, H, W, C).
        size: height and width of the result.
    """
    for axis in (2, 1):
        lower, upper, weight = _corners(images.shape[axis], size)
        low = ops.take(images, lower, axis=axis)
        high = ops.take(images, upper, axis=axis)
        weight = weight.reshape((-1,) + (1,) * (3 - axis))
        images = low + (high - low) * ops.convert_to_tensor(weight)
    return images


def open_npz(path):
    """An .npz file, to read.

    Raises:
        ValueError: if `path` is no such file.
    """
    try:
        file = np.load(path)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`path` {str(path)!r} is no .npz file: {error}."
        ) from error
    if not hasattr(file, "files"):
        raise ValueError(f"`path` {str(path)!r} is no .npz file.")
    return file


def write_npz(path, **arrays):
    """Write arrays to `path` as .npz: all of it, or nothing."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


@checked(path=given.path_of, samples=given.plain_array)
def save_adm_npz(
    path: PathLike, samples: ArrayLike, labels: ArrayLike | None = None
) -> None:
    """Write samples for ADM's evaluator (openai/guided-diffusion).

    `arr_0` holds the images, uint8 (n, height, width, 3), and `arr_1` the
    labels (n,). The file appears whole or not at all.

    Args:
        path: file to write.
        samples: (n, height, width, channels), uint8, or floats in [-1, 1].
        labels: integers (n,), or None.

    Raises:
        ValueError: if shape, range or dtype of either is another.
    """
    if samples.ndim != 4 or samples.shape[-1] not in (1, 3):
        raise ValueError(
            "`samples` must have the shape (n, height, width, channels) with "
            f"1 or 3 channels. Received: {samples.shape}."
        )
    if samples.dtype != np.uint8:
        samples = to_uint8(
            check_images(samples, samples.shape[-1], name="samples")
        )
    arrays = {"arr_0": samples}
    if labels is not None:
        labels = given.plain_array("labels", labels)
        if labels.shape != samples.shape[:1] or labels.dtype.kind not in "iu":
            raise ValueError(
                f"`labels` must be integers of shape {samples.shape[:1]}. "
                f"Received: {labels.dtype} {labels.shape}."
            )
        arrays["arr_1"] = labels.astype("int64")
    write_npz(path, **arrays)


@checked(path=given.path_of)
def load_adm_npz(path: PathLike) -> Any:
    """(images uint8 (n, H, W, C), labels (n,) or None) of an ADM file.

    The `mu` and `sigma` of ADM's and EDM's reference files are read by
    `GaussianStatistics.load`.

    Raises:
        ValueError: if the file holds no images.
    """
    with open_npz(path) as file:
        if "arr_0" not in file.files:
            raise ValueError(
                f"{str(path)!r} holds no samples (`arr_0`) but "
                f"{sorted(file.files)}; statistics (`mu`, `sigma`) are read "
                "by kf.metrics.GaussianStatistics.load."
            )
        labels = file["arr_1"] if "arr_1" in file.files else None
        return file["arr_0"], labels
