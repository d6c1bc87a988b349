"""What a network takes and gives is held to: free sizes, and its output."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_flows as kf


def audio(two_times=False, condition=False):
    """Waves (B, any length, 1), and with a condition tokens (B, any, 6)."""
    inputs = {"x": keras.Input((None, 1), name="x")}
    for name in ("t", "r")[: 1 + two_times]:
        inputs[name] = keras.Input((), name=name)
    h = layers.Conv1D(4, 3, padding="same", activation="silu")(inputs["x"])
    for name in list(inputs)[1:]:
        time = kf.networks.TimeFeatures(2)(inputs[name])
        h = h + layers.Reshape((1, 4))(layers.Dense(4)(time))
    if condition:
        inputs["condition"] = keras.Input((None, 6), name="condition")
        tokens = layers.GlobalAveragePooling1D()(inputs["condition"])
        h = h + layers.Reshape((1, 4))(layers.Dense(4)(tokens))
    return keras.Model(inputs, layers.Conv1D(1, 3, padding="same")(h))


class Waves(keras.utils.PyDataset):
    """Batches of other lengths, of data and of tokens."""

    def __init__(self, condition):
        super().__init__()
        self.condition = condition

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        x = rng.standard_normal((4, (8, 12, 9)[index], 1))
        tokens = rng.standard_normal((4, (2, 5, 3)[index], 6))
        parts = (x, tokens) if self.condition else (x,)
        return tuple(part.astype("float32") for part in parts)


FREE = {
    "flow": lambda: kf.SiTInterface(
        audio(condition=True), ema=0.9, seed=0, t_shift_base=4
    ),
    "edm": lambda: kf.EDMInterface(audio(), ema=0.9, seed=0),
    "flow map": lambda: kf.FlowMapInterface(
        audio(True), "lsd", ema=0.9, seed=0, norm="pseudo_huber"
    ),
    "mean flow": lambda: kf.MeanFlowInterface(audio(True), ema=0.9, seed=0),
    "consistency": lambda: kf.ConsistencyInterface(audio(), ema=0.9, seed=0),
}
# A shift and rows that are split, which need the size in TensorFlow's graph.
EVERYWHERE = ("flow",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.once] * (name not in EVERYWHERE))
        for name in FREE
    ],
)
def test_free_sizes_differ_between_batches(name):
    model = FREE[name]()
    model.compile("sgd")
    condition = "condition" in kf.networks.input_names(model.network)
    history = model.fit(Waves(condition), verbose=0).history
    assert np.isfinite(history["loss"]).all()
    given = {"num_steps": 1}
    if condition:
        given["condition"] = np.zeros((4, 7, 6), "float32")
    noise = np.random.default_rng(0).standard_normal((4, 20, 1))
    noise = noise.astype("float32")
    assert model.generate(noise=noise, **given).shape == (4, 20, 1)
    with pytest.raises(ValueError, match=r"`noise` is needed.*\(None, 1\)"):
        model.generate(4, **given)


@pytest.mark.once
@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((4, 9, 2)), r"`x` must have shape \(batch, None, 1\)"),
        (np.zeros((4, 9)), r"`x` must have shape \(batch, None, 1\)"),
    ],
)
def test_fixed_sizes_still_count(x, message):
    model = FREE["edm"]()
    model.compile("sgd")
    with pytest.raises(ValueError, match=message):
        model.fit(x.astype("float32"), verbose=0)
    with pytest.raises(ValueError, match=r"`condition`.*None, 6\)"):
        FREE["flow"]().loss(
            ops.zeros((4, 9, 1)), ops.zeros((4, 3, 5))
        )  # fmt: skip


@pytest.mark.once
def test_free_sizes_export(tmp_path):
    """The export is compared with `generate` as it is written."""
    model = FREE["flow"]()
    model.export(tmp_path / "served", num_steps=1, verbose=False)
    with pytest.raises(ValueError, match="fixed sizes"):
        kf.serving.sources.from_export(tmp_path / "served")


def image_network(channels, two_times=False):
    """Of RGB images, with an output of other channels."""
    inputs = {"x": keras.Input((4, 4, 3), name="x")}
    for name in ("t", "r")[: 1 + two_times]:
        inputs[name] = keras.Input((), name=name)
    h = inputs["x"]
    for name in list(inputs)[1:]:
        h = h + layers.Reshape((1, 1, 1))(inputs[name])
    return keras.Model(inputs, layers.Conv2D(channels, 1)(h))


def frozen():
    teacher = kf.SiTInterface(image_network(3), ema=None)
    teacher.trainable = False
    return teacher


ENTRIES = {
    "sit": lambda net: kf.SiTInterface(net(), ema=None),
    "edm": lambda net: kf.EDMInterface(net(), ema=None),
    "mean_flow": lambda net: kf.MeanFlowInterface(net(True), ema=None),
    "flow_map": lambda net: kf.FlowMapInterface(net(True), "lsd", ema=None),
    "policy": lambda net: kf.FlowMapInterface(net(), "mip", ema=None),
    "consistency": lambda net: kf.ConsistencyInterface(net(), ema=None),
    "discrete": lambda net: kf.DiscreteInterface(net(), ema=None),
    "sct": lambda net: kf.SCTInterface(net(), ema=None),
    "bridge": lambda net: kf.StochasticInterpolantInterface(
        net(), image_network(3), ema=None
    ),
    "noise network": lambda net: kf.StochasticInterpolantInterface(
        image_network(3), net(), ema=None
    ),
    "student": lambda net: kf.DMDInterface(
        frozen(), kf.SiTInterface(net(), ema=None)
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("channels", [1, 6])
@pytest.mark.parametrize("name", ENTRIES)
def test_an_output_of_another_shape_is_refused_where_it_enters(name, channels):
    with pytest.raises(
        ValueError,
        match=rf"`network`.*shape of its input 'x': \(batch, 4, 4, 3\)"
        rf".*\(batch, 4, 4, {channels}\)",
    ):
        ENTRIES[name](lambda two=False: image_network(channels, two))


@pytest.mark.once
def test_an_output_of_another_size_is_refused_where_sizes_are_free():
    """Known only when called: here one output would broadcast over time."""
    x, t = keras.Input((None, 1), name="x"), keras.Input((), name="t")
    h = layers.Lambda(lambda x: ops.mean(x, axis=1, keepdims=True))(x)
    network = keras.Model(
        {"x": x, "t": t}, h[:, : ops.shape(h)[1]] + layers.Reshape((1, 1))(t)
    )
    wide = keras.Model(
        {"x": x, "t": t}, layers.Conv1D(1, 3)(x) + layers.Reshape((1, 1))(t)
    )
    for net in (network, wide):
        with pytest.raises(ValueError, match="`network`.*shape of its input"):
            kf.SiTInterface(net, ema=None).loss(ops.zeros((4, 9, 1)))


@pytest.mark.once
def test_a_discriminator_takes_what_it_is_given():
    """A key too many would go in by position, and mix the inputs up."""
    x = keras.Input((4, 4, 3), name="x")
    with pytest.raises(ValueError, match=r"`network`.*needs \['t'\] as well"):
        kf.DMDInterface(
            frozen(), discriminator=keras.Model({"x": x}, layers.Flatten()(x))
        )
