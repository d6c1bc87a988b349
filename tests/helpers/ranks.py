"""PyTorch processes that train together, forked from one that has imported.

    python ranks.py FOLDER WORLD CHECK...

Runs the named functions below in each of WORLD processes and writes what they
return to FOLDER/<check>_<rank>.pkl; WORLD 1 is one process without
`torch.distributed`. An exception is returned as its text.
"""

import datetime
import os
import pathlib
import pickle
import sys
import tempfile
import traceback
import warnings

# Keras looks for them in each `fit`, and importing them takes the longest.
for _name in ("jax", "tensorflow"):
    sys.modules[_name] = None

import keras
import numpy as np
import torch
from torch import distributed

import keras_flows as kf
from keras_flows.training import ranks

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from helpers import replicas

torch.set_num_threads(1)


def equal(name, split=None):
    """Losses, gradients, weights, averages and slots of an objective."""
    rank, world = place()
    share = replicas.ROWS // world
    rows = slice(rank * share, (rank + 1) * share)
    folded, ranks.folded = ranks.folded, lambda seed, rank: seed
    try:
        return replicas.trained(name, rows, share, lambda: (rank, world), split)
    finally:
        ranks.folded = folded


def split_as_not(optimizer):
    """How far a split training is from the same one that is not split."""
    found = []
    for split in (None, kf.training.fully_shard):
        model = replicas.made("lsd", eval(optimizer, vars(keras.optimizers)))
        if split is not None:
            split(model)
        model.fit(replicas.X, batch_size=8, shuffle=False, verbose=0)
        found.append(replicas.state(model))
    return max(replicas.distance(found[1], found[0]).values())


def kept(folder, epochs, split=None):
    """A run that a Checkpoint keeps, each rank with its share of the rows."""
    rank, world = place()
    return replicas.kept(folder, epochs, slice(rank, None, world), split)


def held_of(value):
    return value.to_local() if hasattr(value, "to_local") else value


def held():
    """Share of the weights, slots and averages that a rank holds."""
    model = replicas.made("lsd", keras.optimizers.Adam(0.01))
    kf.training.fully_shard(model)
    model.fit(replicas.X, batch_size=8, verbose=0)
    pairs = [
        (held_of(v.value).numel(), v.value.numel())
        for v in [
            *model.trainable_variables,
            *model.emas[0].averages,
            *model.optimizer.variables,
        ]
        if v.shape
    ]
    own, whole = (sum(counts) for counts in zip(*pairs))
    return own / whole


def sampled():
    """What a split model is asked for, outside and inside of `whole`."""
    model = replicas.made("lsd")
    expected = keras.ops.convert_to_numpy(model.generate(2, seed=0))
    kf.training.fully_shard(model)
    said = []
    for ask in (
        lambda: model.generate(2, seed=0),
        lambda: model.save_weights(f"{tempfile.mkdtemp()}/no.weights.h5"),
    ):
        try:
            ask()
        except ValueError as error:
            said.append(str(error))
    loss = model.evaluate(replicas.X, verbose=0)
    with kf.training.whole(model):
        found = keras.ops.convert_to_numpy(model.generate(2, seed=0))
        weights = model.get_weights()
    return said, np.abs(found - expected).max(), loss, len(weights)


def shortcut():
    model = kf.FlowMapInterface(
        replicas.mlp(True), kf.objectives.get("shortcut"), ema=0.9, seed=0
    )
    model.compile(keras.optimizers.Adam(0.01))
    return model


def average_in_loss():
    """As `split_as_not`, with a loss that reads an average."""
    found = []
    for split in (False, True):
        replicas.seeded(0)
        model = shortcut()
        if split:
            kf.training.fully_shard(model, averages_in_loss=True)
        model.fit(replicas.X, batch_size=8, shuffle=False, verbose=0)
        found.append(replicas.state(model))
    return max(replicas.distance(found[1], found[0]).values())


def not_split(case):
    """What `fully_shard` refuses."""
    inner = keras.optimizers.Adam(0.01)
    optimizer = {
        "scaled": lambda: keras.optimizers.LossScaleOptimizer(inner),
        "whole": lambda: keras.optimizers.Adafactor(0.01),
    }.get(case, lambda: inner)()
    model = shortcut()
    if case != "average":
        model = replicas.made("lsd", optimizer)
    kf.training.fully_shard(model)
    if case == "twice":
        kf.training.fully_shard(model)
    model.fit(replicas.X, batch_size=8, verbose=0)


def other_seeds():
    """Ranks that were seeded apart: one model, noise of their own."""
    rank, world = place()
    replicas.seeded(100 + rank)
    network = replicas.mlp(True)
    model = kf.FlowMapInterface(network, "lsd", ema=0.9, seed=rank)
    model.compile(keras.optimizers.Adam(0.01))
    start = replicas.state(model)["weights"]
    history = model.fit(
        replicas.X + rank, batch_size=8, epochs=2, verbose=0,
        validation_data=(replicas.X + rank,),
    ).history  # fmt: skip
    return start, replicas.state(model), history, drawn(model)


