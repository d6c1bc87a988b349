"""What the logs say: of steps that did not count, and of weighted losses."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS = 16


def points(rows=ROWS):
    return np.random.default_rng(0).standard_normal((rows, 2)).astype("float32")


def mlp(two_times=False):
    keras.utils.set_random_seed(0)
    return kf.networks.MLP(2, width=8, depth=1, two_times=two_times)


def frozen(model):
    model.trainable = False
    return model


def ayf():
    teacher = frozen(kf.FlowMapInterface(mlp(True), "lsd", ema=None))
    return kf.FlowMapInterface(
        mlp(True), "ayf", teacher=teacher, ema=None, seed=0
    )


def scd():
    teacher = kf.ReparametrizedInterface(
        kf.SiTInterface(mlp(), ema=None), kf.interpolants.TrigFlow(0.5)
    )
    return kf.SCDInterface(
        mlp(), frozen(teacher), warmup_steps=0, ema=None, seed=0
    )


def policy():
    network = kf.networks.ChunkMLP(
        (4, 2), condition_dim=3, width=8, depth=1, two_times=True
    )
    return kf.Policy(kf.MeanFlowInterface(network, ema=None, seed=0))


MODELS = {
    "SiT": lambda: kf.SiTInterface(mlp(), ema=None, seed=0),
    "MeanFlow": lambda: kf.MeanFlowInterface(mlp(True), ema=None, seed=0),
    "LSD": lambda: kf.FlowMapInterface(mlp(True), "lsd", ema=None, seed=0),
    "EDM": lambda: kf.EDMInterface(mlp(), ema=None, seed=0),
    "consistency": lambda: kf.ConsistencyInterface(mlp(), ema=None, seed=0),
    "sCT": lambda: kf.SCTInterface(mlp(), warmup_steps=0, ema=None, seed=0),
    "sCD": scd,
    "AYF": ayf,
    "progressive": lambda: kf.ProgressiveInterface(
        frozen(kf.SiTInterface(mlp(), ema=None, seed=0)), num_steps=(2, 1)
    ),
}
WEIGHTED = ("MeanFlow", "sCT", "sCD", "AYF")


def models(*names):
    """Those of `names` on every backend, the others on one."""
    return [
        name if name in names else pytest.param(name, marks=pytest.mark.once)
        for name in MODELS
    ]


def spoiled_after(good, bad):
    """Batches, of which those from number `good` on are NaN, `bad` of them."""
    for i in range(good + bad):
        yield (points() * (np.nan if i >= good else 1.0),)


@pytest.mark.parametrize("name", models("MeanFlow"))
def test_an_epoch_of_skipped_steps_is_nan(name, tmp_path):
    """So that no callback takes it for the best, and one stops at it."""
    model = MODELS[name]()
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    path = str(tmp_path / "best.weights.h5")
    best = keras.callbacks.ModelCheckpoint(
        path, monitor="loss", save_best_only=True, save_weights_only=True
    )
    early = keras.callbacks.EarlyStopping(monitor="loss", patience=1)
    with pytest.warns(UserWarning, match=r"Skipped step 3 of this fit \(epoch "
                      r"2, batch index 0\)") as said:  # fmt: skip
        history = model.fit(
            spoiled_after(2, 6), steps_per_epoch=2, epochs=4, verbose=0,
            callbacks=[best, early],
        ).history  # fmt: skip
    loss = np.array(history["loss"])
    assert np.isfinite(loss[0]) and np.isnan(loss[1:]).all() and len(loss) == 2
    assert np.isnan(history["gradient_norm"][1])
    assert best.best == pytest.approx(loss[0])
    skipped = [str(w.message) for w in said if "Skipped" in str(w.message)]
    assert len(skipped) == 2 and "step 4 " in skipped[1]


def test_a_step_that_is_skipped_among_others_is_named_and_does_not_count():
    model = MODELS["SiT"]()
    model.compile(keras.optimizers.SGD(0.0))
    x = points(6 * ROWS).reshape(6, ROWS, 2)
    x[4] = np.nan
    model.fit(((b,) for b in x[:2]), steps_per_epoch=2, verbose=0)
    stop = keras.callbacks.TerminateOnNaN()
    with pytest.warns(UserWarning, match=r"step 5 .*epoch 2, batch index 1"):
        history = model.fit(
            ((b,) for b in x), steps_per_epoch=3, epochs=2, verbose=0,
            callbacks=[stop],
        ).history  # fmt: skip
    assert np.isfinite(history["loss"]).all()
    assert history["skipped_steps"] == [0.0, 1.0]
    assert np.isfinite(history["gradient_norm"]).all()


def test_terminate_on_nan_fires():
    model = MODELS["SiT"]()
    model.compile(keras.optimizers.SGD(1e-3))
    with pytest.warns(UserWarning, match="Skipped step 3"):
        history = model.fit(
            spoiled_after(2, 8), steps_per_epoch=2, epochs=5, verbose=0,
            callbacks=[keras.callbacks.TerminateOnNaN()],
        ).history  # fmt: skip
    assert len(history["loss"]) == 2 and model.stop_training


def test_an_overflow_that_a_loss_scaler_skips_is_in_no_mean():
    """The first scale is far too high: the norm of that step is infinite."""
    model = MODELS["SiT"]()
    scaler = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=2.0**127
    )
    model.compile(scaler)
    history = model.fit(
        points(8 * ROWS), batch_size=ROWS, epochs=2, verbose=0
    ).history
    assert np.isfinite(history["gradient_norm"]).all(), history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("name", models("MeanFlow"))
def test_the_logged_loss_tells_a_bad_model(name):
    """By far more output, by far more loss, in every model."""
    model = MODELS[name]()
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)

    def logs():
        return model.evaluate(points(), verbose=0, return_dict=True)

    before = logs()
    for v in model.network.trainable_variables[-2:]:
        v.assign(200.0 * v + 10.0)
    after = logs()
    assert after["loss"] > 5.0 * before["loss"], (before, after)
    assert ("weighted_loss" in after) == (name in WEIGHTED)
    if name == "MeanFlow":
        assert after["loss"] == pytest.approx(after["mse"])
        assert after["weighted_loss"] < 1.05 * before["weighted_loss"]


@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_of_the_weighted_loss(name):
    """The logs' names do not change what is minimised."""
    model = MODELS[name]()
    state = model.everything()[-1].seed_generator.state
    before = state.numpy()
    x = ops.convert_to_tensor(points())
    loss, means = model.compute((x,), training=True)
    state.assign(before)
    terms = model.loss(x)
    assert next(iter(terms)) == "loss"
    expected = float(ops.mean(terms["loss"]))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    model.compile(keras.optimizers.SGD(0.0))
    model._trackers["loss"].reset_state()
    found = model.record(means, ROWS)
    weighted = found.get("weighted_loss", found["loss"])
    assert float(weighted) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "held", ["MeanFlow", pytest.param("SiT", marks=pytest.mark.once)]
)
def test_a_model_around_a_model_logs_the_same_loss(held):
    """A policy's and a ReparametrizedInterface's are the held model's."""
    inner = MODELS[held]()
    model = kf.ReparametrizedInterface(inner, kf.interpolants.TrigFlow())
    found = []
    for each in (inner, model):
        each.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
        found.append(each.evaluate(points(), verbose=0, return_dict=True))
    assert found[0] == pytest.approx(found[1], rel=1e-5)
