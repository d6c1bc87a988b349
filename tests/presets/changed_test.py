"""A preset loaded with other arguments keeps every weight that still fits."""

import json
import pathlib
import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf


def numpy(x):
    return ops.convert_to_numpy(x)


def trained(model, x, y=None):
    model.compile(keras.optimizers.SGD(0.05))
    model.fit(*([x] if y is None else [x, y]), batch_size=4, verbose=0)
    return model


def digits_like(**options):
    network = kf.networks.DiT(
        (4, 4, 1), 2, width=8, depth=1, num_heads=2, num_classes=3
    )
    x = np.random.default_rng(0).standard_normal((8, 4, 4, 1))
    y = np.arange(8, dtype="int32") % 3
    model = kf.SiTInterface(network, seed=0, **{"ema": 0.9, **options})
    return trained(model, x.astype("float32"), y)


def points(network, cls=kf.SiTInterface, **options):
    x = np.random.default_rng(0).standard_normal((8, 2)).astype("float32")
    return trained(cls(network, seed=0, **options), x)


class Numbered(keras.Model):
    """A network whose layers have the names that Keras counts out."""

    def __init__(self, width=8, classes=2, name=None):
        x = keras.Input((2,), name="x")
        t = keras.Input((), name="t")
        h = keras.layers.Concatenate()([x, kf.networks.TimeFeatures(4)(t)])
        h = keras.layers.Dense(width)(h)
        h = keras.layers.Dense(classes + width)(h)
        h = keras.layers.Dense(2)(h)
        super().__init__({"x": x, "t": t}, h, name=name)
        self.sizes = {"width": width, "classes": classes}

    def get_config(self):
        return {**self.sizes, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


keras.saving.register_keras_serializable("changed_test")(Numbered)

# How a model is made, the other arguments, and parts of the paths of what
# then no longer fits.
CHANGES = {
    "classes": (digits_like, {"num_classes": 5}, ["label_embedding"]),
    "classes, two averages": (
        lambda: digits_like(ema=[0.9, kf.EMA(std=0.1)]),
        {"num_classes": 5},
        ["label_embedding"],
    ),
    "patches": (
        digits_like,
        {"patch_size": 1},
        ["patch_embedding", "final/out"],
    ),
    "one of the interface": (digits_like, {"cond_drop_ratio": 0.5}, []),
    "path": (
        digits_like,
        {"interpolant": kf.interpolants.Trigonometric(1.0)},
        [],
    ),
    "no averages": (digits_like, {"ema": None}, []),
    "averages": (lambda: digits_like(ema=None), {"ema": 0.9}, []),
    "name": (digits_like, {"name": "mine"}, []),
    "depth": (
        lambda: points(kf.networks.MLP(2, 8, 1)),
        {"depth": 2},
        ["hidden_1"],
    ),
    "features": (
        lambda: points(kf.networks.MLP(2, 8, 1)),
        {"network.time_features": 2},
        ["hidden_0/kernel"],
    ),
    "objective": (
        lambda: points(
            kf.networks.MLP(2, 8, 1, two_times=True), kf.FlowMapInterface
        ),
        {"objective": "psd", "diagonal_portion": 0.5},
        [],
    ),
    "layers without names": (
        lambda: points(Numbered()),
        {"classes": 3},
        ["dense"],
    ),
    "held": (
        lambda: kf.ReparametrizedInterface(
            digits_like(), kf.interpolants.Linear(0.0)
        ),
        {"num_classes": 5},
        ["label_embedding"],
    ),
}


def by_path(model):
    return {
        v.path.removeprefix(f"{model.name}/"): numpy(v.value)
        for v in model.variables
    }


# What fits is found among names and shapes; that a backend's variables have
# them, two tell.
EVERYWHERE = ("classes, two averages", "layers without names")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.once] * (name not in EVERYWHERE))
        for name in CHANGES
    ],
)
def test_what_fits_is_kept_and_the_rest_named(name, tmp_path):
    make, arguments, lost = CHANGES[name]
    model = make()
    model.save_to_preset(tmp_path / "preset")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        new = kf.from_preset(tmp_path / "preset", **arguments)
    told = "".join(
        str(w.message) for w in caught if "not loaded" in str(w.message)
    )
    assert bool(told) == bool(lost)
    for part in lost:
        assert part in told, told
    if name == "layers without names":
        # All names differ; what fits is told by its place among its like.
        same = [
            np.array_equal(numpy(a.value), numpy(b.value))
            for a, b in zip(model.network.variables, new.network.variables)
        ]
        assert same == [True, True, False, False, False, True]
        return
    before, after = by_path(model), by_path(new)
    kept = 0
    for path, value in after.items():
        fits = path in before and before[path].shape == value.shape
        if any(part in path for part in lost):
            continue
        if path.startswith("ema") and not any(p[:3] == "ema" for p in before):
            continue
        assert fits, path
        np.testing.assert_array_equal(value, before[path])
        kept += 1
    assert kept > 4
    # It trains on, and samples finite values.
    shape = new.sample_shape
    x = np.zeros((4, *shape), "float32")
    label = [np.arange(4, dtype="int32")] if new.null_label is not None else []
    new.compile("sgd")
    new.fit(x, *label, batch_size=4, verbose=0)
    condition = {"condition": label[0][:2]} if label else {}
    made = new.generate(2, seed=0, num_steps=2, **condition)
    assert np.isfinite(numpy(made)).all()


