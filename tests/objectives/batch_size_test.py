"""Batches of any size train the same mixture of diagonal and other rows."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

ROWS = 48
MAPS = ("lsd", "psd", "ctm", "shortcut", "esd", "mf", "ayf")
OBJECTIVES = [
    *(
        pytest.param(name, marks=pytest.mark.once)
        for name in (*MAPS[1:], "mean_flow")
    ),
    "lsd",
]


def network():
    keras.utils.set_random_seed(0)
    return kf.networks.MLP(2, width=8, depth=1, two_times=True)


def built(name, **kwargs):
    if name == "mean_flow":
        return kf.MeanFlowInterface(network(), seed=0, ema=None, **kwargs)
    if name == "ayf":
        kwargs["teacher"] = kf.FlowMapInterface(network(), "lsd", ema=None)
        kwargs["teacher"].trainable = False
    return kf.FlowMapInterface(network(), name, seed=0, ema=None, **kwargs)


def points(rows=ROWS, mean=(2.0, -1.0)):
    x = np.random.default_rng(0).standard_normal((rows, 2))
    return (0.2 * x + np.array(mean)).astype("float32")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_do_not_depend_on_the_batch_size(name):
    """Of one row, of three, and all."""
    model = built(name)
    model.compile(keras.optimizers.SGD(0.0))
    whole, three, one = (
        model.evaluate(points(), batch_size=size, verbose=0, return_dict=True)
        for size in (ROWS, 3, 1)
    )
    assert set(whole) == set(one) == set(three)
    for term, value in whole.items():
        for found in (three, one):
            # Times and noise are others; few of shortcut's rows have most of
            # its small map loss.
            if value < 1e-4:
                assert 0 < found[term] < 1e-3
                continue
            assert 0.2 < found[term] / value < 5.0, (term, value, found)


@pytest.mark.once
@pytest.mark.parametrize("name", ["lsd", "mean_flow"])
def test_one_row_is_on_the_diagonal_as_often_as_asked(name):
    model = built(name)
    drawn = [
        [ops.convert_to_numpy(part) for part in model.draw_t_r(points(1))]
        for _ in range(400)
    ]
    equal = np.mean([t == r for t, r in drawn])
    assert abs(equal - 0.75) < 3 * (0.75 * 0.25 / 400) ** 0.5


@pytest.mark.once
@pytest.mark.parametrize("name", [*MAPS, "mean_flow"])
def test_a_row_that_does_not_count_has_no_gradient(name):
    """Not even 0 times infinity: every step is finite."""
    model = built(name)
    model.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    model.fit(points(12), batch_size=1, verbose=0)
    assert int(model.skipped_steps.numpy()) == 0
    model.fit(points(12), batch_size=3, verbose=0)
    assert int(model.skipped_steps.numpy()) == 0


@pytest.mark.once
def test_one_row_a_step_finds_the_data():
    model = built("psd")
    model.compile(keras.optimizers.Adam(3e-2), run_eagerly=True)
    model.fit(points(), batch_size=1, epochs=2, verbose=0)
    x = ops.convert_to_numpy(model.generate(64, num_steps=4, seed=0))
    # The noise has mean 0.
    assert np.all(x.mean(0) * [1, -1] > [0.8, 0.4]), x.mean(0)


@pytest.mark.once
@pytest.mark.parametrize("size", [1, 2])
def test_a_term_of_no_row_has_no_mean(size):
    """NaN, not the best loss that there is; with rows their own mean."""
    model = built("lsd", diagonal_portion=0.75)
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    logs = [
        model.fit(points(size), batch_size=size, verbose=0).history
        for _ in range(12)
    ]
    velocity = np.array([h["velocity_loss"][0] for h in logs])
    mapped = np.array([h["map_loss"][0] for h in logs])
    assert 0 < np.isnan(mapped).sum() < 12
    assert np.isnan(velocity).any() == (size == 1)
    assert np.nanmin(velocity) > 0 and np.nanmin(mapped) > 0
