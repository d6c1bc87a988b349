"""Conditions are dropped by example: labels, vectors, tokens, dicts."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS = 4000
NUMBERS = {"class": 5, "text": 0.0}


def network(kind, two_times=False, null_label=None):
    """A small functional network of (x, t[, r], condition)."""
    shapes = {
        "integers": ((4,), "int32"),
        "floats": ((3, 2), "float32"),
        "dict": {"class": ((), "int32"), "text": ((3, 2), "float32")},
    }[kind]
    inputs = {"x": keras.Input((2,)), "t": keras.Input(())}
    if two_times:
        inputs["r"] = keras.Input(())

    def condition(name, shape, dtype):
        return keras.Input(shape, dtype=dtype, name=name)

    if kind == "dict":
        inputs["condition"] = {
            name: condition(name, *shape) for name, shape in shapes.items()
        }
    else:
        inputs["condition"] = condition("condition", *shapes)
    flat = [
        keras.layers.Reshape((-1,))(ops.cast(part, "float32"))
        for part in keras.tree.flatten(inputs)
    ]
    h = keras.layers.Dense(2)(keras.layers.Concatenate()(flat))
    model = keras.Model(inputs, h)
    model.null_label = null_label
    return model


def condition(kind, rows=ROWS):
    rng = np.random.default_rng(0)
    ints = rng.integers(0, 5, (rows, 4)).astype("int32")
    floats = 1.0 + rng.random((rows, 3, 2), dtype="float32")
    return {
        "integers": ints,
        "floats": floats,
        "dict": {"class": ints[:, 0], "text": floats},
    }[kind]


NULL = {"integers": 5, "floats": 0, "dict": NUMBERS}
KINDS = [
    ("integers", kf.SiTInterface), ("floats", kf.SiTInterface),
    ("dict", kf.SiTInterface), ("integers", kf.MeanFlowInterface),
    ("dict", kf.MeanFlowInterface),
]  # fmt: skip


def built(kind, cls, **kwargs):
    kwargs = {"null_label": NULL[kind], "ema": None, "seed": 0, **kwargs}
    return cls(network(kind, cls is kf.MeanFlowInterface), **kwargs)


def dropped(model, given):
    """What training makes of a condition, as the objective does."""
    tensors = keras.tree.map_structure(ops.convert_to_tensor, given)
    if isinstance(model, kf.MeanFlowInterface):
        x = ops.ones((len(keras.tree.flatten(given)[0]), 2))
        tensors = model.training_velocity(x, x, x[:, 0], tensors)[1]
    else:
        tensors = model.drop_condition(tensors)
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


@pytest.mark.parametrize("kind, cls", KINDS)
def test_a_condition_is_dropped_as_a_whole(kind, cls):
    """No row is partly null, in none of its parts; the share is the ratio."""
    model = built(kind, cls, cond_drop_ratio=0.1)
    given = condition(kind)
    found = dropped(model, given)
    parts = []
    for before, after in zip(
        keras.tree.flatten(given), keras.tree.flatten(found), strict=True
    ):
        assert before.dtype == after.dtype and before.shape == after.shape
        null = (after != before).reshape(ROWS, -1)
        parts += [null.any(axis=1), null.all(axis=1)]
        value = 5 if after.dtype == "int32" else 0.0
        assert np.all(after[parts[-1]] == value)
    for part in parts:
        np.testing.assert_array_equal(part, parts[0])
    # Standard error 0.0047.
    assert abs(parts[0].mean() - 0.1) < 0.015


@pytest.mark.parametrize("kind, cls", KINDS)
def test_a_null_label_of_ones_own_trains_and_guides(kind, cls):
    """Also where the network has the attribute, and it is None."""
    model = built(kind, cls)
    assert model.null_label == NULL[kind]
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=True)
    given = condition(kind, 16)
    history = model.fit(
        np.ones((16, 2), "float32"), given, batch_size=16, verbose=0
    ).history
    assert np.isfinite(history["loss"]).all()
    plain, guided = (
        ops.convert_to_numpy(
            model.generate(
                condition=given, guidance_scale=scale, num_steps=2, seed=0
            )
        )
        for scale in (1.0, 3.0)
    )
    assert np.isfinite(guided).all() and np.abs(guided - plain).max() > 1e-4
    again = type(model).from_config(model.get_config())
    assert again.null_label == NULL[kind]


@pytest.mark.once
def test_a_teacher_and_a_guided_mean_flow_take_a_dict():
    teacher = built("dict", kf.SiTInterface)
    teacher.trainable = False
    student = kf.ConsistencyInterface(
        network("dict"), kf.interpolants.Linear(1.0), teacher=teacher,
        teacher_guidance_scale=2.0, null_label=NUMBERS, ema=None, seed=0,
    )  # fmt: skip
    guided = built("dict", kf.MeanFlowInterface, guidance_scale=2.0)
    held = kf.ProgressiveInterface(
        teacher, built("dict", kf.SiTInterface), num_steps=(2, 1),
        teacher_guidance_scale=2.0,
    )  # fmt: skip
    x = ops.ones((16, 2))
    for model in (student, guided, held):
        terms = model.loss(x, condition("dict", 16))
        assert np.isfinite(
            ops.convert_to_numpy(ops.stop_gradient(terms["loss"]))
        ).all()


@pytest.mark.once
def test_wrong_null_labels_are_named():
    for wrong in ("none", True, {"class": "none"}, [1]):
        with pytest.raises(ValueError, match="`null_label` must be a number"):
            kf.SiTInterface(network("integers"), null_label=wrong)
    own = kf.networks.MLP(2, width=4, depth=1, num_classes=3)
    with pytest.raises(ValueError, match="3, or be left out. Received: 4"):
        kf.SiTInterface(own, null_label=4)
    assert kf.SiTInterface(own, null_label=3).null_label == 3
    model = kf.SiTInterface(network("dict"), null_label={"class": 5})
    with pytest.raises(ValueError, match="keys of the condition"):
        model.loss(np.ones((2, 2), "float32"), condition("dict", 2))
