"""MeanFlow's guidance in training and its dropped labels."""

import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS = 4000


def model(**kwargs):
    network = kf.networks.MLP(2, 16, 1, two_times=True, num_classes=3)
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(rng.standard_normal(v.shape) / max(v.shape[0], 1) ** 0.5)
    return kf.MeanFlowInterface(network, ema=None, seed=0, **kwargs)


def batch(rows=64):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((rows, 2)).astype("float32")
    return (
        ops.convert_to_tensor(x),
        ops.convert_to_tensor((np.arange(rows) % 3).astype("int32")),
    )


def losses(m, training):
    m.seed_generator.state.assign(np.array([5, 0], "uint32"))
    terms = m.loss(*batch(), training=training)
    return ops.convert_to_numpy(terms["loss"])


@pytest.mark.parametrize("training", [True, False])
def test_scale_one_is_the_unguided_loss(training):
    plain = losses(model(), training)
    off = losses(
        model(guidance_scale=1.0, guidance_mixture_ratio=0.0), training
    )
    np.testing.assert_array_equal(plain, off)
    guided = losses(model(guidance_scale=1.5), training)
    assert np.abs(guided - plain).max() > 1e-3
    # An interval without any time in it guides nothing.
    nowhere = losses(
        model(guidance_scale=1.5, guidance_t_min=2.0, guidance_t_max=3.0),
        training,
    )
    np.testing.assert_allclose(nowhere, plain, rtol=1e-5)


def test_labels_drop_independently_of_the_diagonal():
    """The same share among rows with r = t and rows with r != t."""
    m = model(cond_drop_ratio=0.3, fm_portion=0.75)
    x, y = batch(ROWS)
    n = m.sample_n(ops.shape(x))
    v = m.interpolant.velocity(x, n, ops.ones(ROWS))
    _, dropped = m.cond_drop(x, n, v, y, None)
    off, diagonal = (
        ops.convert_to_numpy(part) == 3 for part in m.rows(x).split(dropped)
    )
    assert len(off) == ROWS // 4 and len(diagonal) == 3 * ROWS // 4
    for part in (off, diagonal):
        error = (0.3 * 0.7 / len(part)) ** 0.5
        assert abs(part.mean() - 0.3) < 4 * error


def test_dropped_labels_get_the_unguided_velocity():
    m = model(guidance_scale=2.0, cond_drop_ratio=0.5)
    x, y = batch()
    n = m.sample_n(ops.shape(x))
    t = 0.5 * ops.ones(64)
    guided, _, _ = m.insta_velocity(x, n, t, y=y)
    v, kept = m.training_velocity(x, n, t, y)
    dropped = ops.convert_to_numpy(kept) == 3
    assert 10 < dropped.sum() < 54
    v, guided, plain = (
        ops.convert_to_numpy(part) for part in (v, guided, n - x)
    )
    np.testing.assert_allclose(v[dropped], plain[dropped], rtol=1e-6)
    np.testing.assert_allclose(v[~dropped], guided[~dropped], rtol=1e-5)
    assert np.abs(guided - plain).min(axis=0).max() > 0


def test_evaluation_drops_no_label():
    m = model(cond_drop_ratio=1.0)
    x, y = batch()
    n = m.sample_n(ops.shape(x))
    _, kept = m.training_velocity(x, n, 0.5 * ops.ones(64), y, training=False)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(kept), ops.convert_to_numpy(y)
    )


def test_unknown_tangent_is_named():
    m = model(objective_args={"tangent": "teacher"})
    with pytest.raises(ValueError, match="`tangent`.*'teacher'"):
        m.loss(*batch())
