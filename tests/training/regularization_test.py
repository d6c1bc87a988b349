"""What regularisers and `add_loss` of the network give is in the loss."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_flows as kf

X = np.random.default_rng(0).standard_normal((8, 2)).astype("float32")
L2 = keras.regularizers.L2(10.0)


@keras.saving.register_keras_serializable("regularization_test")
class Adding(layers.Layer):
    """Adds a loss of 7 in each call."""

    def call(self, x):
        self.add_loss(7.0 + 0.0 * ops.sum(x))
        return x


def network(kind=None, two_times=False, dim=2):
    """A network of one dense layer of ones, and what it adds to the loss."""
    inputs = {k: keras.Input((), name=k) for k in ("t", "r")[: 1 + two_times]}
    inputs["x"] = keras.Input((dim,), name="x")
    h = layers.Concatenate()(
        [layers.Reshape((-1,))(part) for part in inputs.values()]
    )
    h = layers.Dense(
        dim,
        kernel_initializer="ones",
        kernel_regularizer=L2 if kind == "kernel" else None,
        activity_regularizer=L2 if kind == "activity" else None,
        name="dense",
    )(h)
    return keras.Model(inputs, Adding()(h) if kind == "add_loss" else h)


def frozen(kind):
    teacher = kf.SiTInterface(network(kind), ema=0.9)
    teacher.trainable = False
    return teacher


def tokens(kind):
    """A network whose layer "dense" has tokens, for REPA."""
    x = keras.Input((4, 2), name="x")
    t = keras.Input((), name="t")
    dense = layers.Dense(
        2,
        kernel_regularizer=L2 if kind == "kernel" else None,
        activity_regularizer=L2 if kind == "activity" else None,
        name="dense",
    )
    h = dense(x + layers.Reshape((1, 1))(t))
    return keras.Model(
        {"x": x, "t": t}, Adding()(h) if kind == "add_loss" else h
    )


def repa(kind):
    model = kf.SiTInterface(tokens(kind), ema=0.9, seed=0)
    image = keras.Input((4, 2))
    encoder = keras.Model(image, layers.Dense(3)(image))
    return kf.REPAInterface(
        model, feature_dim=3, proj_dim=4, layer="dense", encoder=encoder
    )


def policy(kind):
    """The encoder adds to the loss, and trains with the network."""
    history = keras.Input((1, 2), name="observation")
    dense = layers.Dense(
        2,
        kernel_initializer="ones",
        kernel_regularizer=L2 if kind == "kernel" else None,
        activity_regularizer=L2 if kind == "activity" else None,
    )
    h = dense(history)
    encoder = keras.Model(history, Adding()(h) if kind == "add_loss" else h)
    chunk = kf.networks.ChunkMLP(2, 4, (1, 2), False, 8, 1, time_features=2)
    model = kf.policies.Policy(
        kf.FlowMapInterface(chunk, "flow", ema=0.9, seed=0),
        encoder,
        act_steps=1,
        observation_normalizer="identity",
        action_normalizer="identity",
    )
    model.adapt([{"action": np.zeros((9, 2)), "observation": np.ones((9, 2))}])
    return model


def dmd(kind):
    """A copy of the teacher's network trains, and the fake one: both add."""
    return kf.DMDInterface(frozen(kind), fake_updates=1)


MODELS = {
    "sit": lambda kind: kf.SiTInterface(network(kind), ema=0.9, seed=0),
    "edm": lambda kind: kf.EDMInterface(network(kind), ema=0.9, seed=0),
    "lsd": lambda kind: kf.FlowMapInterface(
        network(kind, True), "lsd", ema=0.9, seed=0, norm="l1"
    ),
    "mean_flow": lambda kind: kf.MeanFlowInterface(
        network(kind, True), ema=0.9, seed=0
    ),
    "consistency": lambda kind: kf.ConsistencyInterface(
        network(kind), ema=0.9, target_decay=0.9, seed=0
    ),
    "reparametrized": lambda kind: kf.ReparametrizedInterface(
        kf.SiTInterface(network(kind), ema=0.9, seed=0), "trigonometric"
    ),
    "repa": repa,
    "policy": policy,
    "dmd": dmd,
}
# A JVP, and branches of a graph: what is noted inside must come out.
EVERYWHERE = {("lsd", "activity"), ("dmd", "activity"), ("dmd", "kernel")}


