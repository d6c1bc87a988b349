"""Pictures as arrays, and files of them."""

from __future__ import annotations

import math
import typing

import keras
import numpy as np

from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike


@checked(images=given.array, columns=Optional(SIZE), scale=SIZE, border=COUNT)
def image_grid(
    images: ArrayLike,
    columns: int | None = None,
    scale: float = 1,
    border: int = 1,
) -> Array:
    """(n, H, W, C) in [-1, 1] as one uint8 picture (rows, columns, C).

    Args:
        images: array; values outside [-1, 1] are clipped.
        columns: images in a row, by default about as many as rows.
        scale: side of the square that a pixel becomes.
        border: white pixels between images.
    """
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(
            "`images` must be (n, height, width, 1 or 3). Received shape "
            f"{images.shape}; decode latents first."
        )
    n, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    rows = math.ceil(n / columns)
    pixels = np.clip(np.round((images + 1.0) * 127.5), 0, 255).astype("uint8")
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    step = np.array([height * scale + border, width * scale + border])
    shape = step * [rows, columns] + border
    picture = np.full((*shape, channels), 255, "uint8")
    for i, image in enumerate(pixels):
        top, left = step * divmod(i, columns) + border
        picture[top : top + image.shape[0], left : left + image.shape[1]] = (
            image
        )
    return picture


@checked(path=given.path_of, picture=given.plain_array)
def write_image(path: PathLike, picture: ArrayLike) -> None:
    """Write a uint8 picture under a temporary name, then rename it."""
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise ValueError(
            "`picture` must be (height, width, 1 or 3). Received shape "
            f"{picture.shape}."
        )
    with replacing(path) as temporary:
        keras.utils.save_img(temporary, picture, file_format="png", scale=False)
