"""Frechet distance between the Gaussians fitted to two sets of features.

|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^{1/2}) (arXiv 1706.08500), "FID"
when the features are InceptionV3's. tr (C_1 C_2)^{1/2} is the sum of the
roots of the eigenvalues of the symmetric A^T C_2 A, with C_1 = A A^T: a
general matrix square root turns to NaN where a covariance has not full rank.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import typing

import keras
import numpy as np

from keras_flows.metrics.features import FeatureExtractor
from keras_flows.metrics.features import get_extractor
from keras_flows.metrics.images import open_npz
from keras_flows.metrics.images import write_npz
from keras_flows.ops import given
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike


class GaussianStatistics:
    """Streaming mean and covariance of features, float64.

    Sums are taken about the first batch's mean, so that a large mean does not
    cancel the covariance's digits. Statistics of several processes or
    devices `merge`.

    Args:
        dim: number of features.
    """

    @checked(dim=SIZE)
    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.count = 0
        self._origin = np.zeros(dim)
        self._sum = np.zeros(dim)
        self._outer = np.zeros((dim, dim))
        self.counted = True

    @checked(features=given.of(given.array, finite=False))
    def update(self, features: ArrayLike) -> GaussianStatistics:
        """Add features (n, dim).

        Raises:
            ValueError: if the shape is not (n, dim) or a value is not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(
                f"`features` must have the shape (n, {self.dim}). "
                f"Received: {features.shape}."
            )
        if not np.isfinite(features).all():
            raise ValueError(
                "`features` hold NaN or infinity: a sample that is not "
                "finite has no place in a distance; find where it arose."
            )
        self._check_counted()
        if not self.count and len(features):
            self._origin = features.mean(axis=0)
        centred = features - self._origin
        self.count += len(features)
        self._sum += centred.sum(axis=0)
        self._outer += centred.T @ centred
        return self

    def merge(self, other: GaussianStatistics) -> GaussianStatistics:
        """Add what `other` has seen."""
        check_statistics("other", other)
        if other.dim != self.dim:
            raise ValueError(
                f"`other` must have {self.dim} features. Received: {other.dim}."
            )
        self._check_counted()
        other._check_counted()
        if not self.count:
            self._origin = other._origin.copy()
        # Sums of `other` about this origin instead of its own.
        shift = other._origin - self._origin
        cross = np.outer(shift, other._sum)
        self._outer += other._outer + cross + cross.T
        self._outer += other.count * np.outer(shift, shift)
        self._sum += other._sum + other.count * shift
        self.count += other.count
        return self

    @property
    def mean(self) -> Array:
        """Mean, (dim,)."""
        self._check_count(1)
        return self._origin + self._sum / self.count

    @property
    def covariance(self) -> Array:
        """Unbiased covariance, (dim, dim)."""
        self._check_count(2)
        mean = self._sum / self.count
        outer = self._outer - self.count * np.outer(mean, mean)
        return outer / (self.count - 1)

    def _check_counted(self):
        if not self.counted:
            raise ValueError(
                "Statistics of a file that does not tell the number of its "
                "examples can be compared with, but not added to."
            )

    def _check_count(self, least):
        if self.count < least:
            raise ValueError(
                f"Statistics need at least {least} examples. "
                f"Received: {self.count}."
            )

    @checked(path=given.path_of)
    def save(self, path: PathLike) -> None:
        """Write count, mean (`mu`) and covariance (`sigma`) as .npz."""
        write_npz(path, mu=self.mean, sigma=self.covariance, count=self.count)

    @classmethod
    @checked(path=given.path_of)
    def load(cls, path: PathLike) -> GaussianStatistics:
        """Read what `save` wrote, or the `mu` and `sigma` of ADM's or EDM's.

        Raises:
            ValueError: if the file holds no statistics, or not one shape.
        """
        with open_npz(path) as file:
            missing = {"mu", "sigma"} - set(file.files)
            if missing:
                raise ValueError(
                    f"{str(path)!r} is not a file of statistics: it lacks "
                    f"{sorted(missing)}. Received: {sorted(file.files)}."
                )
            mean = np.asarray(file["mu"], dtype="float64")
            known = "count" in file.files
            # Any count gives the moments back; ADM's files tell none.
            count = int(file["count"]) if known else 2
            covariance = np.asarray(file["sigma"], dtype="float64")
        if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
            raise ValueError(
                f"{str(path)!r} must hold `mu` (dim,) and `sigma` (dim, dim). "
                f"Received: {mean.shape} and {covariance.shape}."
            )
        statistics = cls(len(mean))
        statistics.count = count
        statistics._origin = mean
        statistics._outer = covariance * (count - 1)
        statistics.counted = known
        return statistics


def check_statistics(name, value, least=0):
    """Refuse what are no statistics of at least so many examples."""
    count = getattr(value, "count", 0)
    if not isinstance(value, GaussianStatistics) or count < least:
        raise ValueError(
            f"`{name}` must be GaussianStatistics of at least {least} "
            f"examples. Received: {type(value).__name__}"
            + (f" of {count}." if hasattr(value, "count") else ".")
        )


