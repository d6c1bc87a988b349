"""Bars of long work: on a screen at once, in a file only where it is long."""

import numpy as np
import pytest

import keras_flows as kf
from keras_flows.ops import bars

pytestmark = pytest.mark.once


@pytest.fixture(params=["screen", "file"])
def shown(request, monkeypatch, capsys):
    """(function of what was printed, whether that is a screen)."""
    screen = request.param == "screen"
    monkeypatch.setattr(bars, "on_screen", lambda: screen)
    return lambda: capsys.readouterr().out, screen


def model():
    return kf.SiTInterface(kf.networks.MLP(2, 8, 1), seed=0)


def test_batches_of_samples(shown):
    printed, screen = shown
    expected = np.asarray(model().generate(10, num_steps=1, seed=0))
    assert not printed()
    found = model().generate(
        10, num_steps=1, seed=0, batch_size=4, progress=True
    )
    assert np.asarray(found).shape == expected.shape
    assert ("10/10" in printed()) == screen


def test_one_bar_for_a_training(shown):
    printed, screen = shown
    trained = model()
    trained.compile("adam")
    x = kf.datasets.Checkerboard().sample(32, seed=0)
    bar = kf.callbacks.ProgressBar()
    trained.fit(x, batch_size=8, epochs=3, verbose=0, callbacks=[bar])
    text = printed()
    assert ("12/12" in text and "loss:" in text) == screen
    assert "Epoch" not in text


def test_a_file_gets_the_bar_of_long_work(monkeypatch, capsys):
    monkeypatch.setattr(bars, "TO_A_FILE", 0.0)
    bar = bars.Bar(2, "part")
    bar.advance()
    bar.advance()
    assert "2/2" in capsys.readouterr().out


def test_a_metric_by_calls():
    drawn = kf.metrics.by_calls(
        model(), lambda x: float(len(x)), (1, 3), num_samples=5
    )
    assert drawn == {1: 5.0, 3: 5.0}
    x, labels = np.eye(4), np.arange(4)
    rows, chosen = kf.datasets.Rows(x, labels).sample(7, seed=0)
    np.testing.assert_array_equal(rows.argmax(1), chosen)
    with pytest.raises(ValueError, match="as many rows"):
        kf.datasets.Rows(x, labels[:3])
