"""`compile` and `fit` around it: each habit works or is one sentence."""

import warnings

import keras
import numpy as np
import pytest

import keras_flows as kf

BACKEND = keras.backend.backend()
X = np.random.default_rng(0).standard_normal((16, 2)).astype("float32")


def model_of(dtype=None):
    network = kf.networks.MLP(2, 8, 2, dtype=dtype)
    return kf.SiTInterface(network, ema=None, seed=0)


def compiled():
    model = model_of()
    model.compile("adam")
    return model


def trainable_layer(model):
    layers = model.network.layers
    return next(layer for layer in layers if layer.trainable_weights)


def weights(model):
    return [v.numpy().copy() for v in model.network.variables]


def test_fit_without_compile():
    with pytest.raises(ValueError, match=r"call compile\(optimizer\) first"):
        model_of().fit(X, verbose=0)


def test_holders_without_compile():
    inner = model_of()
    holder = kf.ReparametrizedInterface(inner, "variance_preserving")
    with pytest.raises(ValueError, match=r"call compile\(optimizer\) first"):
        holder.fit(X, verbose=0)


@pytest.mark.parametrize("freeze", ["layer", "thaw", "all"])
def test_freezing_after_the_first_fit_says_compile_again(freeze):
    model = model_of()
    layer = trainable_layer(model)
    layer.trainable = freeze != "thaw"
    model.compile("adam")
    model.fit(X, verbose=0)
    before = weights(model)
    if freeze == "all":
        model.trainable = False
    else:
        layer.trainable = not layer.trainable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, of some versions
        with pytest.raises(ValueError, match="(?i)compile again"):
            model.fit(X, verbose=0)
        for a, b in zip(before, weights(model)):
            np.testing.assert_array_equal(a, b)
        if freeze == "all":
            model.trainable = True
        model.compile("adam")
        frozen = [v.numpy().copy() for v in layer.weights]
        model.fit(X, verbose=0)
    moved = any(np.any(a != v.numpy()) for a, v in zip(frozen, layer.weights))
    assert moved == (freeze != "layer")


def test_freezing_before_the_first_fit_counts():
    model = compiled()
    layer = trainable_layer(model)
    layer.trainable = False
    before = [v.numpy().copy() for v in layer.weights]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, verbose=0)
    for a, v in zip(before, layer.weights):
        np.testing.assert_array_equal(a, v.numpy())


def test_nothing_to_train_is_said():
    model = model_of()
    model.trainable = False
    model.compile("adam")
    with pytest.raises(ValueError, match="Every weight.*frozen"):
        model.fit(X, verbose=0)


def test_overflow_under_a_loss_scale_is_not_an_empty_dataset():
    model = model_of()
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(), initial_scale=3e38
        )
    )
    with pytest.warns(UserWarning, match="No weight changed in 1 steps.*scale"):
        model.fit(5 * X, batch_size=16, verbose=0)
    assert int(model.optimizer.inner_optimizer.iterations.numpy()) == 0


def test_auto_is_saved_as_auto(tmp_path):
    model = compiled()
    model.fit(X, verbose=0)
    assert model.get_compile_config()["jit_compile"] == "auto"
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_compile_config()["jit_compile"] == "auto"
    assert int(again.optimizer.iterations.numpy()) == 1
    again.fit(X, verbose=0)


def test_a_file_that_asks_for_jit_trains_on_every_backend(tmp_path):
    model = compiled()
    model.fit(X, verbose=0)
    model._jit_asked = True  # as from JAX, where it is True
    model.save(tmp_path / "model.keras")
    if BACKEND == "torch":
        with pytest.warns(UserWarning, match="`jit_compile=True` is not for"):
            again = keras.models.load_model(tmp_path / "model.keras")
    else:
        again = keras.models.load_model(tmp_path / "model.keras")
    again.fit(X, verbose=0)
    assert int(again.optimizer.iterations.numpy()) == 2


@pytest.mark.parametrize("value", [True, "False", "yes", 2])
def test_jit_compile_is_checked(value):
    if value is True and BACKEND != "torch":
        pytest.skip("compiles here")
    with pytest.raises(ValueError, match="`jit_compile"):
        model_of().compile("adam", jit_compile=value)
