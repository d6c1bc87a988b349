"""A network with `__init__` and `call` alone is a network like any other."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_flows as kf

register = keras.saving.register_keras_serializable("subclassed_test")
TORCH = keras.backend.backend() == "torch"


def numpy(x):
    return ops.convert_to_numpy(x)


@register
class Net(keras.Model):
    """Of any dict of inputs; with a layer that some of them never reach."""

    def __init__(self):
        super().__init__()
        self.times = kf.networks.TimeFeatures(2)
        self.labels = layers.Embedding(4, 3)
        self.hidden = layers.Dense(8, "silu")
        self.out = layers.Dense(2)

    def call(self, inputs):
        parts = [inputs["x"], self.times(inputs["t"])]
        if "r" in inputs:
            parts.append(self.times(inputs["r"]))
        if "condition" in inputs:
            parts.append(self.labels(inputs["condition"]))
        return self.out(self.hidden(ops.concatenate(parts, axis=-1)))


@register
class Around(keras.Model):
    """What Keras cannot describe: its constructor takes a layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        t = ops.expand_dims(inputs["t"], -1)
        return self.layer(ops.concatenate([inputs["x"], t], axis=-1))


class Unregistered(Net):
    """Not known to Keras by any name."""


class OneByOne(Net):
    """Called as other libraries call theirs."""

    def call(self, x, t, condition=None):
        return self.out(x)


class Bare(Net):
    """Takes x for the dict."""

    def call(self, inputs):
        return self.out(inputs)


class Wide(Net):
    """Returns one channel for two."""

    def call(self, inputs):
        return super().call(inputs)[:, :1]


X = np.random.default_rng(0).standard_normal((8, 2)).astype("float32")
LABELS = np.arange(8, dtype="int32") % 4

MODELS = {
    "sit": lambda net: kf.SiTInterface(net, ema=0.5, seed=0),
    "edm": lambda net: kf.EDMInterface(net, ema=0.5, seed=0),
    "mean_flow": lambda net: kf.MeanFlowInterface(net, ema=0.5, seed=0),
    "lsd": lambda net: kf.FlowMapInterface(net, "lsd", ema=0.5, seed=0),
    "shortcut": lambda net: kf.FlowMapInterface(
        net, "shortcut", ema=0.5, seed=0
    ),
    "consistency": lambda net: kf.ConsistencyInterface(
        net, ema=0.5, target_decay=0.5, seed=0
    ),
    "discrete": lambda net: kf.DiscreteInterface(net, ema=0.5, seed=0),
}


def compiled(model):
    model.compile(keras.optimizers.SGD(0.1))
    return model


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.once] * (name != "shortcut"))
        for name in MODELS
    ],
)
def test_it_trains_samples_saves_and_loads(name, tmp_path):
    model = compiled(MODELS[name](Net()))
    model.fit(X, LABELS, batch_size=4, verbose=0)
    given = {"condition": [0, 3, 1], "seed": 0, "num_steps": 2}
    if name in ("mean_flow", "lsd", "shortcut", "consistency"):
        given["num_steps"] = 1
    samples = numpy(model.generate(**given))
    assert samples.shape == (3, 2)
    live = numpy(model.generate(use_ema=False, **given))
    assert np.abs(samples - live).max() > 1e-4
    model.save_to_preset(tmp_path / "saved")
    again = kf.Interface.from_preset(tmp_path / "saved")
    np.testing.assert_allclose(
        numpy(again.generate(**given)), samples, atol=1e-5
    )
    assert again.sample_shape == (2,)


def test_its_average_is_that_of_its_weights():
    """a <- a + rate (w - a), rate = max(1 - decay, 9 / (9 + n)), by hand."""
    model = compiled(MODELS["sit"](Net()))
    model.train_on_batch(X)
    kernel = model.network.out.kernel
    expected = numpy(kernel)
    for n in (2, 3):
        model.train_on_batch(X)
        rate = max(0.5, 9.0 / (9.0 + n))
        expected = expected + rate * (numpy(kernel) - expected)
    average = model.emas[0].averaged()
    live = [v.path for v in model.network.variables]
    found = dict(zip(live, average.get_weights(), strict=True))
    # After the first update, of rate 0.9, the average is not yet the weights.
    assert np.abs(found[kernel.path] - numpy(kernel)).max() > 1e-5
    before = numpy(kernel)
    inputs = {"x": ops.convert_to_tensor(X), "t": ops.zeros(8)}
    averaged = numpy(average(inputs))
    model.network.set_weights(average.get_weights())
    np.testing.assert_allclose(
        numpy(model.network(inputs)), averaged, rtol=1e-5, atol=1e-6
    )
    assert np.abs(before - numpy(kernel)).max() > 1e-5