def frechet_distance(a: GaussianStatistics, b: GaussianStatistics) -> float:
    """Frechet distance of two `GaussianStatistics`, float."""
    for name, value in (("a", a), ("b", b)):
        check_statistics(name, value, 2)
    if a.dim != b.dim:
        raise ValueError(
            "`a` and `b` must have as many features. "
            f"Received: {a.dim} and {b.dim}; were they of one extractor?"
        )
    first, second = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(first)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    product = np.linalg.eigvalsh(root.T @ second @ root)
    return float(
        np.sum((a.mean - b.mean) ** 2)
        + np.trace(first)
        + np.trace(second)
        - 2.0 * np.sqrt(np.clip(product, 0.0, None)).sum()
    )


class FrechetDistance:
    """Frechet distance of samples to a reference, in a network's features.

    Args:
        extractor: "inception" (FID), "dinov2" (FD-DINOv2), a
            `FeatureExtractor`, or a function from a batch of samples to
            features (n, dim).
        reference: samples, `GaussianStatistics`, or the path of a file of
            them.
        name: name of the extractor, for the record: a distance means nothing
            without it. A `FeatureExtractor` has its own.
        batch_size: samples per call of the extractor; 500, or the
            `FeatureExtractor`'s own.

    Example:

    ```python
    fid = kf.metrics.FrechetDistance("inception", "imagenet_256.npz")
    fid(samples)                                            # a float
    fid.record(samples, seed=0, steps=50, guidance=1.5)     # a dict
    ```
    """

    @checked(name=given.of(given.text, none=True), batch_size=Optional(SIZE))
    def __init__(
        self,
        extractor: str | Callable[..., Any],
        reference: ArrayLike | GaussianStatistics | PathLike,
        name: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        if not callable(extractor):
            extractor = get_extractor(extractor)
        if isinstance(extractor, FeatureExtractor):
            name = name or extractor.name
            batch_size = batch_size or extractor.batch_size
        if not name:
            raise ValueError(
                "`name` must name the network of a function `extractor`. "
                f"Received: {name!r}."
            )
        self.extractor = extractor
        self.name = name
        self.batch_size = batch_size or 500
        self._reference_name = "samples"
        if isinstance(reference, (str, os.PathLike)):
            path = pathlib.Path(reference)
            if not path.is_file():
                raise ValueError(
                    f"`reference` must be samples, GaussianStatistics or a "
                    f"file of them. There is no file {str(path)!r}."
                )
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            self._reference_name = f"{path.name} sha256:{digest}"
            reference = GaussianStatistics.load(path)
        elif isinstance(reference, GaussianStatistics):
            self._reference_name = "statistics"
        else:
            reference = self._of_reference(reference)
        self.reference = reference

    def _batches(self, samples):
        if not getattr(samples, "shape", (1,)) or not hasattr(
            samples, "__iter__"
        ):
            raise ValueError(
                "`reference` and samples must be (n, ...), or batches of "
                f"these. Received: {type(samples).__name__}."
            )
        if not hasattr(samples, "shape"):
            return samples
        starts = range(0, len(samples), self.batch_size)
        return (samples[i : i + self.batch_size] for i in starts)

    def _of_reference(self, samples):
        try:
            return self.statistics(samples)
        except ValueError as error:
            raise ValueError(f"In `reference`: {error}") from error

    def statistics(self, samples: ArrayLike) -> GaussianStatistics:
        """`GaussianStatistics` of the features of samples.

        Args:
            samples: (n, ...), or an iterable of such batches.
        """
        result = None
        for batch in self._batches(samples):
            features = self.extractor(batch)
            if isinstance(features, dict):
                features = features["features"]
            features = keras.ops.convert_to_numpy(features)
            if result is None:
                result = GaussianStatistics(features.shape[-1])
            result.update(features)
        if result is None:
            raise ValueError(
                "`reference` or samples: there are none to take features of."
            )
        return result

    def __call__(self, samples: ArrayLike) -> float:
        """Distance of samples to the reference, float."""
        return frechet_distance(self.statistics(samples), self.reference)

    def record(
        self, samples: ArrayLike, seed: int | None = None, **details: Any
    ) -> dict[str, Any]:
        """The distance and what it hangs on, as a dict of JSON values.

        Args:
            samples: (n, ...), or an iterable of such batches.
            seed: seed of the samples.
            **details: what else the figure hangs on, say the sampler's
                steps, guidance and EMA.

        Returns:
            dict of "value", "metric", "num_samples", "num_reference" (None
            where a file does not tell), "seed", "extractor", "weights",
            "resize", "reference" and the details.

        Raises:
            ValueError: if a detail has the name of one of these.
        """
        statistics = self.statistics(samples)
        reference = self.reference
        record = {
            "value": frechet_distance(statistics, reference),
            "metric": "frechet_distance",
            "num_samples": statistics.count,
            "num_reference": reference.count if reference.counted else None,
            "seed": seed,
            "extractor": self.name,
            "weights": getattr(self.extractor, "weights", None),
            "resize": getattr(self.extractor, "resize", None),
            "reference": self._reference_name,
        }
        taken = sorted(set(record) & set(details))
        if taken:
            raise ValueError(
                f"`details` must have names of their own. Received: {taken}."
            )
        return {**record, **details}
