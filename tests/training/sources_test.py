"""Every step of each kind of data is taken, compiled and eagerly."""

import keras
import numpy as np
import pytest

import keras_flows as kf

X = np.random.default_rng(0).standard_normal((64, 2)).astype("float32")
BATCHES = X.reshape(4, 16, 2)


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return len(BATCHES)

    def __getitem__(self, i):
        return (BATCHES[i],)


def once():
    for batch in BATCHES:
        yield (batch,)


def forever():
    while True:
        yield from once()


class Counted(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def on_test_batch_end(self, batch, logs=None):
        self.steps += 1


# The data, options of `fit`, and the steps that it takes.
SOURCES = {
    "arrays": (lambda: X, {"batch_size": 16}, 4),
    "PyDataset": (Sequence, {}, 4),
    "generator": (once, {}, 4),
    "steps of a generator": (forever, {"steps_per_epoch": 3}, 3),
}


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("source", SOURCES)
def test_every_step_is_taken(source, eager):
    make, options, steps = SOURCES[source]
    model = kf.SiTInterface(kf.networks.MLP(2, 4, 1), ema=None, seed=0)
    model.compile("adam", run_eagerly=eager)
    model.fit(make(), verbose=0, **options)
    assert int(model.optimizer.iterations) == steps
    counted = Counted()
    if "steps_per_epoch" in options:
        options = {"steps": options["steps_per_epoch"]}
    loss = model.evaluate(
        make(), verbose=0, return_dict=True, callbacks=[counted], **options
    )["loss"]
    assert counted.steps == steps and np.isfinite(loss)
