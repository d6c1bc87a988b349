"""An average without an update is the live weights, wherever it is read."""

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf
from keras_flows.training import settle

BACKEND = keras.backend.backend()
PATH = kf.interpolants.Linear(0.0)


def points(num=32):
    return np.random.default_rng(0).standard_normal((num, 2)).astype("float32")


def network(**kwargs):
    return kf.networks.MLP(2, **{"width": 8, "depth": 1, **kwargs})


def numpy(x):
    return ops.convert_to_numpy(x)


def other_weights(model, seed=1):
    """New weights for a network, as `load_weights` would bring."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [0.3 * rng.standard_normal(v.shape) for v in model.variables]
    )


def same(a, b):
    for x, y in zip(a.variables, b.variables, strict=True):
        np.testing.assert_array_equal(numpy(x.value), numpy(y.value))


def chunks():
    x, t = keras.Input((4, 2), name="x"), keras.Input((), name="t")
    c = keras.Input((2, 3), name="condition")
    flat = keras.layers.Flatten
    h = [flat()(x), keras.layers.Reshape((1,))(t), flat()(c)]
    y = keras.layers.Dense(8)(keras.layers.Concatenate()(h))
    y = keras.layers.Reshape((4, 2))(y)
    network = keras.Model({"x": x, "t": t, "condition": c}, y)
    return kf.policies.Policy(
        kf.FlowMapInterface(network, "regression", ema=0.9, seed=0),
        act_steps=2,
        observation_normalizer="identity",
        action_normalizer="identity",
    )


def test_the_average_follows_new_weights_until_an_update():
    model = kf.SiTInterface(network(), ema=[0.9, kf.EMA(std=0.1)], seed=0)
    for seed in (1, 2):
        other_weights(model.network, seed)
        for ema in model.emas:
            same(ema.averaged(), model.network)
    model.compile("sgd")
    model.fit(points(), verbose=0)
    before = numpy(model.emas[0].averages[0].value)
    other_weights(model.network, 3)
    np.testing.assert_array_equal(
        numpy(model.emas[0].averaged().variables[0].value), before
    )


def test_weights_saved_without_averages_are_the_averages(tmp_path):
    source = kf.SiTInterface(network(), ema=None, seed=0)
    other_weights(source.network)
    source.network.save_weights(tmp_path / "n.weights.h5")
    model = kf.SiTInterface(network(), ema=0.9, seed=0)
    first = numpy(model.generate(4, seed=0, num_steps=2))
    model.network.load_weights(tmp_path / "n.weights.h5")
    expected = numpy(source.generate(4, seed=0, num_steps=2))
    found = numpy(model.generate(4, seed=0, num_steps=2))
    assert np.abs(first - expected).max() > 1e-3
    close(found, expected, 6)


def test_a_teachers_average_is_its_live_weights_in_a_step():
    def lmd(ema):
        keras.utils.set_random_seed(0)
        teacher = kf.SiTInterface(network(), interpolant=PATH, ema=ema, seed=0)
        teacher.trainable = False
        student = kf.FlowMapInterface(
            network(two_times=True), "lmd", teacher=teacher, ema=None, seed=0
        )
        other_weights(student.network, 3)
        student.compile("sgd")
        return student

    losses = {}
    for ema in (None, 0.9):
        model = lmd(ema)
        for method in ("evaluate", "test_on_batch", "train_on_batch"):
            for seed in (1, 2):
                other_weights(model.teacher.model.network, seed)
                x = points(16)
                if method == "evaluate":
                    loss = model.evaluate(x, verbose=0, return_dict=True)
                else:
                    loss = getattr(model, method)(x, return_dict=True)
                losses[ema, method, seed] = loss["loss"]
    for (ema, *rest), loss in losses.items():
        assert np.isclose(loss, losses[None, *rest], rtol=1e-5), (ema, rest)


@pytest.mark.parametrize("method", ["evaluate", "test_on_batch"])
def test_shortcuts_are_evaluated_with_the_live_weights(method):
    losses = {}
    for ema in (0.9, None):
        keras.utils.set_random_seed(0)
        model = kf.FlowMapInterface(
            network(two_times=True), "shortcut", ema=ema, seed=0
        )
        model.compile("sgd")
        for seed in (1, 2):
            other_weights(model.network, seed)
            if method == "evaluate":
                logs = model.evaluate(points(), verbose=0, return_dict=True)
            else:
                state = np.array([1, 0], "uint32")
                model.seed_generator.state.assign(state)
                logs = model.test_on_batch(points(), return_dict=True)
            losses[ema, seed] = logs["loss"]
    for seed in (1, 2):
        assert np.isclose(losses[0.9, seed], losses[None, seed], rtol=1e-5)


def test_a_policys_chunk_is_of_loaded_weights(tmp_path):
    observation = np.ones((3, 2, 3), "float32")
    first, second = chunks(), chunks()
    other_weights(first.interface.network)
    first.save_weights(tmp_path / "p.weights.h5")
    expected = first.predict_chunk(observation, seed=0)
    before = second.predict_chunk(observation, seed=0)
    # What the file holds of averages was never updated, and is stale.
    second.load_weights(tmp_path / "p.weights.h5")
    settle(second)
    found = second.predict_chunk(observation, seed=0)
    assert np.abs(before - expected).max() > 1e-3
    close(found, expected, 6)


def test_settle_reaches_everything_held():
    teacher = kf.SiTInterface(network(), interpolant=PATH, ema=0.9, seed=0)
    teacher.trainable = False
    model = kf.DMDInterface(teacher, kf.SiTInterface(
        network(), interpolant=PATH, ema=0.5, seed=0
    ))  # fmt: skip
    pairs = [(teacher.emas[0], teacher), (model.emas[0], model.interface)]
    for _, holder in pairs:
        other_weights(holder.network)
    settle(model)
    for ema, holder in pairs:
        same(ema._hidden.network, holder.network)