SEEN = {
    "arrays": lambda model: model.fit(X, batch_size=4, verbose=0),
    "train_on_batch": lambda model: model.train_on_batch(X),
    "evaluate": lambda model: model.evaluate(X, verbose=0),
    "noise": lambda model: model.generate(noise=X, num_steps=1),
}


@pytest.mark.once
@pytest.mark.parametrize("way", SEEN)
def test_it_is_built_by_the_first_batch_of(way):
    model = compiled(MODELS["sit"](Net()))
    assert model.sample_shape is None
    with pytest.raises(ValueError, match=r"`noise` is needed.*not built.*fit"):
        model.generate(2)
    SEEN[way](model)
    assert model.sample_shape == (2,)
    assert model.generate(3, num_steps=1).shape == (3, 2)


@pytest.mark.once
def test_a_generator_loses_no_batch():
    seen = []

    class Noting(Net):
        def call(self, inputs):
            if not isinstance(inputs["x"], keras.KerasTensor):
                seen.append(inputs["x"].shape[0])
            return super().call(inputs)

    def batches():
        for size in (3, 4, 5):
            yield (X[:size],)

    model = compiled(MODELS["sit"](Noting()))
    model.fit(batches(), verbose=0)
    assert seen[-3:] == [3, 4, 5]


class Plain(layers.Layer):
    """A layer that Keras knows by no name."""

    def call(self, x):
        return 2.0 * x


@pytest.mark.once
def test_averages_need_no_layer_that_keras_knows():
    x, t = keras.Input((2,), name="x"), keras.Input((), name="t")
    h = Plain()(x + layers.Reshape((1,))(t))
    network = keras.Model({"x": x, "t": t}, layers.Dense(2)(h))
    model = compiled(MODELS["sit"](network))
    model.fit(X, batch_size=4, verbose=0)
    assert model.generate(3, num_steps=2).shape == (3, 2)


@pytest.mark.once
def test_without_a_config_it_trains_and_samples_and_says_so_when_saved(
    tmp_path,
):
    model = compiled(MODELS["sit"](Around(layers.Dense(2))))
    model.fit(X, batch_size=4, verbose=0)
    assert model.generate(3, num_steps=2).shape == (3, 2)
    with pytest.raises(ValueError, match="saved or copied.*get_config"):
        model.save_to_preset(tmp_path / "saved")
    with pytest.raises(ValueError, match="saved or copied.*get_config"):
        model.trainable = False
        kf.DMDInterface(model)


@pytest.mark.once
@pytest.mark.parametrize("save", ["save_to_preset", "save"])
def test_an_unregistered_class_says_so_when_saved(save, tmp_path):
    model = compiled(MODELS["sit"](Unregistered()))
    model.train_on_batch(X)
    with pytest.raises(ValueError, match="`Unregistered`.*not registered.*put"):
        getattr(model, save)(str(tmp_path / "model.keras"))
    assert not list(tmp_path.iterdir())


@pytest.mark.once
def test_a_trained_one_teaches():
    teacher = compiled(MODELS["sit"](Net()))
    teacher.fit(X, batch_size=4, verbose=0)
    teacher.trainable = False
    student = compiled(kf.DMDInterface(teacher, fake_updates=1))
    student.fit(X, batch_size=4, verbose=0)
    first = numpy(teacher.network.out.kernel)
    assert np.abs(numpy(student.network.out.kernel) - first).max() > 1e-5
    assert student.generate(3, seed=0).shape == (3, 2)