def test_a_fresh_weight_s_average_is_that_weight(tmp_path):
    digits_like().save_to_preset(tmp_path / "preset")
    with pytest.warns(UserWarning, match="label_embedding.*saved as"):
        new = kf.from_preset(tmp_path / "preset", num_classes=5)
    (ema,) = new.emas
    assert int(ema.updates.numpy()) == 2
    pairs = zip(new.network.variables, ema.averages, strict=True)
    different = [
        live.path
        for live, average in pairs
        if not np.array_equal(numpy(live.value), numpy(average.value))
    ]
    assert different and "label_embedding/embeddings" not in different


def test_no_weights_are_fresh_weights(tmp_path):
    digits_like().save_to_preset(tmp_path / "preset")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = kf.SiTInterface.from_preset(
            tmp_path / "preset", load_weights=False, num_classes=5
        )
    assert new.null_label == new.network.get_config()["num_classes"] == 5


@pytest.mark.once
def test_names_are_checked(tmp_path):
    network = kf.networks.ChunkMLP(2, 8, (2, 4), width=8, depth=1)
    encoder = kf.networks.PerStepMLPEncoder((2, 2), width=4)
    policy = kf.policies.Policy(
        kf.FlowMapInterface(network, "mip", ema=None), encoder, act_steps=2
    )
    policy.save_to_preset(tmp_path / "policy")
    with pytest.raises(ValueError, match="`num_clases` is no argument.*width"):
        kf.from_preset(tmp_path / "policy", num_clases=4)
    with pytest.raises(
        ValueError, match="(?s)`width` is ambiguous.*'encoder.width'"
    ):
        kf.from_preset(tmp_path / "policy", width=16)
    with pytest.warns(UserWarning, match="not loaded"):
        wide = kf.from_preset(
            tmp_path / "policy", **{"interface.network.width": 16}
        )
    assert wide.network.get_config()["width"] == 16
    assert wide.encoder.get_config()["width"] == 4


@pytest.mark.once
@pytest.mark.parametrize("name", kf.presets.names())
def test_shipped_presets_load_as_they_are(name):
    folder = kf.presets.preset_folder(name)
    config = json.loads(pathlib.Path(folder, "config.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kf.from_preset(name)
    assert type(model).__name__ == config["class_name"]


@pytest.mark.once
def test_a_shipped_classifier_head_changes():
    with pytest.warns(UserWarning, match=r"1 of \d+ weights.*label_embedding"):
        model = kf.from_preset("sit_digits", num_classes=4)
    old = kf.from_preset("sit_digits")
    assert model.null_label == 4
    before, after = by_path(old), by_path(model)
    assert set(before) == set(after)
    for path in set(before) - {"label_embedding/embeddings"}:
        np.testing.assert_array_equal(before[path], after[path])
