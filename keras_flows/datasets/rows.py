"""Arrays as a data set to draw from."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.datasets.checkerboard import generator
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any


class Rows:
    """Rows of arrays in memory, drawn with replacement.

    ```python
    x = np.random.default_rng(0).standard_normal((100, 2), dtype="float32")
    batches = kf.datasets.Endless(kf.datasets.Rows(x), batch_size=16)
    ```

    Args:
        arrays: x (n, ...), and what goes with it, a condition (n, ...) say.

    Raises:
        ValueError: if they have other numbers of rows, or none.
    """

    def __init__(self, *arrays: np.ndarray) -> None:
        lengths = {len(array) for array in arrays}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "`arrays` must have as many rows, at least one. Received: "
                f"{[np.shape(array) for array in arrays]}."
            )
        self.arrays = arrays

    @checked(num=COUNT)
    def sample(self, num: int, seed: int | np.random.Generator = 0) -> Any:
        """x (num, ...), or a tuple of as many arrays as there are."""
        rows = generator(seed).integers(len(self.arrays[0]), size=num)
        drawn = tuple(array[rows] for array in self.arrays)
        return drawn if len(drawn) > 1 else drawn[0]