def batch_of(name):
    if name == "repa":
        return (np.tile(X[:, None], (1, 4, 1)),)
    if name == "policy":
        return np.tile(X[:, None], (1, 4, 1)), np.ones((8, 1, 2), "float32")
    return (X,)


def penalty_of_kernels(model):
    return sum(
        10.0 * float(ops.sum(ops.square(v)))
        for v in model.trainable_variables
        if v.regularizer is not None
    )


def step(model, batch):
    return {
        name: float(value)
        for name, value in model.train_on_batch(
            *batch, return_dict=True
        ).items()
    }


@pytest.mark.parametrize(
    "name, kind",
    [
        pytest.param(
            name, kind,
            marks=[pytest.mark.once] * ((name, kind) not in EVERYWHERE),
        )
        for name in MODELS
        for kind in ("kernel", "activity", "add_loss")
    ],
)  # fmt: skip
def test_it_is_in_the_loss_and_in_the_logs(name, kind):
    model = MODELS[name](kind)
    model.compile(keras.optimizers.SGD(1e-4))
    batch = batch_of(name)
    kernels = penalty_of_kernels(model)
    logs = step(model, batch)
    added = logs["regularization"]
    if kind == "kernel":
        assert added == pytest.approx(kernels, rel=1e-5)
    elif kind == "add_loss":
        assert added == pytest.approx(7.0, rel=1e-5)
    else:
        assert added > 1.0
    parts = {"sit": ("mse",), "policy": ("mse",), "lsd": (
        "velocity_loss", "map_loss",
    )}.get(name)  # fmt: skip
    if parts is not None:
        rest = sum(logs[part] for part in parts)
        assert logs["loss"] == pytest.approx(rest + added, rel=1e-4)
    scores = model.test_on_batch(*batch, return_dict=True)
    assert float(scores["regularization"]) > 1.0


@pytest.mark.parametrize(
    "kind", ["kernel", pytest.param("activity", marks=pytest.mark.once)]
)
def test_it_moves_the_weights(kind):
    """Against the same step without: w <- w - rate 2 * 10 w for a kernel."""
    kernels = {}
    for with_it in (None, kind):
        model = MODELS["sit"](with_it)
        model.compile(keras.optimizers.SGD(1e-3))
        step(model, (X,))
        kernels[with_it] = ops.convert_to_numpy(
            model.network.get_layer("dense").kernel
        )
    difference = kernels[kind] - kernels[None]
    if kind == "kernel":
        np.testing.assert_allclose(difference, -1e-3 * 20.0, rtol=1e-3)
    assert np.abs(difference).max() > 1e-3


@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_without_any_there_is_no_term(name):
    model = MODELS[name](None)
    model.compile(keras.optimizers.SGD(1e-4))
    batch = batch_of(name)
    assert "regularization" not in step(model, batch)
    scores = model.test_on_batch(*batch, return_dict=True)
    assert "regularization" not in scores


@pytest.mark.once
@pytest.mark.parametrize("kind", ["kernel", "activity", "add_loss"])
def test_teachers_add_nothing(kind):
    """A teacher on Linear(noise_at=0.0), whose student adds nothing."""
    teacher = kf.FlowMapInterface(network(kind), "flow", ema=0.9)
    teacher.trainable = False
    model = kf.FlowMapInterface(
        network(None, True), "lmd", teacher=teacher, ema=0.9, seed=0
    )
    model.compile(keras.optimizers.SGD(1e-4))
    assert "regularization" not in step(model, (X,))


@pytest.mark.once
@pytest.mark.parametrize("turn", [0, 1])
def test_each_of_two_networks_has_its_own(turn):
    """Only the network whose turn it is moves by its activity."""
    model = dmd("activity")
    model.compile(keras.optimizers.SGD(1e-4))
    for _ in range(turn):
        step(model, (X,))
    students = [ops.convert_to_numpy(v) for v in model.network.variables]
    fakes = [ops.convert_to_numpy(v) for v in model.fake_network.variables]
    step(model, (X,))
    moved = [
        max(
            np.abs(old - ops.convert_to_numpy(v)).max()
            for old, v in zip(before, network.variables)
        )
        for before, network in (
            (students, model.network), (fakes, model.fake_network),
        )
    ]  # fmt: skip
    assert moved[turn] > 1e-4 and moved[1 - turn] == 0.0
