"""Pictures of samples in one line: points, images, chunks of actions.

Each function returns a matplotlib figure, which a notebook shows by itself, and
writes it where `path` is given. No display is needed.
"""

from __future__ import annotations

import math
import typing

import numpy as np

from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.pictures import image_grid
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure

    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike

__all__ = ["chunks", "grid", "points", "samples"]

# Panels of `chunks`: more are not read.
MOST = 8


def _figure(**options):
    """A figure that belongs to no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "`keras_flows.plot` needs matplotlib: pip install matplotlib"
        ) from error
    return Figure(layout="constrained", **options)


def _written(figure, path):
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=100, format="png")
    return figure


def _named(name, samples, check):
    """{title: checked array} of one array or a dict of several."""
    samples = samples if isinstance(samples, dict) else {"": samples}
    if not samples:
        raise ValueError(
            f"`{name}` must hold an array. Received an empty dict."
        )
    return {str(title): check(name, x) for title, x in samples.items()}


@checked(
    path=given.of(given.path_of, none=True),
    extent=Optional(POSITIVE),
    bins=SIZE,
)
def points(
    samples: ArrayLike | Mapping[str, ArrayLike],
    path: PathLike | None = None,
    extent: float | None = None,
    bins: int = 150,
) -> Figure:
    """Histograms of 2-D points, side by side.

    ```python
    board = kf.datasets.Checkerboard()
    model = kf.from_preset("lsd_checkerboard")
    kf.plot.points(
        {"data": board.sample(20_000), "one step": model.generate(20_000)},
        path="board.png",
    )
    ```

    Args:
        samples: array (n, 2), or a dict of title to array.
        path: PNG file to write, or None.
        extent: the pictures show [-extent, extent]^2; by default as far as
            the first array goes.
        bins: squares on a side.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if an array is not (n, 2).
    """
    found = _named("samples", samples, given.of(given.array, ndim=2, last=2))
    if extent is None:
        extent = 1.05 * float(np.abs(next(iter(found.values()))).max())
    figure = _figure(figsize=(3.2 * len(found), 3.4))
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (title, x) in zip(axes, found.items(), strict=True):
        # As bright for 1,000 points as for 100,000.
        counts, *_ = np.histogram2d(
            x[:, 0], x[:, 1], bins=bins, range=[[-extent, extent]] * 2
        )
        axis.imshow(
            counts.T,
            origin="lower",
            cmap="magma",
            extent=[-extent, extent] * 2,
            vmax=max(np.quantile(counts, 0.98), 1.0),
        )
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    return _written(figure, path)


@checked(path=given.of(given.path_of, none=True), columns=Optional(SIZE))
def grid(
    images: ArrayLike, path: PathLike | None = None, columns: int | None = None
) -> Figure:
    """Images in rows.

    Args:
        images: array (n, height, width, 1 or 3) in [-1, 1].
        path: PNG file to write, or None.
        columns: images in a row; by default about as many as rows.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: if the array is of another shape.
    """
    picture = image_grid(images, columns)
    height, width = picture.shape[:2]
    # At least four inches wide, at most eight.
    side = np.clip(max(height, width) / 100.0, 4.0, 8.0)
    scale = side / max(height, width)
    figure = _figure(figsize=(width * scale, height * scale))
    axis = figure.subplots()
    axis.imshow(picture.squeeze(), cmap="gray", vmin=0, vmax=255)
    axis.set_axis_off()
    return _written(figure, path)


@checked(path=given.of(given.path_of, none=True))
def chunks(actions: ArrayLike, path: PathLike | None = None) -> Figure:
    """Chunks of actions over time, a panel for each number of an action.

    Args:
        actions: array (n, horizon, action_dim), such as several
            `predict_chunk`s of one observation: where they part, the policy
            has more than one way.
        path: PNG file to write, or None.

    Returns:
        A matplotlib figure, of the first 8 numbers.

    Raises:
        ValueError: if the array is of another shape.
    """
    x = given.array("actions", actions, ndim=3)
    shown = min(x.shape[-1], MOST)
    columns = min(shown, 4)
    rows = math.ceil(shown / columns)
    figure = _figure(figsize=(3.0 * columns, 2.2 * rows))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    opacity = max(1.0 / math.sqrt(len(x)), 0.1)
    for index, axis in enumerate(axes):
        if index >= shown:
            axis.set_axis_off()
            continue
        axis.plot(x[:, :, index].T, color="tab:blue", alpha=opacity)
        axis.set_title(f"action {index}")
    axes[0].set_xlabel("step")
    return _written(figure, path)


# Samples of `show`, by the rank of one.
SHOWN = {1: 10_000}


def show(model, num_samples, path, options):
    """What `Generator.show` does.

    Args:
        model: the `Generator`.
        num_samples, path, options: of `Generator.show`.
    """
    rows = options.get("condition"), options.get("noise")
    if num_samples is None and all(np.ndim(given) == 0 for given in rows):
        num_samples = SHOWN.get(len(model.sample_shape or (0,)), 16)
    x = model.generate(num_samples, **{"seed": 0} | options)
    return samples(x, path)


@checked(path=given.of(given.path_of, none=True))
def samples(x: ArrayLike, path: PathLike | None = None) -> Figure:
    """The picture that fits the shape: points, images, or curves over time.

    Args:
        x: (n, d), of which the first two numbers are shown; (n, height,
            width, 1 or 3) in [-1, 1]; or (n, length, channels).
        path: PNG file to write, or None.

    Returns:
        A matplotlib figure.

    Raises:
        ValueError: of arrays of another shape.
    """
    found = given.array("x", x)
    if found.ndim == 2 and found.shape[1] > 1:
        return points(found[:, :2], path)
    if found.ndim == 3:
        return chunks(found, path)
    if found.ndim == 4 and found.shape[-1] in (1, 3):
        return grid(found, path)
    raise ValueError(
        "`x` must be points (n, d), series (n, length, channels) or images "
        f"(n, height, width, 1 or 3). Received the shape {found.shape}."
    )
