"""Image metrics against brute force and closed forms."""

import numpy as np
import pytest

import keras_flows as kf


def gaussian(num, dim, seed, shift=0.0):
    return np.random.default_rng(seed).standard_normal((num, dim)) + shift


# --- kernel distance


def test_kernel_distance_is_the_sum_over_pairs():
    x, y = gaussian(12, 5, 0), gaussian(12, 5, 1, 0.5)
    result = kf.metrics.kernel_distance(x, y, num_subsets=1, subset_size=12)

    def k(a, b):
        return (a @ b / 5 + 1.0) ** 3

    within = sum(
        k(x[i], x[j]) + k(y[i], y[j])
        for i in range(12)
        for j in range(12)
        if i != j
    )
    between = sum(k(a, b) for a in x for b in y)
    expected = within / (12 * 11) - 2.0 * between / 12**2
    assert abs(result["value"] - expected) < 1e-12
    assert result["std"] == 0.0


def test_kernel_distance_is_unbiased():
    """0 on average for equal distributions, even of 10 samples."""
    values = [
        kf.metrics.kernel_distance(
            gaussian(10, 4, 2 * i),
            gaussian(10, 4, 2 * i + 1),
            num_subsets=1,
            subset_size=10,
        )["value"]
        for i in range(400)
    ]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.0 * error
    # A bias of one pair in ten (the diagonal kept) would be seen.
    assert error < 0.1
    assert min(values) < 0.0


def test_kernel_distance_of_subsets():
    x, y = gaussian(300, 4, 0), gaussian(200, 4, 1, 1.0)
    options = {"num_subsets": 30, "subset_size": 50}
    first = kf.metrics.kernel_distance(x, y, **options)
    assert first == kf.metrics.kernel_distance(x, y, **options)
    other = kf.metrics.kernel_distance(x, y, seed=1, **options)
    assert other["value"] != first["value"]
    assert abs(other["value"] - first["value"]) < first["std"]
    assert first["value"] > 3.0 * first["std"] / np.sqrt(30)


# --- precision and recall


def brute_precision(real, fake, k):
    covered = 0
    for point in fake:
        for i, centre in enumerate(real):
            others = np.delete(real, i, axis=0)
            distances = np.sort(np.linalg.norm(others - centre, axis=1))
            if np.linalg.norm(point - centre) <= distances[k - 1]:
                covered += 1
                break
    return covered / len(fake)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_precision_and_recall_by_brute_force(k, offset):
    real = offset + gaussian(40, 3, 0)
    fake = offset + 0.7 * gaussian(30, 3, 1, 2.0)
    result = kf.metrics.precision_recall(real, fake, k=k, batch_size=7)
    assert result["precision"] == brute_precision(real, fake, k)
    assert result["recall"] == brute_precision(fake, real, k)
    assert 0.0 < result["precision"] < 1.0
    assert 0.0 < result["recall"] < 1.0


def test_precision_and_recall_of_known_sets():
    x = gaussian(50, 64, 0)
    same = kf.metrics.precision_recall(x, x)
    assert same["precision"] == same["recall"] == 1.0
    apart = kf.metrics.precision_recall(x, x + 1e3)
    assert apart["precision"] == apart["recall"] == 0.0
    # One mode of two: precise, half of it covered.
    two = np.concatenate([x, x + 1e3])
    one = kf.metrics.precision_recall(two, gaussian(50, 64, 1))
    assert one["precision"] > 0.5 and 0.3 < one["recall"] <= 0.5
    # Copies lie at distance 0 of each other and within the ball of radius 0.
    copies = np.repeat(1e4 + gaussian(10, 64, 2), 5, axis=0)
    result = kf.metrics.precision_recall(copies, copies[::-1])
    assert result["precision"] == result["recall"] == 1.0


# --- Inception score


def test_inception_score_in_closed_form():
    score = kf.metrics.InceptionScore(splits=5)
    uniform = score(np.full((50, 10), 3.0))
    assert abs(uniform["value"] - 1.0) < 1e-12 and uniform["std"] < 1e-12
    one_hot = 1e3 * np.tile(np.eye(10), (5, 1))
    balanced = kf.metrics.InceptionScore(splits=5, seed=None)(one_hot)
    assert abs(balanced["value"] - 10.0) < 1e-9 and balanced["std"] < 1e-9
    # Samples of a class are p certain: exp(log K - H(p)) for K = 2 classes.
    p = 0.8
    logits = np.log([[p, 1 - p], [1 - p, p]]).repeat(20, axis=0)
    result = kf.metrics.InceptionScore(splits=1)(logits + 7.0)
    expected = 2.0 * p**p * (1 - p) ** (1 - p)
    assert abs(result["value"] - expected) < 1e-12


def test_inception_score_of_samples_sorted_by_class():
    """Splits of one class each would score 1, unless they are shuffled."""
    logits = 50.0 * np.eye(10).repeat(100, axis=0)
    assert kf.metrics.InceptionScore(seed=None)(logits)["value"] < 1.001
    result = kf.metrics.InceptionScore()(logits)
    assert 9.0 < result["value"] < 10.0 and result["std"] > 0.0


# --- bad input


def test_bad_features_are_named():
    x = gaussian(10, 3, 0)
    pairs = {
        "precision_recall": {},
        "kernel_distance": {"subset_size": 5},
    }
    for name, options in pairs.items():
        metric = getattr(kf.metrics, name)
        with pytest.raises(ValueError, match="one extractor"):
            metric(x, gaussian(10, 4, 1), **options)
        with pytest.raises(ValueError, match="`fake` hold NaN"):
            metric(x, np.full((10, 3), np.nan), **options)
        with pytest.raises(ValueError, match=r"`real` .*\(n, dim\)"):
            metric(x[0], x, **options)
    with pytest.raises(ValueError, match=r"`k` must lie in \[1, 9\].*10"):
        kf.metrics.precision_recall(x, x, k=10)
    with pytest.raises(ValueError, match=r"`subset_size` .*\[2, 10\].*1000"):
        kf.metrics.kernel_distance(x, x)
    with pytest.raises(ValueError, match="as many splits. Received: 4"):
        kf.metrics.InceptionScore()(x[:4])


def test_adm_files_hold_what_was_saved(tmp_path):
    path = tmp_path / "samples.npz"
    images = np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype("uint8")
    kf.metrics.save_adm_npz(path, kf.metrics.to_float(images), [3, 1])
    loaded, labels = kf.metrics.load_adm_npz(path)
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, images)
    np.testing.assert_array_equal(labels, [3, 1])
    kf.metrics.save_adm_npz(path, images)
    loaded, labels = kf.metrics.load_adm_npz(path)
    np.testing.assert_array_equal(loaded, images)
    assert labels is None
    assert [p.name for p in tmp_path.iterdir()] == ["samples.npz"]
    with pytest.raises(ValueError, match=r"integers of shape \(2,\)"):
        kf.metrics.save_adm_npz(path, images, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"\[-1, 1\]"):
        kf.metrics.save_adm_npz(path, 3.0 + images)
    np.savez(path, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="GaussianStatistics.load"):
        kf.metrics.load_adm_npz(path)


def test_eight_bits_survive_floats():
    levels = np.arange(256).astype("uint8")
    floats = kf.metrics.to_float(levels)
    assert floats.min() == -1.0 and floats.max() == 1.0
    np.testing.assert_array_equal(kf.metrics.to_uint8(floats), levels)
    np.testing.assert_array_equal(kf.metrics.to_uint8([-9.0, 9.0]), [0, 255])
