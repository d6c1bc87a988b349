"""The Frechet distance against SciPy's square root and closed forms."""

import numpy as np
import pytest
import scipy.linalg

import keras_flows as kf
from keras_flows.metrics import GaussianStatistics
from keras_flows.metrics import frechet_distance


def features(num, dim, seed, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(seed + 100).normal(size=(dim, dim))
    return shift + scale * rng.standard_normal((num, dim)) @ mixing


def statistics(x, chunks=1):
    result = GaussianStatistics(x.shape[1])
    for chunk in np.array_split(x, chunks):
        result.update(chunk)
    return result


def test_equals_scipys_formula():
    x, y = features(500, 32, 0), features(400, 32, 1, 1.3, 0.4)
    a, b = (np.cov(z, rowvar=False) for z in (x, y))
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(
        a + b - 2.0 * np.real(scipy.linalg.sqrtm(a @ b))
    )
    result = frechet_distance(statistics(x), statistics(y))
    assert abs(result - expected) < 1e-6 * expected


def test_commuting_covariances_in_closed_form():
    """Diagonal covariances: sum (m1 - m2)^2 + (s1 - s2)^2."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((50, 6)) - 0.0)
    q -= q.mean(axis=0)
    q, _ = np.linalg.qr(q)
    # Centred orthonormal columns: covariance exactly s^2 I / (n - 1) s.
    first, second = rng.uniform(0.5, 2.0, (2, 6))
    x, y = 7.0 * q * first, 7.0 * q * second + 0.3
    expected = np.sum((first - second) ** 2) + 6 * 0.3**2
    result = frechet_distance(statistics(x), statistics(y))
    assert abs(result - expected) < 1e-9


def test_finite_without_full_rank():
    """Fewer examples than features: SciPy's root may turn to NaN or complex."""
    x, y = features(10, 64, 0), features(12, 64, 1)
    result = frechet_distance(statistics(x), statistics(y))
    assert np.isfinite(result) and result > 0
    assert abs(frechet_distance(statistics(x), statistics(x))) < 1e-6 * result


def test_streaming_and_merging_equal_all_at_once():
    x = features(300, 8, 0, 0.01, 1000.0)
    whole = statistics(x)
    parts = GaussianStatistics(8)
    for part in np.array_split(x, 3):
        parts.merge(statistics(part, chunks=4))
    assert parts.count == whole.count == 300
    for result in (whole, parts):
        np.testing.assert_allclose(result.mean, x.mean(0), rtol=1e-12)
        # A mean 10^5 deviations away must not eat the covariance's digits.
        np.testing.assert_allclose(
            result.covariance, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-12
        )


def test_statistics_survive_a_file(tmp_path):
    a = statistics(features(100, 5, 0))
    a.save(tmp_path / "a.npz")
    b = GaussianStatistics.load(tmp_path / "a.npz")
    assert frechet_distance(a, b) < 1e-9
    b.merge(a)
    assert b.count == 200
    # ADM's files have no count: enough to compare, not to add to.
    np.savez(tmp_path / "adm.npz", mu=a.mean, sigma=a.covariance)
    adm = GaussianStatistics.load(tmp_path / "adm.npz")
    assert frechet_distance(a, adm) < 1e-9
    with pytest.raises(ValueError, match="not added to"):
        adm.merge(a)
    np.savez(tmp_path / "cut.npz", mu=a.mean, sigma=a.covariance[:2])
    with pytest.raises(ValueError, match=r"sigma` \(dim, dim\).*\(2, 5\)"):
        GaussianStatistics.load(tmp_path / "cut.npz")
    np.savez(tmp_path / "other.npz", images=a.mean)
    with pytest.raises(ValueError, match="lacks.*mu"):
        GaussianStatistics.load(tmp_path / "other.npz")


def test_distance_of_samples_uses_the_extractor():
    x = np.random.default_rng(0).normal(size=(600, 4, 4)).astype("float32")

    def extractor(batch):
        assert len(batch) <= 128
        return batch.reshape(len(batch), -1)[:, :5]

    metric = kf.metrics.FrechetDistance(extractor, x[:300], "cut", 128)
    direct = frechet_distance(
        statistics(x[300:].reshape(300, -1)[:, :5]),
        statistics(x[:300].reshape(300, -1)[:, :5]),
    )
    assert abs(metric(x[300:]) - direct) < 1e-6
    # A shift of one feature by 2 adds 4.
    x[300:, 0, 0] += 2.0
    assert metric(x[300:]) > direct + 3.0


def test_bad_features_are_named():
    s = GaussianStatistics(3)
    with pytest.raises(ValueError, match=r"shape \(n, 3\)"):
        s.update(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="NaN"):
        s.update(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="at least 2"):
        _ = s.update(np.zeros((1, 3))).covariance
    with pytest.raises(ValueError, match="one extractor"):
        frechet_distance(
            statistics(features(9, 3, 0)), statistics(features(9, 4, 0))
        )
