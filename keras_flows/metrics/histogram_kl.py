"""KL divergence between 2-D histograms, and the floor it cannot pass."""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.ops import given
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Integer
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike

PROTOCOLS = ("samples", "density")


class HistogramKL:
    """KL(data || model) in 2-D from histograms on a square.

    Histograms have a floor: perfect samples do not score 0. `floor` measures
    it, and `report` prints it beside the figure.

    Two published estimators: `reference="samples"` holds the data's
    histogram against the model's, sum p log((p + eps) / (q + eps)) over the
    bins' masses; `reference="density"` holds the exact density against the
    model's by quadrature at the bin centres, area sum rho log(rho / rho_hat)
    (arXiv 2505.18825, appendix G). Samples outside the square count as
    missing mass.

    Args:
        data: an object with `sample(num, seed)` -> (num, 2) and, for the
            density estimator, `density(points)`; for instance
            `kf.datasets.Checkerboard`.
        bins: bins per axis.
        extent: half width of the square [-extent, extent]^2.
        reference: "samples" or "density".
        num_reference: samples of the data in the reference histogram.
        eps: added to the masses (samples), at most 1e-3.
        seed: seed of the reference samples.

    Raises:
        ValueError: also where the square holds little of the data, or its bins
            are wider than the data: any samples would score as perfect.
    """

    @checked(
        bins=SIZE,
        extent=POSITIVE,
        num_reference=Integer(2),
        eps=Number(above=0, high=0.001),
        seed=SEED,
    )
    def __init__(
        self,
        data: Any,
        bins: int = 60,
        extent: float = 2.5,
        reference: str = "samples",
        num_reference: int = 100_000,
        eps: float = 1e-8,
        seed: int | None = 20_251_121,
    ) -> None:
        given.choice("reference", reference, PROTOCOLS)
        if not callable(getattr(data, "sample", None)):
            raise ValueError(
                "`data` must have a method `sample(num, seed)`, as "
                "kf.datasets.Checkerboard has. Received: "
                f"{type(data).__name__}."
            )
        self.data = data
        self.bins = bins
        self.extent = extent
        self.reference = reference
        self.num_reference = num_reference
        self.eps = eps
        edges = np.linspace(-extent, extent, bins + 1)
        self._edges = edges
        if reference == "samples":
            self._p = self._masses(data.sample(num_reference, seed))
        else:
            centres = 0.5 * (edges[1:] + edges[:-1])
            grid = np.stack(
                np.meshgrid(centres, centres, indexing="ij"), axis=-1
            )
            self._p = data.density(grid.reshape(-1, 2)).reshape(bins, bins)
        self._check_square(extent)

    def _check_square(self, extent):
        """Refuse a square in which any samples would score as perfect."""
        p = self._p
        if self.reference == "density":
            p = p * (2.0 * extent / self.bins) ** 2
        inside = p.sum()
        if not inside >= 0.5:
            raise ValueError(
                "`extent` must be the half width of a square that holds the "
                f"data; {100 * inside:.3g} % of it lie inside. "
                f"Received: {extent!r}."
            )
        centres = 0.5 * (self._edges[1:] + self._edges[:-1])
        width = self._edges[1] - self._edges[0]
        for axis in (0, 1):
            mass = p.sum(axis=axis) / inside
            std = np.sqrt(mass @ centres**2 - (mass @ centres) ** 2)
            if not std > width:
                raise ValueError(
                    "`extent` and `bins` must give bins narrower than the "
                    f"data, whose standard deviation is {std:.3g}. Received: "
                    f"extent={extent!r}, bins={self.bins!r}, each {width:.3g}."
                )

    def _masses(self, samples):
        samples = given.array("samples", samples, finite=False)
        if samples.ndim != 2 or samples.shape[1] != 2:
            raise ValueError(
                "`samples` must have shape (num, 2). "
                f"Received: {samples.shape}."
            )
        if not len(samples) or not np.isfinite(samples).all():
            raise ValueError(
                "`samples` must be finite and at least one. Received "
                f"{len(samples)} rows, "
                f"{int((~np.isfinite(samples)).any(axis=1).sum())} of them "
                "not finite."
            )
        counts, _, _ = np.histogram2d(
            samples[:, 0], samples[:, 1], bins=(self._edges, self._edges)
        )
        return counts / len(samples)

    def __call__(self, samples: ArrayLike) -> float:
        """The KL in nats of samples (num, 2)."""
        q = self._masses(samples)
        p = self._p
        kept = p > 0
        if self.reference == "samples":
            ratio = np.log((p + self.eps) / (q + self.eps))
            return float((p * ratio)[kept].sum())
        area = (2.0 * self.extent / self.bins) ** 2
        density = np.maximum(q / area, self.eps)
        return float(area * (p[kept] * np.log(p[kept] / density[kept])).sum())

    @checked(num_samples=SIZE, seed=SEED)
    def floor(self, num_samples: int, seed: int | None = 1) -> float:
        """The KL of perfect samples: what no model can beat but by luck."""
        return self(self.data.sample(num_samples, seed))

    def report(self, samples: ArrayLike) -> str:
        """'0.142 (floor 0.012)'."""
        return f"{self(samples):.4f} (floor {self.floor(len(samples)):.4f})"