def drawn(model):
    return keras.ops.convert_to_numpy(
        keras.random.normal((4,), seed=model.seed_generator)
    )


def noise():
    """What each draws, of model and dropout, when all have the same seed."""
    replicas.seeded(0)
    x, t = keras.Input((8,), name="x"), keras.Input((), name="t")
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    drop = keras.layers.Dropout(0.5)
    h = drop(keras.layers.Dense(8)(h))
    network = keras.Model({"x": x, "t": t}, keras.layers.Dense(8)(h))
    model = kf.SiTInterface(network)
    model.compile(keras.optimizers.SGD(0.0))
    model.train_on_batch(replicas.X)
    masks = keras.ops.convert_to_numpy(
        drop(np.ones((4, 8), "float32"), training=True)
    )
    return drawn(model), masks


def uneven(known):
    """Rank r has r more batches than rank 0."""
    rank, _ = place()
    model = replicas.made("lsd")
    count = 2 + rank
    if known:
        model.fit(np.tile(replicas.X, (count, 1)), batch_size=16, verbose=0)
    else:
        batches = ((replicas.X,) for _ in range(count))
        model.fit(batches, verbose=0)


def uneven_epochs():
    rank, _ = place()
    model = replicas.made("lsd")
    model.fit(replicas.X, epochs=1 + rank, verbose=0)


def one_fails(where):
    """Rank 1 raises: in its data, in a callback, or before `fit` begins."""
    rank, _ = place()
    model = replicas.made("lsd")
    x = replicas.X

    def batches():
        for i in range(3):
            if i == 2 and rank == 1 and where == "data":
                raise OSError("the disk is gone")
            yield (x,)

    class Bad(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if rank == 1 and where == "callback":
                raise OSError("the disk is gone")

    if where == "argument" and rank == 1:
        x = x.astype("str")
    data = batches() if where == "data" else x
    model.fit(data, callbacks=[Bad()], verbose=0)


def other_model():
    rank, _ = place()
    network = kf.networks.MLP(8, 16 + rank, 1)
    model = kf.SiTInterface(network)
    model.compile("sgd")
    model.fit(replicas.X, verbose=0)


def normalised(scaled, value):
    """Steps of which one is not finite on rank 1 alone."""
    rank, _ = place()
    replicas.seeded(0)
    x, t = keras.Input((8,), name="x"), keras.Input((), name="t")
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    h = keras.layers.BatchNormalization()(keras.layers.Dense(8)(h))
    network = keras.Model({"x": x, "t": t}, keras.layers.Dense(8)(h))
    model = kf.SiTInterface(network, ema=0.9, seed=0)
    optimizer = keras.optimizers.Adam(0.01)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=8.0
        )
    model.compile(optimizer)

    def floats():
        found = [*model.variables, *optimizer.variables]
        return [
            np.array(keras.ops.convert_to_numpy(v))
            for v in found
            if v.dtype == "float32" and "scale" not in v.path
        ]

    model.fit(replicas.X + rank, batch_size=16, verbose=0)
    before = floats()
    bad = np.where(np.arange(16)[:, None] == 3, value, replicas.X)
    good = replicas.X
    mine = (bad if rank == 1 else good).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train_on_batch(mine)
    # The metrics' sums are each process's own, and not among these.
    after = floats()
    skipped = int(model.skipped_steps.numpy())
    return before[: len(after)], after, skipped


def evaluated_alone():
    """Rank 0 alone, as it often is; and in a callback of `fit`."""
    rank, _ = place()
    model = replicas.made("flow")
    found = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if rank == 0:
                found.append(
                    model.evaluate(replicas.X, replicas.LABELS, verbose=0)
                )

    model.fit(replicas.X, replicas.LABELS, callbacks=[Look()], verbose=0)
    if rank == 0:
        found.append(model.evaluate(replicas.X, replicas.LABELS, verbose=0))
    return np.shape(found)


def place():
    if distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def call(check):
    """ "uneven(True)" as Python."""
    try:
        return eval(check, globals())
    except Exception as error:
        if os.environ.get("TRACE"):
            traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def main(folder, world, checks, rank):
    if world > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank,
            world_size=world, timeout=datetime.timedelta(seconds=60),
        )  # fmt: skip
    for i, check in enumerate(checks):
        result = call(check)
        with open(f"{folder}/{i}_{rank}.pkl", "wb") as file:
            pickle.dump(result, file)


if __name__ == "__main__":
    folder, world, checks = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                main(folder, world, checks, rank)
                code = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children]
    sys.exit(max(map(abs, codes)))