WRONG = {
    "x and t one by one": (
        lambda: kf.SiTInterface(OneByOne()),
        r"`network` must take one dict.*call takes \(x, t, condition\)",
    ),
    "a Sequential": (
        lambda: kf.SiTInterface(keras.Sequential([layers.Dense(2)])),
        "`network` must take one dict.*Sequential",
    ),
    "x for the dict": (
        lambda: compiled(kf.SiTInterface(Bare())).fit(X, verbose=0),
        r"`network`.*dict of 'x', 't', x of shape \(batch, 2\)",
    ),
    "another shape": (
        lambda: compiled(kf.SiTInterface(Wide())).fit(X, verbose=0),
        r"`network`.*shape of its input 'x': \(batch, 2\).*\(batch, 1\)",
    ),
    "another shape, called before": (
        lambda: kf.SiTInterface(Wide()).pred(
            ops.convert_to_tensor(X), ops.zeros(8)
        ),
        r"`network`.*shape of its input 'x': \(batch, 2\).*\(batch, 1\)",
    ),
    "a policy of unknown chunks": (
        lambda: kf.policies.Policy(kf.FlowMapInterface(Net(), "mip")),
        "`interface`.*chunks.*call a subclassed network",
    ),
    "a teacher without weights": (
        lambda: kf.DMDInterface(kf.SiTInterface(Net(), ema=None)),
        "`teacher`.*not built yet",
    ),
    "export before fit": (
        lambda: kf.SiTInterface(Net()).export("nowhere"),
        "`network` is not built yet.*fit",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_sentence(case):
    make, message = WRONG[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()


@pytest.mark.skipif(TORCH, reason="docs/extending.md exports one there")
def test_it_exports(tmp_path):
    """The export is compared with `generate` as it is written."""
    model = compiled(MODELS["sit"](Net()))
    model.train_on_batch(X, LABELS)
    model.export(tmp_path / "served", num_steps=2, verbose=False)
    assert (tmp_path / "served" / "saved_model.pb").is_file()


@register
class Kept(keras.Model):
    """Its arguments are attributes of the same names."""

    def __init__(self, width=4, scale=1.0):
        super().__init__()
        self.width, self.scale = width, scale
        self.hidden, self.out = layers.Dense(width), layers.Dense(2)

    def call(self, inputs):
        t = ops.expand_dims(inputs["t"], -1)
        h = ops.concatenate([inputs["x"], t], axis=-1)
        return self.scale * self.out(self.hidden(h))


@register
class Lost(Kept):
    """One of its arguments is kept under another name."""

    def __init__(self, width=4, factor=1.0):
        super().__init__(width, factor)


@register
class Doubled(Kept):
    """An attribute that is not the argument of its name."""

    def __init__(self, width=4):
        super().__init__(2 * width)


@register
class Dropping(Kept):
    """What is lost is in a layer."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.drop = layers.Dropout(rate)


@register
class Needed(Kept):
    """An argument without a default."""

    def __init__(self, width):
        super().__init__(width)


def saved(network, folder):
    model = kf.SiTInterface(network, ema=None, seed=0)
    model.compile("adam")
    model.fit(np.random.randn(8, 2).astype("float32"), verbose=0)
    model.save_to_preset(folder)
    return model


@pytest.mark.once
@pytest.mark.parametrize(
    "network",
    [
        lambda: Kept(),
        lambda: Kept(scale=3.0),
        lambda: Kept(8, scale=-1.0),
        lambda: Needed(8),
        lambda: Lost(8),
    ],
)
def test_arguments_come_back_with_a_preset(network, tmp_path):
    model = saved(network(), tmp_path / "preset")
    again = kf.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(
        numpy(again.generate(3, num_steps=2, seed=0)),
        numpy(model.generate(3, num_steps=2, seed=0)),
        rtol=1e-5,
    )


@pytest.mark.once
@pytest.mark.parametrize(
    ("network", "told"),
    [
        (lambda: Lost(factor=3.0), "`scale` is 3.0, .* new one 1.0"),
        (lambda: Doubled(8), "`width` is 16, .* new one 32"),
        (lambda: Dropping(0.5), "layer 'dropout.*' is another one"),
    ],
)
def test_arguments_that_are_lost_are_refused(network, told, tmp_path):
    """Keras keeps the defaults of a model's arguments, whatever was given."""
    with pytest.raises(ValueError, match=f"{told}.*self.width = width"):
        saved(network(), tmp_path / "preset")
    assert not (tmp_path / "preset").exists()
