"""Grids of sampled images, as PNG files and for TensorBoard."""

from __future__ import annotations

import os
import typing

import keras

from keras_flows.callbacks.every import Every
from keras_flows.ops import given
from keras_flows.ops.pictures import image_grid
from keras_flows.ops.pictures import write_image
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import PathLike


class SampleGrid(Every):
    """Writes a grid of samples every so many steps.

    Files are named samples_00001000.png, by the step.

    Args:
        folder: where the pictures go.
        every: number of training steps.
        columns, scale: see `image_grid`.
        decode: function from samples to images in [-1, 1], such as a VAE's
            decoder; by default none.
        tensorboard: folder of a TensorBoard log that gets the pictures too.
        **generate: arguments of `generate`, say num_samples=16, condition=...
            and num_steps=...

    Raises:
        ImportError: if `tensorboard` is given and TensorFlow is missing.
    """

    @checked(
        folder=given.path_of,
        columns=Optional(SIZE),
        scale=SIZE,
        decode=given.of(given.function, none=True),
        tensorboard=given.of(given.path_of, none=True),
    )
    def __init__(
        self,
        folder: PathLike,
        every: int,
        *,
        columns: int | None = None,
        scale: float = 1,
        decode: Callable[..., Any] | None = None,
        tensorboard: PathLike | None = None,
        **generate: Any,
    ) -> None:
        super().__init__(every, generate)
        self.folder = folder
        self.columns, self.scale, self.decode = columns, scale, decode
        self._summary = None
        if tensorboard is not None:
            self._summary = _summary_writer(tensorboard)

    def run(self, step: int) -> None:
        """Sample and write."""
        samples = self.samples()
        if self.decode is not None:
            samples = keras.ops.convert_to_numpy(self.decode(samples))
        picture = image_grid(samples, self.columns, self.scale)
        write_image(self.folder / f"samples_{step:08d}.png", picture)
        if self._summary is not None:
            self._summary(step, picture)


def _summary_writer(folder):
    """Function (step, picture) that writes to a TensorBoard log."""
    try:
        from tensorboard.compat.proto import summary_pb2
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError as error:
        raise ImportError(
            "`tensorboard` needs the package of that name: "
            "pip install tensorboard"
        ) from error
    import io
    import time

    from PIL import Image

    writer = EventFileWriter(os.fspath(folder))

    def write(step, picture):
        data = io.BytesIO()
        Image.fromarray(picture.squeeze()).save(data, format="PNG")
        image = summary_pb2.Summary.Image(
            height=picture.shape[0],
            width=picture.shape[1],
            colorspace=picture.shape[2],
            encoded_image_string=data.getvalue(),
        )
        summary = summary_pb2.Summary(
            value=[summary_pb2.Summary.Value(tag="samples", image=image)]
        )
        writer.add_event(
            Event(wall_time=time.time(), step=step, summary=summary)
        )
        writer.flush()

    return write
