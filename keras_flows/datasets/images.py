"""Pipelines of images and labels: tfds, folders, and EDM's zip files.

Each yields (images (B, H, W, C) float32 in [-1, 1], labels (B,) int32), or
(images,) where there are no labels; see `Batches` for order, workers and
resuming. Needs `pip install 'keras_flows[data]'`.
"""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.datasets.batches import Batches
from keras_flows.datasets.batches import stack
from keras_flows.datasets.sources import EdmSource
from keras_flows.datasets.sources import FolderSource
from keras_flows.datasets.sources import TfdsSource
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike


@checked(image=given.plain_array, size=SIZE)
def center_crop(image: ArrayLike, size: int) -> Array:
    """The central square, resized to `size` pixels a side, as ADM does it.

    Halves the image by box filter while its shorter side is at least twice
    `size`, makes that side `size` by bicubic filter, and crops the middle
    (`center_crop_arr` of openai/guided-diffusion, arXiv 2105.05233).

    Args:
        image: (H, W, C) uint8, C = 1 or 3.
        size: int.

    Returns:
        (size, size, C) uint8.
    """
    if image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
        raise ValueError(
            "`image` must be (H, W, C) of 1 or 3 channels. Received: "
            f"{image.shape}."
        )
    if image.dtype != np.uint8:
        raise ValueError(f"`image` must be uint8. Received: {image.dtype}.")
    pillow = needed("PIL.Image", "Pillow")
    filters = pillow.Resampling
    grey = image.shape[-1] == 1
    picture = pillow.fromarray(image[..., 0] if grey else image)
    while min(picture.size) >= 2 * size:
        halves = tuple(side // 2 for side in picture.size)
        picture = picture.resize(halves, filters.BOX)
    scale = size / min(picture.size)
    sides = tuple(round(side * scale) for side in picture.size)
    pixels = np.asarray(picture.resize(sides, filters.BICUBIC))
    top = (pixels.shape[0] - size) // 2
    left = (pixels.shape[1] - size) // 2
    pixels = pixels[top : top + size, left : left + size]
    return pixels[..., None] if grey else pixels


class ImageTransform:
    """A record to (image in [-1, 1], label): crop, colours, flip, scale.

    Args:
        image_size: pixels a side, or None for the image as it is.
        flip: whether half of the images are mirrored.
        rgb: whether grey images get three equal channels.
        max_value: the value that becomes 1; 0 becomes -1.
    """

    def __init__(self, image_size=None, flip=False, rgb=False, max_value=255):
        if image_size is not None and (
            type(image_size) is not int or image_size < 1
        ):
            raise ValueError(
                "`image_size` must be an int of at least 1, or None. "
                f"Received: {image_size!r}."
            )
        self.image_size = image_size
        self.flip = flip
        self.rgb = rgb
        self.max_value = max_value

    def pixels(self, pixels):
        """(H, W, C) uint8, cropped and of the colours that are asked for."""
        if pixels.dtype != np.uint8 or pixels.ndim != 3:
            raise ValueError(
                "An image must be (H, W, C) of dtype uint8. Received: "
                f"{pixels.shape} of {pixels.dtype}."
            )
        if self.image_size is not None:
            pixels = center_crop(pixels, self.image_size)
        if self.rgb and pixels.shape[-1] == 1:
            pixels = np.repeat(pixels, 3, axis=-1)
        return pixels

    def _scaled(self, pixels):
        """uint8 to float32 of -1 to 1."""
        pixels = pixels.astype(np.float32)
        pixels *= np.float32(2.0 / self.max_value)
        pixels -= np.float32(1.0)
        return pixels

    def image(self, pixels):
        """(H, W, C) uint8 to (H', W', C') float32."""
        return self._scaled(self.pixels(pixels))

    def batch(self, examples):
        """The same of many: the numbers are made of the whole batch at once."""
        rows = []
        for record, rng in examples:
            pixels = self.pixels(record["image"])
            mirrored = self.flip and rng().random() < 0.5
            rows.append(pixels[:, ::-1] if mirrored else pixels)
        images = self._scaled(stack(rows))
        if "label" not in examples[0][0]:
            return (images,)
        labels = [record["label"] for record, _ in examples]
        return images, np.array(labels, "int32")

    def __call__(self, record, rng):
        image = self.image(record["image"])
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if "label" not in record:
            return (image,)
        return image, np.int32(record["label"])


@checked(
    batch_size=SIZE,
    image_size=Optional(SIZE),
    flip=FLAG,
    rgb=FLAG,
    max_value=SIZE,
)
def from_tfds(
    name: str,
    split: str,
    batch_size: int,
    image_size: int | None = None,
    *,
    flip: bool = False,
    rgb: bool = False,
    max_value: int = 255,
    data_dir: PathLike | None = None,
    image_key: str = "image",
    label_key: str | None = "label",
    **batching: Any,
) -> Batches:
    """Images of a TensorFlow Datasets set, read without TensorFlow.

    `imagenet2012`, `cifar10`, `mnist` or any set with an image and a label.
    It must be prepared in a format with random access, which this does at the
    first call: `file_format="array_record"`.

    Args:
        name: name of the set.
        split: e.g. "train".
        batch_size: rows of a batch.
        image_size: pixels a side after `center_crop`; None for as they are.
        flip: whether half of the images are mirrored.
        rgb: whether grey images get three equal channels.
        max_value: the value that becomes 1.
        data_dir: folder of the prepared sets, tfds's own by default.
        image_key: the feature that is the image.
        label_key: the feature that is the label, or None.
        **batching: `shuffle`, `repeat`, `seed`, ... of `Batches`.
    """
    return Batches(
        TfdsSource(name, split, data_dir, image_key, label_key),
        batch_size,
        ImageTransform(image_size, flip, rgb, max_value),
        **batching,
    )


@checked(batch_size=SIZE, image_size=Optional(SIZE), flip=FLAG, rgb=FLAG)
def from_image_folder(
    path: PathLike,
    batch_size: int,
    image_size: int | None = None,
    *,
    flip: bool = False,
    rgb: bool = False,
    class_file: PathLike | None = None,
    **batching: Any,
) -> Batches:
    """Images of a folder for each class, or of one folder without labels.

    Args:
        path: the folder.
        batch_size: rows of a batch.
        image_size: pixels a side after `center_crop`; None for as they are.
        flip: whether half of the images are mirrored.
        rgb: whether grey images get three equal channels.
        class_file: JSON file that keeps the sorted class list; see
            `FolderSource`.
        **batching: `shuffle`, `repeat`, `seed`, ... of `Batches`.
    """
    return Batches(
        FolderSource(path, class_file),
        batch_size,
        ImageTransform(image_size, flip, rgb),
        **batching,
    )


@checked(batch_size=SIZE, image_size=Optional(SIZE), flip=FLAG, rgb=FLAG)
def from_edm_zip(
    path: PathLike,
    batch_size: int,
    image_size: int | None = None,
    *,
    flip: bool = False,
    rgb: bool = False,
    **batching: Any,
) -> Batches:
    """Images of a zip or folder that EDM's `dataset_tool.py` wrote.

    Args:
        path: zip file or folder.
        batch_size: rows of a batch.
        image_size: pixels a side after `center_crop`; None for as they are.
        flip: whether half of the images are mirrored.
        rgb: whether grey images get three equal channels.
        **batching: `shuffle`, `repeat`, `seed`, ... of `Batches`.
    """
    return Batches(
        EdmSource(path),
        batch_size,
        ImageTransform(image_size, flip, rgb),
        **batching,
    )
