"""Networks whose layers were given LoRA or int8 weights after their making."""

import warnings

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf


def numpy(x):
    return ops.convert_to_numpy(x)


def network(name):
    if name == "mlp":
        return kf.networks.MLP(2, width=16, depth=1)
    return kf.networks.DiT((4, 4, 1), 2, width=16, depth=1, num_heads=2)


def model_of(name, ema=0.9):
    keras.utils.set_random_seed(0)
    model = kf.SiTInterface(network(name), ema=ema, seed=0)
    # A new DiT's output is zero.
    rng = np.random.default_rng(0)
    for v in model.network.trainable_variables:
        v.assign(numpy(v.value) + 0.1 * rng.standard_normal(v.shape))
    model.compile(keras.optimizers.SGD(0.1))
    return model


def data(name, num=16):
    shape = (2,) if name == "mlp" else (4, 4, 1)
    rng = np.random.default_rng(0)
    return rng.standard_normal((num, *shape)).astype("float32")


def sample(model, **kwargs):
    return numpy(model.generate(4, seed=0, num_steps=4, **kwargs))


def dense(model):
    """The dense layers of a network, those inside attention too."""
    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense)
    ]


NAMES = ("mlp", "dit")


@pytest.mark.parametrize("updated", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_average_follows_lora(name, updated):
    model = model_of(name)
    if updated:
        model.fit(data(name), verbose=0)
    for layer in dense(model.network):
        layer.enable_lora(2)
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.warns(UserWarning, match="starts anew"):
        model.fit(data(name), verbose=0)
    (ema,) = model.emas
    assert int(ema.updates.value) == 1
    live = [tuple(v.shape) for v in model.network.variables]
    assert [tuple(v.shape) for v in ema.averages] == live
    fixed = {id(v) for v in ema.variables}
    assert not fixed & {id(v) for v in model.trainable_variables}
    # Once, and no more.
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*starts anew")
        model.fit(data(name), verbose=0)
    assert int(ema.updates.value) == 2
    b = [np.abs(numpy(x.lora_kernel_b)).max() for x in dense(ema.averaged())]
    assert max(b) > 0


@pytest.mark.parametrize("name", NAMES)
def test_lora_survives_a_preset(name, tmp_path):
    model = model_of(name)
    for layer in dense(model.network):
        layer.enable_lora(2)
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.warns(UserWarning, match="starts anew"):
        model.fit(data(name), epochs=2, verbose=0)
    before, live = sample(model), sample(model, use_ema=False)
    assert np.abs(before - live).max() > 1e-5
    model.save_to_preset(tmp_path / "lora")
    loaded = kf.Interface.from_preset(tmp_path / "lora")
    close(sample(loaded), before, 5)
    close(sample(loaded, use_ema=False), live, 5)


@pytest.mark.parametrize(
    "name",
    [
        # A minute of compiling on JAX.
        pytest.param(name, marks=[pytest.mark.once] * (name == "dit"))
        for name in NAMES
    ],
)
@pytest.mark.parametrize("ema", [None, 0.9])
def test_int8_weights_sample_alike_and_reload(name, ema, tmp_path):
    model = model_of(name, ema)
    before = sample(model)
    model.network.quantize("int8")
    assert all(x.quantization_mode == "int8" for x in dense(model.network))
    numbers = [int(np.prod(v.shape)) for v in model.network.variables]
    quantised = [int(np.prod(x._kernel.shape)) for x in dense(model.network)]
    assert sum(quantised) > 0.5 * sum(numbers)
    # A new function of the sampler, whatever its cache holds.
    if ema is not None:
        with pytest.warns(UserWarning, match="starts anew"):
            after = sample(model)
    else:
        after = sample(model)
    error = np.abs(after - before).max() / before.std()
    assert 1e-6 < error < 0.1, error
    model.save_to_preset(tmp_path / "int8")
    loaded = kf.Interface.from_preset(tmp_path / "int8")
    assert all(x.quantization_mode == "int8" for x in dense(loaded.network))
    close(sample(loaded), after, 6)


@pytest.mark.parametrize("mode", ["int4", "float8"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match="'int8'"):
        network("dit").quantize(mode)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_has_the_same_changes(name):
    source = network(name)
    dense(source)[0].quantize("int8")
    dense(source)[0].enable_lora(3)
    dense(source)[1].enable_lora(2, 8)
    copy = kf.networks.clone_network(source, "copy")
    layer = dense(copy)[1]
    assert (layer.lora_rank, layer.lora_alpha) == (2, 8)
    assert dense(copy)[0].quantization_mode == "int8"
    for a, b in zip(source.variables, copy.variables, strict=True):
        np.testing.assert_array_equal(numpy(a.value), numpy(b.value))


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_slim_copy_has_the_same_changes(name, alone, tmp_path):
    """Of all layers, or of one of those inside attention alone."""
    model = model_of(name)
    layers = dense(model.network)
    for layer in layers[-2:-1] if alone else layers:
        layer.enable_lora(2)
    model.compile(keras.optimizers.SGD(0.1))
    with pytest.warns(UserWarning, match="starts anew"):
        model.fit(data(name), epochs=2, verbose=0)
    before = sample(model)
    copy = kf.presets.slim(model)
    assert not copy.emas
    assert [x.lora_enabled for x in dense(copy.network)] == [
        x.lora_enabled for x in layers
    ]
    close(sample(copy), before, 5)
    copy.save_to_preset(tmp_path / "slim")
    close(sample(kf.Interface.from_preset(tmp_path / "slim")), before, 5)
