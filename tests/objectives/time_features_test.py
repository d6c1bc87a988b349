"""Networks of one's own with the default features of time learn jumps."""

import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_flows as kf

MODELS = {
    "flow": lambda n: kf.SiTInterface(n, ema=None, seed=0),
    "lsd": lambda n: kf.FlowMapInterface(n, "lsd", ema=None, seed=0),
    "mean_flow": lambda n: kf.MeanFlowInterface(n, ema=None, seed=0),
}
JUMPS = ("lsd", "mean_flow")
TOO_FAST = {"max_frequency": 100.0}


def conv(two_times, **options):
    shape, width = (16, 2), 16
    x, inputs, times = embedded(shape, two_times, options)
    h = layers.Conv1D(width, 5, padding="same")(x)
    for _ in range(2):
        shift = layers.Reshape((1, width))(layers.Dense(width)(times))
        h = layers.Add()([h, shift])
        h = layers.Conv1D(width, 5, padding="same", activation="silu")(h)
    return keras.Model(inputs, layers.Conv1D(2, 5, padding="same")(h))


def mlp(two_times, **options):
    x, inputs, times = embedded((2,), two_times, options)
    h = layers.Concatenate()([x, times])
    for _ in range(2):
        h = layers.Dense(64, activation="silu")(h)
    return keras.Model(inputs, layers.Dense(2)(h))


def embedded(shape, two_times, options):
    """(x, inputs, a dense layer of the features of the times)."""
    inputs = {"x": keras.Input(shape, name="x"), "t": keras.Input((), name="t")}
    if two_times:
        inputs["r"] = keras.Input((), name="r")
    times = [
        kf.networks.TimeFeatures(**options)(inputs[name])
        for name in inputs
        if name != "x"
    ]
    times = layers.Concatenate()(times) if two_times else times[0]
    return inputs["x"], inputs, layers.Dense(32, activation="silu")(times)


def data(network, num, seed=0):
    """Sines of any phase; for the perceptron, their values at two places."""
    phase = np.random.default_rng(seed).uniform(0.0, 2.0 * np.pi, (num, 1))
    at = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)[None]
    x = np.stack([np.sin(at + phase), np.cos(at + phase)], axis=-1)
    return (x if network is conv else x[:, 0]).astype("float32")


def trained(network, objective, steps, options):
    keras.utils.set_random_seed(0)
    model = MODELS[objective](network(objective != "flow", **options))
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(keras.optimizers.Adam(rate))
    x = data(network, 128 * steps)
    return model, model.fit(x, batch_size=128, verbose=0).history


def velocity_loss(network, objective):
    """|u(x_t, t, t) - dx_t/dt|^2 after a short training."""
    model, _ = trained(network, objective, 100, {})
    path, rng = model.interpolant, np.random.default_rng(1)
    x = data(network, 2048, seed=1)
    level = rng.uniform(0.02, 0.98, len(x)).astype("float32")
    noise = rng.standard_normal(x.shape).astype("float32")
    t = path.time_of_level(ops.convert_to_tensor(level))
    x, noise = map(ops.convert_to_tensor, (x, noise))
    v = model.pred(model.sample_x_t(x, noise, t), t)
    return float(ops.mean(ops.square(v - path.velocity(x, noise, t))))


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(("network", "limit"), [(conv, 1.4), (mlp, 1.1)])
def test_a_flow_map_learns_the_velocity_that_a_flow_does(network, limit):
    """At 100 radians: 2.9 and 1.26 times. In 250 steps the first is 1.04."""
    expected = velocity_loss(network, "flow")
    assert velocity_loss(network, "lsd") < limit * expected


@pytest.mark.once
@pytest.mark.parametrize("network", [conv, mlp])
def test_the_target_of_mean_flow_is_no_noise(network):
    """At 100 radians its error is 15 and 2.3 times that of the velocity."""
    _, logs = trained(network, "mean_flow", 40, {})
    assert logs["map_loss"][0] < 2.0 * logs["velocity_loss"][0]


@pytest.mark.once
@pytest.mark.parametrize("objective", JUMPS)
def test_a_map_loss_far_above_the_velocity_is_told_once(objective):
    with pytest.warns(UserWarning, match="`max_frequency`") as caught:
        trained(conv, objective, 16, TOO_FAST)
    told = [w for w in caught if "`max_frequency`" in str(w.message)]
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*max_frequency")
        trained(conv, objective, 16, {})


@pytest.mark.once
def test_the_builtin_presets_keep_their_own_frequencies():
    """Saved by name, and no default of today."""
    classes = ("MLP", "ChunkMLP", "PolicyRNN", "TimeFeatures")
    found = []

    def look(config):
        if isinstance(config, dict):
            if config.get("class_name") in classes:
                found.append(config["config"]["max_frequency"])
            config = list(config.values())
        for value in config if isinstance(config, list) else ():
            look(value)

    folder = pathlib.Path(kf.presets.__file__).parent / "builtin"
    for file in sorted(folder.glob("*/config.json")):
        look(json.loads(file.read_text()))
    assert sorted(found) == [20.0, 20.0, 100.0, 100.0]


@pytest.mark.once
@pytest.mark.parametrize(
    "two_times, options, scale",
    [
        (False, {}, 16.0),
        (True, {}, 0.5),
        (True, {"noise_scale": 16.0}, 16.0),
    ],
)
def test_random_frequencies_are_slow_where_there_are_two_times(
    two_times, options, scale
):
    """NCSN++: EDM's frequencies for a flow, 32 times slower for a map."""
    network = kf.networks.SongUNet(
        (4, 4, 1), 16, (1,), 1, (), architecture="ncsn++",
        two_times=two_times, **options,
    )  # fmt: skip
    drawn = np.random.default_rng(0).normal(0.0, scale, 16)
    found = [v for v in network.non_trainable_variables if v.name == "freqs"]
    assert len(found) == 1 + two_times
    for variable in found:
        np.testing.assert_allclose(ops.convert_to_numpy(variable), drawn, 1e-6)
