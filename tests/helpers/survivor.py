"""A run that `training/resume_test` interrupts: same arguments, same run.

    python survivor.py FOLDER DATA KILL_AT

Trains with a `Checkpoint` in FOLDER and ends itself by SIGKILL after KILL_AT
steps of this process (0: not at all); then prints a digest of all it is.
"""

import hashlib
import json
import os
import signal
import sys

import keras
import numpy as np

import keras_flows as kf

ROWS, BATCH, EPOCHS = 70, 16, 4
POINTS = np.random.default_rng(0).normal(size=(ROWS, 2)).astype("float32")
LABELS = (POINTS[:, 0] > 0).astype("int32")


class Pieces(keras.utils.PyDataset):
    """Batches in an order of Keras's, that change from epoch to epoch."""

    epoch = 0

    def __len__(self):
        return ROWS // BATCH

    def __getitem__(self, index):
        rows = slice(index * BATCH, (index + 1) * BATCH)
        return POINTS[rows] + 0.1 * self.epoch, LABELS[rows]

    def on_epoch_end(self):
        self.epoch += 1


def tf_data(shuffle=True):
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices((POINTS, LABELS))
    return (data.shuffle(20, seed=1) if shuffle else data).batch(BATCH)


def rows():
    """The rows with their labels, as an indexable."""
    return [(POINTS[i], LABELS[i]) for i in range(ROWS)]


def grain_map():
    import grain

    return grain.MapDataset.source(rows()).shuffle(seed=1).batch(BATCH)


def grain_iter():
    import grain

    data = grain.MapDataset.source(rows()).seed(3).shuffle().repeat()
    return data.to_iter_dataset().batch(BATCH)


def loader():
    import torch

    torch.manual_seed(5)
    return torch.utils.data.DataLoader(rows(), BATCH, shuffle=True)


# What `fit` is given, with the steps of an epoch where it has no end.
DATA = {
    "arrays": lambda: {"x": POINTS, "y": LABELS, "batch_size": BATCH},
    "arrays across epochs": lambda: {
        "x": POINTS, "y": LABELS, "batch_size": BATCH, "steps_per_epoch": 3,
    },
    "pydataset": lambda: {"x": Pieces()},
    "endless": lambda: {
        "x": kf.datasets.Endless(Noise(), BATCH), "steps_per_epoch": 4
    },
    "tf.data": lambda: {"x": tf_data()},
    "endless tf.data": lambda: {
        "x": tf_data(shuffle=False).repeat(), "steps_per_epoch": 4
    },
    "grain map": lambda: {"x": grain_map()},
    "grain iter": lambda: {"x": grain_iter(), "steps_per_epoch": 4},
    "torch": lambda: {"x": loader()},
}  # fmt: skip


class Noise:
    def sample(self, num, rng):
        return rng.normal(size=(num, 2)).astype("float32"), np.arange(num) % 2


def model():
    keras.utils.set_random_seed(0)
    network = kf.networks.MLP(2, 16, 1, two_times=True, num_classes=2)
    seed = 3 + int(os.environ.get("SEED", 0))
    made = kf.FlowMapInterface(network, "lsd", ema=[0.9, 0.99], seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, 30)
    made.compile(keras.optimizers.Adam(rate))
    return made


class End(keras.callbacks.Callback):
    """Calls a function after so many steps."""

    def __init__(self, after, call):
        super().__init__()
        self.left, self.call = after, call

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            self.call()


def run(folder, data, after=0, call=None, **options):
    """(model, history) of the run, `call`ed after so many steps."""
    made = model()
    keep = kf.callbacks.Checkpoint(folder, every_steps=2, **options)
    stop = keras.callbacks.EarlyStopping("loss", patience=9)
    history = made.fit(
        **DATA[data](), epochs=EPOCHS, verbose=0,
        callbacks=[keep, stop, End(after, call)],
    )  # fmt: skip
    return made, history


def digest(made, history):
    """Of weights, averages, optimizer, seeds, logs and samples."""
    values = [keras.ops.convert_to_numpy(v) for v in made.variables]
    values += [keras.ops.convert_to_numpy(v) for v in made.optimizer.variables]
    values.append(
        keras.ops.convert_to_numpy(
            made.generate(condition=[0, 1, 1], num_steps=2, seed=0)
        )
    )
    found = hashlib.sha256()
    for value in values:
        found.update(value.tobytes())
    found.update(json.dumps(history.history).encode())
    return found.hexdigest()


def join():
    """One of WORLD PyTorch processes, where the environment says so."""
    if "WORLD" in os.environ:
        from torch import distributed

        distributed.init_process_group(
            "gloo",
            init_method=f"file://{os.environ['STORE']}",
            rank=int(os.environ["RANK_HERE"]),
            world_size=int(os.environ["WORLD"]),
        )


if __name__ == "__main__":
    folder, data, after = sys.argv[1:]
    join()
    print(
        digest(
            *run(
                folder, data, int(after),
                lambda: os.kill(os.getpid(), signal.SIGKILL),
            )
        )
    )  # fmt: skip
