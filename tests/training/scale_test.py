"""Data that is not of unit size is told, once, whatever it comes in."""

import warnings

import keras
import numpy as np
import pytest

import keras_flows as kf

# What is read of the data is NumPy's.
pytestmark = pytest.mark.once

rng = np.random.default_rng(0)
UNIT = rng.standard_normal((16, 4, 4, 3)).astype("float32")
BYTES = rng.integers(0, 256, UNIT.shape).astype("float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (self.x[8 * index : 8 * index + 8],)


HOW = {
    "arrays": lambda x: (x, {"batch_size": 8}),
    "PyDataset": lambda x: (Batches(x), {}),
    "generator": lambda x: (
        ((part,) for part in (x[:8], x[8:])),
        {"steps_per_epoch": 2},
    ),
}


def fit(how, x):
    network = kf.networks.MLP(x.shape[1:], 8, 1)
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile(keras.optimizers.SGD(1e-6))
    data, options = HOW[how](x)
    model.fit(data, verbose=0, **options)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "x",
    [BYTES * 0.99, 100.0 * UNIT, 0.001 * UNIT, UNIT + 20.0],
    ids=["resized bytes", "large", "small", "shifted"],
)
def test_another_scale_is_told_once(how, x):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(how, x)
    told = [str(w.message) for w in caught if "`x` has the mean" in str(w)]
    assert len(told) == 1
    assert f"{x[:8].mean():.1g}"[:1] in told[0] and "127.5 - 1" in told[0]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "x",
    [UNIT, 0.5 * UNIT, BYTES / 127.5 - 1, BYTES / 255, 0.0 * UNIT],
    ids=["unit", "half", "images", "images from 0 to 1", "zeros"],
)
def test_unit_size_is_not(how, x):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*has the mean")
        fit(how, x)


@pytest.mark.parametrize("how", HOW)
def test_bytes_are_refused(how):
    with pytest.raises(ValueError, match=r"`x` holds images of whole numbers"):
        fit(how, BYTES)
