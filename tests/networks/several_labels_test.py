"""Networks of several labels an example, and the keys of their conditions."""

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf
from keras_flows.export.plan import unless_known

COUNTS = {"shape": 4, "hue": 7, "area": 3}


def dit(counts=COUNTS):
    return kf.networks.DiT(
        (8, 8, 3), 4, width=8, depth=1, num_heads=2, num_classes=counts
    )


def ddt(counts=COUNTS):
    return kf.networks.DDT(
        (8, 8, 3), 4, 8, 1, 1, num_heads=2, num_classes=counts
    )


def lightning(counts=COUNTS):
    return kf.networks.LightningDiT(
        (8, 8, 3), 4, width=8, depth=1, num_heads=2, num_classes=counts
    )


def unet(counts=COUNTS, kind="SongUNet"):
    return getattr(kf.networks, kind)(
        (8, 8, 3), channels=8, channel_mult=(1,), num_blocks=1,
        attn_resolutions=(), num_classes=counts,
    )  # fmt: skip


def adm(counts=COUNTS):
    return unet(counts, "DhariwalUNet")


def awake(network, rng):
    """Weights that are all at work: gates and heads start at zero."""
    for weight in network.trainable_variables:
        weight.assign(0.3 * rng.standard_normal(weight.shape))
    return network


def numpy(x):
    return ops.convert_to_numpy(x)


@pytest.mark.parametrize("make", [dit, ddt, lightning, unet, adm])
def test_each_label_acts_through_its_own_embedding(make, rng):
    model = kf.SiTInterface(awake(make(), rng), ema=None)
    x = rng.standard_normal((2, 8, 8, 3)).astype("float32")

    def pred(**labels):
        labels = {"shape": 1, "hue": 6, "area": 0, **labels}
        condition = {k: np.full(2, v, "int32") for k, v in labels.items()}
        return numpy(model.pred(x, 0.5, condition=condition))

    base = pred()
    for key, count in COUNTS.items():
        seen = [pred(**{key: k}) for k in range(count + 1)]
        apart = [
            np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]
        ]
        # Null labels, of number `count`, included.
        assert min(apart) > 1e-4, key
    assert model.null_label == {"shape": 4, "hue": 7, "area": 3}
    # The order of the caller's keys does not count.
    backwards = {"area": 0, "hue": 6, "shape": 1}
    condition = {k: np.full(2, v, "int32") for k, v in backwards.items()}
    close(numpy(model.pred(x, 0.5, condition=condition)), base, 6)


def test_the_order_of_keys_in_a_config_does_not_count(tmp_path, rng):
    """JSON sorts them; equal counts would swap two embeddings unseen."""
    network = awake(dit({"wall": 5, "floor": 5}), rng)
    network.save_to_preset(tmp_path / "network")
    again = kf.networks.DiT.from_preset(tmp_path / "network")
    for a, b in zip(network.weights, again.weights, strict=True):
        assert a.path == b.path
        np.testing.assert_array_equal(numpy(a), numpy(b))


def test_labels_are_checked_by_name(rng):
    model = kf.SiTInterface(dit(), ema=None, seed=0)
    good = {"shape": [0, 3], "hue": [1, 6], "area": [2, 0]}
    x = model.generate(2, condition=good, num_steps=1, seed=0)
    assert tuple(x.shape) == (2, 8, 8, 3)
    for change, message in (
        ({"hue": [1, 9]}, r"`condition\['hue'\]`.*0 to 6.*1 to 9"),
        ({"hue": [0.5, 1.0]}, r"`condition\['hue'\]`.*integer"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(2, condition=good | change, num_steps=1)
    surplus = good | {"pose": [0, 0]}
    missing = {k: good[k] for k in ("shape", "hue")}
    for condition in (surplus, missing):
        labels = {k: np.asarray(v, "int32") for k, v in condition.items()}
        for call in (
            lambda c: model.generate(2, condition=c, num_steps=1),
            lambda c: model.pred(
                np.zeros((2, 8, 8, 3), "float32"), 0.5, condition=c
            ),
        ):
            with pytest.raises(ValueError, match="dict of.*area.*hue.*shape"):
                call(labels)


@pytest.mark.once
def test_rows_of_unknown_labels_are_nan_in_an_export():
    labels = kf.SiTInterface(dit(), ema=None).labels()
    inputs = {
        "condition_shape": [4, 5, 0, 0],
        "condition_hue": [7, 0, 8, 0],
        "condition_area": [3, 0, 0, -1],
    }
    inputs = {k: ops.convert_to_tensor(v, "int32") for k, v in inputs.items()}
    found = numpy(unless_known(labels, inputs, ops.ones((4, 2))))
    assert np.isnan(found).all(axis=1).tolist() == [False, True, True, True]
    np.testing.assert_array_equal(found[0], 1.0)


def test_guidance_away_from_no_labels(rng):
    model = kf.SiTInterface(awake(dit(), rng), ema=None, seed=0)
    condition = {k: np.ones(2, "int32") for k in COUNTS}
    null = {k: np.full(2, n, "int32") for k, n in COUNTS.items()}
    noise = rng.standard_normal((2, 8, 8, 3)).astype("float32")

    def step(condition, scale=1.0):
        return numpy(
            model.generate(
                noise=noise, condition=condition, guidance_scale=scale,
                num_steps=1, sampler="euler",
            )
        )  # fmt: skip

    with_, without = step(condition), step(null)
    close(step(condition, 2.0), 2.0 * with_ - without, 5)


@pytest.mark.parametrize(
    "counts", [{}, {"a": 0}, {"a": 2.5}, {1: 2}, {"a": True}, {"a": None}]
)
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="`num_classes"):
        dit(counts)


def test_networks_of_ones_own_get_their_keys_in_order(rng):
    """A functional network whose keys are in no alphabetical order."""
    inputs = {
        "x": keras.Input((3,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": {
            "z": keras.Input((2,), name="z"),
            "a": keras.Input((2,), name="a"),
        },
    }
    c = inputs["condition"]
    y = inputs["x"] + ops.sum(c["z"], -1, keepdims=True)
    y = y + 10.0 * ops.sum(c["a"], -1, keepdims=True)
    model = kf.SiTInterface(keras.Model(inputs, y), ema=None)
    x = np.zeros((2, 3), "float32")
    a, z = np.ones((2, 2), "float32"), np.zeros((2, 2), "float32")
    for condition in ({"a": a, "z": z}, {"z": z, "a": a}):
        close(numpy(model.pred(x, 0.5, condition=condition)), 20.0 + x, 6)
