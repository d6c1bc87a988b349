"""Concentric rings in two dimensions, with exact samples and density."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.datasets.checkerboard import generator
from keras_flows.ops import given
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike


class Rings:
    """Rings of Gaussian thickness: radius ~ N(radii[k], width^2), any angle.

    Every ring has the same share of the mass.

    Args:
        radii: radii of the rings, well above `width`.
        width: standard deviation of a point's distance from its ring.
    """

    @checked(radii=given.of(given.array, ndim=1), width=POSITIVE)
    def __init__(
        self, radii: Sequence[float] = (0.75, 1.75), width: float = 0.08
    ) -> None:
        self.radii = tuple(np.asarray(radii, "float64").tolist())
        if not self.radii or min(self.radii) < 4 * width:
            raise ValueError(
                "`radii` must be one or more numbers, each at least 4 times "
                f"`width`. Received: radii={self.radii}, width={width}."
            )
        self.width = width

    @checked(num=COUNT)
    def sample(
        self, num: int, seed: int | np.random.Generator | None = None
    ) -> Array:
        """(num, 2) float32 samples; `seed` an int, Generator or None."""
        rng = generator(seed)
        radius = np.array(self.radii)[rng.integers(0, len(self.radii), num)]
        radius = radius + self.width * rng.standard_normal(num)
        angle = 2.0 * np.pi * rng.random(num)
        x = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return x.astype("float32")

    @checked(points=given.of(given.array, last=2))
    def density(self, points: ArrayLike) -> Array:
        """Exact density at points (..., 2)."""
        radius = np.linalg.norm(points, axis=-1)
        z = (radius[..., None] - np.array(self.radii)) / self.width
        along = np.exp(-0.5 * z**2) / (self.width * np.sqrt(2.0 * np.pi))
        around = 2.0 * np.pi * np.maximum(radius, 1e-12)
        return along.mean(axis=-1) / around
