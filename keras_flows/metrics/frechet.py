"""Frechet distance between the Gaussians fitted to two sets of features.

|m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^{1/2}) (arXiv 1706.08500), "FID"
when the features are InceptionV3's. tr (C_1 C_2)^{1/2} is the sum of the
roots of the eigenvalues of the symmetric A^T C_2 A, with C_1 = A A^T: a
general matrix square root turns to NaN where a covariance has not full rank.
"""

import os
import pathlib

import keras
import numpy as np


class GaussianStatistics:
    """Streaming mean and covariance of features, float64.

    Sums are taken about the first batch's mean, so that a large mean does not
    cancel the covariance's digits. Statistics of several processes or
    devices `merge`.

    Args:
        dim: number of features.
    """

    def __init__(self, dim):
        self.dim = dim
        self.count = 0
        self._origin = np.zeros(dim)
        self._sum = np.zeros(dim)
        self._outer = np.zeros((dim, dim))
        self._count_known = True

    def update(self, features):
        """Add features (n, dim).

        Raises:
            ValueError: if the shape is not (n, dim) or a value is not finite.
        """
        features = np.asarray(features, dtype="float64")
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

    def merge(self, other):
        """Add what `other` has seen."""
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
    def mean(self):
        """Mean, (dim,)."""
        self._check_count(1)
        return self._origin + self._sum / self.count

    @property
    def covariance(self):
        """Unbiased covariance, (dim, dim)."""
        self._check_count(2)
        mean = self._sum / self.count
        outer = self._outer - self.count * np.outer(mean, mean)
        return outer / (self.count - 1)

    def _check_counted(self):
        if not self._count_known:
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

    def save(self, path):
        """Write count, mean (`mu`) and covariance (`sigma`) as .npz."""
        path = pathlib.Path(path)
        temporary = path.with_name(f".{path.name}.tmp")
        with open(temporary, "wb") as file:
            np.savez(
                file, mu=self.mean, sigma=self.covariance, count=self.count
            )
        os.replace(temporary, path)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote, or the `mu` and `sigma` of ADM's files."""
        with np.load(path) as file:
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
        statistics = cls(len(mean))
        statistics.count = count
        statistics._origin = mean
        statistics._outer = covariance * (count - 1)
        statistics._count_known = known
        return statistics


def frechet_distance(a, b):
    """Frechet distance of two `GaussianStatistics`, float."""
    if a.dim != b.dim:
        raise ValueError(
            "Both must have as many features. "
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
        extractor: function or `keras.Model` from a batch of samples to
            features (n, dim).
        reference: samples, `GaussianStatistics`, or the path of a file of
            them.
        name: name of the extractor, for the record: a distance means nothing
            without it.
        batch_size: samples per call of the extractor.

    Example:

    ```python
    fd = kf.metrics.FrechetDistance(classifier, test_images, "digits")
    fd(samples)
    ```
    """

    def __init__(self, extractor, reference, name, batch_size=500):
        self.extractor = extractor
        self.name = name
        self.batch_size = batch_size
        if isinstance(reference, (str, os.PathLike)):
            reference = GaussianStatistics.load(reference)
        elif not isinstance(reference, GaussianStatistics):
            reference = self.statistics(reference)
        self.reference = reference

    def statistics(self, samples):
        """`GaussianStatistics` of the features of samples (n, ...)."""
        result = None
        for start in range(0, len(samples), self.batch_size):
            features = keras.ops.convert_to_numpy(
                self.extractor(samples[start : start + self.batch_size])
            )
            if result is None:
                result = GaussianStatistics(features.shape[-1])
            result.update(features)
        if result is None:
            raise ValueError("There are no samples to take features of.")
        return result

    def __call__(self, samples):
        """Distance of samples (n, ...) to the reference, float."""
        return frechet_distance(self.statistics(samples), self.reference)
