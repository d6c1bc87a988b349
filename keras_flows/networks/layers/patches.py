"""Images as tokens, one for each patch, and their positions."""

import functools

import numpy as np
from keras import layers
from keras import ops

from keras_flows.ops import register


def patch_grid(image_shape, patch_size):
    """(rows, columns) of the patches of an image (H, W, C)."""
    if len(image_shape) != 3:
        raise ValueError(
            "`image_shape` must be (height, width, channels). "
            f"Received: {image_shape!r}."
        )
    height, width, _ = image_shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"`patch_size` ({patch_size}) must divide the image's height and "
            f"width ({height} x {width}); pad or resize the images, or "
            "choose another patch size."
        )
    return height // patch_size, width // patch_size


@register
class Patchify(layers.Layer):
    """Image to tokens: (B, H, W, C) -> (B, H W / p^2, p^2 C)."""

    def __init__(self, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, x):
        _, height, width, channels = x.shape
        p = self.patch_size
        rows, columns = height // p, width // p
        x = ops.reshape(x, (-1, rows, p, columns, p, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, rows * columns, p * p * channels))

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


@register
class Unpatchify(layers.Layer):
    """Tokens to image: (B, H W / p^2, p^2 C) -> (B, H, W, C)."""

    def __init__(self, patch_size, image_shape, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.image_shape = tuple(image_shape)

    def call(self, x):
        height, width, channels = self.image_shape
        p = self.patch_size
        x = ops.reshape(x, (-1, height // p, width // p, p, p, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height, width, channels))

    def get_config(self):
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "image_shape": self.image_shape,
        }


def sincos_positions(rows, columns, dim):
    """Fixed 2-D sine-cosine embedding, (rows * columns, dim), float64.

    The first half of the features is of the column, the second of the row,
    each [sin(w_k p), cos(w_k p)] with w_k = 10000^(-k / (dim / 4)): the order
    of MAE and of every DiT since.

    Args:
        rows: number of rows of patches.
        columns: number of columns of patches.
        dim: size of the embedding, a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            "A sine-cosine embedding of two coordinates needs a width that "
            f"4 divides. Received: {dim!r}."
        )
    frequencies = 10_000.0 ** (-np.arange(dim // 4) / (dim // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [p[:, None] * frequencies for p in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], 1)


# Once for all calls of a network that runs operator by operator.
_positions = functools.lru_cache(8)(sincos_positions)


@register
class SinCosPositions(layers.Layer):
    """Adds the fixed sine-cosine embedding of a grid of patches."""

    def __init__(self, rows, columns, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
        self.columns = columns

    def call(self, x):
        table = _positions(self.rows, self.columns, x.shape[-1])
        return x + ops.convert_to_tensor(table, dtype=x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "rows": self.rows,
            "columns": self.columns,
        }
