"""A metric at several numbers of network calls."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_flows.ops import given
from keras_flows.ops.bars import Bar
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked


@checked(
    model=given.MODEL,
    metric=given.function,
    num_samples=SIZE,
    batch_size=SIZE,
    progress=FLAG,
)
def by_calls(
    model: Any,
    metric: Callable[[np.ndarray], float],
    num_steps: Sequence[int] = (1, 2, 4, 8),
    *,
    num_samples: int = 10_000,
    batch_size: int = 1000,
    progress: bool = False,
    **options: Any,
) -> dict[int, float]:
    """The metric of a model's samples at each number of steps.

    ```python
    board = kf.datasets.Checkerboard()
    model = kf.from_preset("lsd_checkerboard")
    kf.metrics.by_calls(model, kf.metrics.HistogramKL(board))
    ```

    Args:
        model: what samples by `generate`.
        metric: function of samples (n, ...), NumPy, to a number.
        num_steps: numbers of steps.
        num_samples: how many samples each is of.
        batch_size: samples at once.
        progress: whether to show a bar.
        options: of `generate`; the seed is 0 unless given, the same noise at
            every number of steps.

    Returns:
        {steps: value}.
    """
    options = {"seed": 0} | options
    found = {}
    bar = Bar(len(num_steps), "measure", progress)
    for steps in num_steps:
        samples = model.generate(
            num_samples, num_steps=steps, batch_size=batch_size, **options
        )
        found[int(steps)] = float(metric(keras.ops.convert_to_numpy(samples)))
        bar.advance()
    return found
