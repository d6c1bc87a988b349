"""Objectives of policies: masks, the published losses."""

import pathlib

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.objectives import norms

# The mask.


@pytest.mark.parametrize(
    "objective", ["flow", "regression", "mip", "psd", "lsd"]
)
def test_mask_is_a_mean_over_the_kept(objective):
    """Padding changes nothing, whatever its value and however much."""
    two_times = objective in ("psd", "lsd")
    network = kf.networks.MLP(
        (6, 2), 16, 1, fourier_features=0, two_times=two_times
    )
    rng = np.random.default_rng(0)
    for v in network.trainable_variables:
        v.assign(0.3 * rng.standard_normal(v.shape))
    x = rng.standard_normal((8, 6, 2)).astype("float32")
    mask = (rng.random((8, 6)) < 0.6).astype("float32")
    mask[0] = 1

    def terms(x, extras, norm):
        model = kf.FlowMapInterface(
            network, objective, norm=norm, ema=None, seed=0
        )
        made = model.loss(ops.convert_to_tensor(x), None, extras)
        return {k: keras.ops.convert_to_numpy(v) for k, v in made.items()}

    plain = terms(x, None, "l2")
    ones = terms(x, {"mask": np.ones_like(mask)}, "l2")
    for name in plain:
        np.testing.assert_allclose(ones[name], plain[name], rtol=1e-6)

    # A residual of 1 everywhere: any mask gives a mean of 1.
    batch = kf.objectives.Batch(
        x, mask=ops.convert_to_tensor(mask), residual_norm=norms.l2
    )
    residual = ops.ones((8, 6, 2))
    np.testing.assert_allclose(
        float(ops.mean(batch.norm(residual))), 1.0, rtol=1e-6
    )
    # The mean over the kept elements, by hand.
    e = rng.standard_normal((8, 6, 2)).astype("float32")
    expected = (mask[..., None] * e**2).sum() / (2 * mask.sum())
    np.testing.assert_allclose(
        float(ops.mean(batch.norm(ops.convert_to_tensor(e)))),
        expected,
        rtol=1e-5,
    )


def test_masked_actions_do_not_reach_the_loss():
    """Regression: targets under the mask may be anything."""
    network = kf.networks.MLP((6, 2), 16, 1, fourier_features=0)
    model = kf.FlowMapInterface(network, "regression", ema=None, seed=0)
    x = np.random.default_rng(0).standard_normal((4, 6, 2)).astype("float32")
    mask = np.ones((4, 6), "float32")
    mask[:, 4:] = 0
    wild = x.copy()
    wild[:, 4:] = 1e3

    def loss(x):
        return float(ops.mean(model.loss(x, None, {"mask": mask})["loss"]))

    assert loss(x) == pytest.approx(loss(wild), rel=1e-6)


@pytest.mark.parametrize("objective", ["psd", "lsd"])
def test_split_rows_keep_their_own_mask(objective):
    """Steps under the mask may be anything, on the diagonal and off it.

    The network treats each step of a chunk alone, so that a masked one
    reaches the loss through its own residual only, if at all.
    """
    inputs = {
        "x": keras.Input((4, 3), name="x"),
        "t": keras.Input((), name="t"),
        "r": keras.Input((), name="r"),
    }
    times = keras.layers.Reshape((1, 1))(inputs["t"] + 2.0 * inputs["r"])
    network = keras.Model(inputs, ops.tanh(0.7 * inputs["x"] + 0.3 * times))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 4, 3)).astype("float32")
    mask = (np.arange(4) < rng.integers(1, 5, (8, 1))).astype("float32")
    assert len(np.unique(mask.sum(1))) > 2
    wild = np.where(mask[..., None] > 0, x, 50.0).astype("float32")

    def terms(x):
        model = kf.FlowMapInterface(network, objective, ema=None, seed=0)
        made = model.loss(ops.convert_to_tensor(x), None, {"mask": mask})
        return {k: keras.ops.convert_to_numpy(v) for k, v in made.items()}

    plain, changed = terms(x), terms(wild)
    for name in ("velocity_loss", "map_loss"):
        assert plain[name].max() > 1e-4
        np.testing.assert_allclose(changed[name], plain[name], rtol=1e-4)


def test_mask_that_an_objective_ignores_is_an_error():
    def own(model, batch):
        return {"loss": ops.mean(batch.x * batch.x, axis=(1, 2))}

    network = kf.networks.MLP((6, 2), 8, 1, fourier_features=0)
    model = kf.FlowMapInterface(network, own, ema=None)
    x = np.zeros((4, 6, 2), "float32")
    with pytest.raises(ValueError, match="does not use the batch's 'mask'"):
        model.loss(x, None, {"mask": np.ones((4, 6), "float32")})
    with pytest.raises(ValueError, match="`mask` must have shape"):
        model.loss(x, None, {"mask": np.ones((4, 5), "float32")})
    with pytest.raises(ValueError, match="anything else would be lost"):
        model.loss(x, None, {"weights": np.ones((4, 6), "float32")})


# The published losses.


def toy_network(shape=(4, 3)):
    """tanh(0.7 x + 0.3 t + o), as tests/published has it."""
    inputs = {
        "x": keras.Input(shape),
        "t": keras.Input(()),
        "condition": keras.Input(shape),
    }
    t = keras.layers.Reshape((1, 1))(inputs["t"])
    y = ops.tanh(0.7 * inputs["x"] + 0.3 * t + inputs["condition"])
    return keras.Model(inputs, y)


@pytest.mark.parametrize("norm", ["l2", "l1", "smooth_l1"])
@pytest.mark.parametrize(
    "objective", ["flow", "regression", "straight_flow", "mip", "tsd"]
)
def test_losses_equal_the_published_code(objective, norm):
    """On the same draws; theirs sum over an action, ours take the mean.

    Their tsd regresses a + noise / 10 in the first call and weighs it by
    1 / t_fix, as `form="public"`.
    """
    file = np.load(
        pathlib.Path(__file__).parents[1] / "published" / "policy_losses.npz"
    )
    form = objective in ("mip", "tsd")
    model = kf.FlowMapInterface(
        toy_network(),
        kf.objectives.get(objective, **({"form": "public"} if form else {})),
        norm=norm,
        ema=None,
    )
    noises = list(file["noises"])
    model.sample_n = lambda shape: ops.convert_to_tensor(noises.pop(0))
    model.sample_t = lambda shape: ops.convert_to_tensor(file["t"])
    loss = model.loss(
        ops.convert_to_tensor(file["action"]),
        ops.convert_to_tensor(file["observation"]),
    )["loss"]
    np.testing.assert_allclose(
        3 * float(ops.mean(loss)), file[f"{objective}_{norm}"], rtol=1e-5
    )
