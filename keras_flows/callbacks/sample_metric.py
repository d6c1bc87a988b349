"""A metric of samples during training."""

from __future__ import annotations

import json
import typing

from keras_flows.callbacks.every import Every
from keras_flows.ops import given
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import PathLike


class SampleMetric(Every):
    """Measures samples every so many steps.

    The latest value is in the epoch's logs under `name`, for
    `ModelCheckpoint(monitor=name)` and the history; every value is a line of
    `file`.

    Args:
        metric: function of samples to a float, such as a `FrechetDistance`
            or a `HistogramKL`.
        every: number of training steps.
        name: name of the value in the logs.
        file: path of a JSON-lines file, or None.
        **generate: arguments of `generate`, say num_samples=1000 and
            batch_size=...
    """

    @checked(
        metric=given.function,
        name=given.text,
        file=given.of(given.path_of, none=True),
    )
    def __init__(
        self,
        metric: Callable[..., float],
        every: int,
        *,
        name: str = "fd",
        file: PathLike | None = None,
        **generate: Any,
    ) -> None:
        super().__init__(every, generate)
        self.metric = metric
        self.name = name
        self.file = file
        self.values = []

    def run(self, step: int) -> None:
        """Sample, measure, record."""
        value = float(self.metric(self.samples()))
        self.values.append((step, value))
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a") as file:
                file.write(json.dumps({"step": step, self.name: value}) + "\n")

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        if self.values and logs is not None:
            logs[self.name] = self.values[-1][1]
