"""What `fit` checks of the first batch."""

import keras
import numpy as np
import pytest

import keras_flows as kf

# What of it reaches `fit` on each backend is in training_test, too.
pytestmark = pytest.mark.once


def model_for(shape, num_classes=None):
    network = kf.networks.MLP(shape, 8, 1, num_classes=num_classes)
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile("sgd")
    return model


def steps_of(model):
    return int(model.optimizer.iterations.numpy())


X = np.zeros((4, 8, 8, 3), "float32")
LABELS = np.arange(4, dtype="int32")


def batched(x, y=None):
    class Data(keras.utils.PyDataset):
        num_batches = 1

        def __getitem__(self, index):
            return (x,) if y is None else (x, y)

    return Data()


def with_nan():
    x = X.copy()
    x[2, 0, 0, 0] = np.nan
    return x


BAD = {
    "bytes": (None, X.astype("uint8"), None, "`x`.*uint8.*127.5 - 1"),
    "floats of bytes": (None, X + 200, None, "`x`.*200.*\\[-1, 1\\]"),
    "NaN": (None, with_nan(), None, "`x` holds NaN.*1 of 4 rows, row 2"),
    "grey": (None, X[..., :1], None, "`x` must have shape.*grey.*rgb=True"),
    "float labels": (4, X, LABELS / 1.0, "`condition`.*float64.*astype"),
    "label too large": (3, X, LABELS + 1, "`condition`.*0 to 2.*1 to 4"),
    "label below 0": (4, X, LABELS - 1, "`condition`.*0 to 3.*-1 to 2"),
}


@pytest.mark.parametrize("how", ["arrays", "dataset"])
@pytest.mark.parametrize("case", BAD)
def test_bad_data_stops_before_the_first_step(case, how):
    num_classes, x, y, message = BAD[case]
    model = model_for((8, 8, 3), num_classes)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        if how == "arrays":
            model.fit(x, y, verbose=0)
        else:
            model.fit(batched(x, y), verbose=0)
    assert steps_of(model) == 0


def test_null_label_and_plain_data_pass():
    model = model_for((8, 8, 3), 3)
    model.fit(X, LABELS, verbose=0)  # label 3 is the null label
    model.fit(batched(X, LABELS), verbose=0)
    assert steps_of(model) == 2


def test_first_batch_of_other_loaders():
    """Checked without using anything up."""
    grain = pytest.importorskip("grain")

    rows = list(zip(with_nan(), LABELS))
    model = model_for((8, 8, 3), 4)
    with pytest.raises(ValueError, match="`x` holds NaN"):
        model.fit(grain.MapDataset.source(rows).batch(4), verbose=0)
    if keras.backend.backend() == "torch":
        from torch.utils.data import DataLoader

        with pytest.raises(ValueError, match="`x` holds NaN"):
            model.fit(DataLoader(rows, batch_size=4), verbose=0)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((with_nan(), LABELS))
        with pytest.raises(ValueError, match="`x` holds NaN"):
            model.fit(data.batch(4), verbose=0)
    assert steps_of(model) == 0
    batches = iter([(X, LABELS)] * 2)
    model.fit((batch for batch in batches), steps_per_epoch=2, verbose=0)
    assert steps_of(model) >= 2
