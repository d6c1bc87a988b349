"""Small trainings of one global batch, on one device or on several.

Replicas of PyTorch and TensorFlow draw noise of their own. To compare them
with one device `global_noise` lets each draw what one would, and take its
share of the rows.
"""

import contextlib
import importlib
import random
import warnings

import keras
import numpy as np

import keras_flows as kf
from keras_flows.training.resume import processes

ROWS, STEPS, RATE = 16, 4, 0.03
X = np.random.default_rng(0).normal(size=(ROWS, 8)).astype("float32")
LABELS = (np.arange(ROWS) % 3).astype("int32")


def mlp(two_times=False, **kwargs):
    return kf.networks.MLP(8, 16, 1, two_times=two_times, **kwargs)


def distilled():
    teacher = kf.SiTInterface(mlp(), ema=0.9, seed=1)
    teacher.trainable = False
    student = kf.SiTInterface(mlp(), ema=0.9, seed=2)
    model = kf.DMDInterface(teacher, student, fake_updates=1)
    # Networks that begin as copies differ by rounding alone, else.
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    return model


OBJECTIVES = {
    "flow": lambda: kf.SiTInterface(mlp(num_classes=3), ema=0.9, seed=0),
    "lsd": lambda: kf.FlowMapInterface(mlp(True), "lsd", ema=0.9, seed=0),
    "mean_flow": lambda: kf.MeanFlowInterface(
        mlp(True, num_classes=3), ema=0.9, seed=0
    ),
    "mip": lambda: kf.FlowMapInterface(mlp(), "mip", ema=0.9, seed=0),
    "dmd": distilled,
}


def seeded(seed):
    """As `keras.utils.set_random_seed`, which imports TensorFlow, too."""
    if keras.backend.backend() != "torch":
        keras.utils.set_random_seed(seed)
        return
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def made(name, optimizer=None):
    """The model of an objective, compiled; the same weights every time."""
    seeded(0)
    model = OBJECTIVES[name]()
    model.compile(optimizer or keras.optimizers.SGD(RATE, momentum=0.9))
    return model


def state(model):
    """{kind: arrays} of all that must be equal on every replica."""
    averages = [
        variable
        for part in model.everything()
        for ema, _ in part.averages.pairs
        for variable in ema.averages
    ]
    kinds = {
        "weights": model.trainable_variables,
        "averages": averages,
        "optimizer": model.optimizer.variables,
    }
    return {
        kind: [part for v in variables for part in copies(v)]
        for kind, variables in kinds.items()
    }


def copies(variable):
    """A variable's value; of TensorFlow's replicas each has one, and all
    must be the same."""
    parts = [variable.value]
    if keras.backend.backend() == "tensorflow":
        parts = getattr(variable.value, "values", parts)
    first, *others = (processes.whole(part) for part in parts)
    for other in others:
        np.testing.assert_array_equal(first, other)
    return [first]


def kept(folder, epochs, share=slice(None), split=None):
    """A run that a Checkpoint keeps, in another place each time.

    Returns:
        (what was loaded, or None; what it is at the end; the epochs).
    """
    model = made("lsd", keras.optimizers.Adam(0.01))
    if split is not None:
        split(model)
    loaded = []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            loaded.append(state(model))

    keep = kf.callbacks.Checkpoint(folder, every_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        history = model.fit(
            X[share], batch_size=8, epochs=epochs, verbose=0,
            callbacks=[Look(), keep],
        )  # fmt: skip
    return loaded[0], state(model), history.epoch


def check_kept(before, after, epochs):
    """What one place had in the end, another began with, and went on."""
    worst = distance(after[0], before[1])
    assert max(worst.values()) == 0.0, worst
    assert max(distance(after[1], before[1]).values()) > 1e-3
    assert after[2] == list(range(epochs))
    for a, b in zip(after[0]["optimizer"], before[1]["optimizer"]):
        np.testing.assert_array_equal(a, b)


def trained(name, rows=slice(None), batch_size=ROWS, place=None, split=None):
    """{"losses", "gradients", "weights", ...} of STEPS steps of one batch.

    Args:
        name: of an objective.
        rows: those of the batch that this process has.
        batch_size: their number.
        place: see `global_noise`, or None.
        split: function that splits the model over processes, or None.
    """
    model = made(name)
    if split is not None:
        split(model)
    with global_noise(place):
        return _trained(model, name, rows, batch_size)


def _trained(model, name, rows, batch_size):
    x, labels = X[rows], LABELS[rows]
    data = (x, labels) if name in ("flow", "mean_flow") else (x,)
    before = state(model)["weights"]
    losses = []
    for _ in range(STEPS):
        history = model.fit(
            *data, batch_size=batch_size, shuffle=False, verbose=0
        )
        logs = {k: v[0] for k, v in history.history.items()}
        if keras.backend.backend() == "tensorflow":
            # That of a replica's share, before it is summed.
            del logs["gradient_norm"]
        losses.append([logs[k] for k in sorted(logs)])
        if len(losses) == 1:
            after = state(model)["weights"]
            gradients = [
                (a - b) / RATE for a, b in zip(before, after, strict=True)
            ]
    found = state(model)
    moved = [np.abs(a - b).max() for a, b in zip(before, found["weights"])]
    assert max(moved) > 3e-4, moved
    return {"losses": losses, "gradients": gradients, **found}


def distance(found, expected):
    """Largest difference, relative to the largest value if that is above 1."""
    assert found.keys() == expected.keys()
    worst = {}
    for kind in expected:
        pairs = list(zip(found[kind], expected[kind], strict=True))
        worst[kind] = max(
            float(np.max(np.abs(np.asarray(a) - np.asarray(b)) /
                         np.maximum(1.0, np.abs(np.asarray(b)))))
            for a, b in pairs
            if np.asarray(b).dtype.kind == "f"
        )  # fmt: skip
    return worst


@contextlib.contextmanager
def global_noise(place):
    """Let draws be those of the global batch, cut to this replica's rows.

    Args:
        place: function giving (index of the replica, number of replicas);
            None for no change.
    """
    if place is None:
        yield
        return
    module = importlib.import_module(
        f"keras.src.backend.{keras.backend.backend()}.random"
    )

    def shared(draw):
        def drawn(shape, *args, **kwargs):
            index, count = place()
            if count == 1 or len(shape) == 0:
                return draw(shape, *args, **kwargs)
            rows = shape[0]
            whole = draw((rows * count, *shape[1:]), *args, **kwargs)
            return whole[index * rows : (index + 1) * rows]

        return drawn

    names = ("normal", "uniform", "randint", "truncated_normal", "beta")
    before = {name: getattr(module, name) for name in names}
    for name, draw in before.items():
        setattr(module, name, shared(draw))
    try:
        yield
    finally:
        vars(module).update(before)
