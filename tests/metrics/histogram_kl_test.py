"""KL of the checkerboard by histogram."""

import numpy as np
import pytest

import keras_flows as kf


def test_kl_floors_are_the_published_ones():
    """Perfect samples: 0.0117 on 60 bins, 0.0656 on 50 bins over [-1, 1]."""
    toy = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    assert toy.floor(100_000) == pytest.approx(0.0117, abs=0.0012)
    paper = kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(extent=1.0),
        bins=50,
        extent=1.0,
        reference="density",
    )
    assert paper.floor(64_000) == pytest.approx(0.0656, abs=0.004)
    aligned = kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(extent=1.0),
        bins=48,
        extent=1.0,
        reference="density",
    )
    assert aligned.floor(64_000) == pytest.approx(0.0090, abs=0.001)
    text = toy.report(kf.datasets.Checkerboard().sample(100_000, 2))
    assert text.startswith("0.01") and "(floor 0.01" in text


def test_kl_of_half_the_cells_is_log_two():
    board = kf.datasets.Checkerboard()
    x, label = board.sample_labelled(200_000, 3)
    metric = kf.metrics.HistogramKL(board, bins=4, extent=2.0)
    tilted = np.concatenate([x[label < 4]] * 3 + [x[label >= 4]])
    # q = 3/4 and 1/4 on the two halves, p = 1/2: KL = log(2 / sqrt(3)).
    assert metric(tilted) == pytest.approx(np.log(2 / np.sqrt(3)), abs=0.01)


def test_kl_refuses_what_is_not_finite():
    metric = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    with pytest.raises(ValueError, match="2 rows, 1 of them"):
        metric(np.array([[0.0, np.nan], [1.0, 1.0]]))
