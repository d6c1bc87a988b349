"""The 2-D checkerboard: sharp edges and many modes, known in closed form."""

from __future__ import annotations

import typing

import keras
import numpy as np

from keras_flows.ops import given
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike


class Checkerboard:
    """Uniform on every other cell of a 4 x 4 board on [-extent, extent]^2.

    The kept cells are those with (i + j) even, i and j counted from the
    lower left. Area of the support: half of the square.

    Args:
        extent: half width of the board.
        cells: cells per side, even.
    """

    @checked(extent=POSITIVE, cells=SIZE)
    def __init__(self, extent: float = 2.0, cells: int = 4) -> None:
        if cells % 2:
            raise ValueError(
                "`cells` must be an even number of at least 2. "
                f"Received: {cells!r}."
            )
        self.extent = extent
        self.cells = cells

    def sample(
        self, num: int, seed: int | np.random.Generator | None = None
    ) -> Array:
        """(num, 2) float32 samples; `seed` an int, Generator or None."""
        return self.sample_labelled(num, seed)[0]

    @checked(num=COUNT)
    def sample_labelled(
        self, num: int, seed: int | np.random.Generator | None = None
    ) -> tuple[Array, Array]:
        """((num, 2) float32 samples, (num,) int32 numbers of their cells)."""
        rng = generator(seed)
        half = self.cells // 2
        label = rng.integers(0, self.cells * half, num)
        i = label // half
        j = 2 * (label % half) + i % 2
        corner = np.stack([i, j], axis=1)
        u = rng.random((num, 2))
        side = 2.0 * self.extent / self.cells
        x = (corner + u) * side - self.extent
        return x.astype("float32"), label.astype("int32")

    @checked(points=given.of(given.array, last=2))
    def density(self, points: ArrayLike) -> Array:
        """Exact density at points (..., 2)."""
        side = 2.0 * self.extent / self.cells
        index = np.floor((np.asarray(points) + self.extent) / side)
        inside = np.all((index >= 0) & (index < self.cells), axis=-1)
        kept = inside & (index.sum(axis=-1) % 2 == 0)
        return kept / (0.5 * (2.0 * self.extent) ** 2)


def generator(seed):
    """A NumPy generator of a seed, or the generator itself."""
    if isinstance(seed, np.random.Generator):
        return seed
    return np.random.Generator(np.random.Philox(SEED("seed", seed)))


def check_data(data, method="sample"):
    """Refuse what does not draw samples."""
    if not callable(getattr(data, method, None)):
        raise ValueError(
            f"`data` must have a method `{method}(num, seed)`, as "
            f"kf.datasets.Checkerboard has. Received: {type(data).__name__}."
        )


class Endless(keras.utils.PyDataset):
    """Fresh batches of a synthetic data set without end.

    Batch i is a function of (seed, i) alone, so that a run can resume where
    it was. Train with `fit(dataset, steps_per_epoch=...)`.

    Args:
        data: an object with `sample(num, seed)`, of x or of a batch's
            parts, such as (x, condition); the seed is a NumPy generator.
        batch_size: rows of a batch.
        seed: int.
        labelled: whether batches are those of `sample_labelled(num, seed)`,
            (x, labels), such as `Scenes` and `Checkerboard` have.
    """

    # `fit` keeps Keras from shuffling, of which it would warn.
    ordered = True

    @checked(batch_size=SIZE, seed=SEED, labelled=FLAG)
    def __init__(
        self,
        data: Any,
        batch_size: int,
        seed: int | None = 0,
        labelled: bool = False,
    ) -> None:
        super().__init__()
        method = "sample_labelled" if labelled else "sample"
        check_data(data, method)
        self.data = data
        self.batch_size = batch_size
        self.seed = seed
        self.labelled = labelled
        self._draw = getattr(data, method)

    @property
    def num_batches(self) -> int | None:
        return None

    def __getitem__(self, index):
        stream = np.random.Philox(key=self.seed, counter=[0, 0, index, 0])
        batch = self._draw(self.batch_size, np.random.Generator(stream))
        return batch if isinstance(batch, tuple) else (batch,)
