"""Policies: windows, masks, normalisers, control, rollout, export."""

import functools
import itertools
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.datasets import robots
from keras_flows.networks import normalizers

HORIZON, OBS_STEPS, ACT_STEPS = 8, 2, 4


def episodes(lengths=(20, 13), seed=0):
    """o_k = (k, noise), a_k = (k, -k) + a number per episode."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        k = np.arange(length, dtype="float32")
        made.append(
            {
                "observation": np.stack(
                    [k, rng.standard_normal(length).astype("float32")], 1
                ),
                "action": np.stack([k, -k], 1) + 100.0 * number,
            }
        )
    return made


def windows(data=None, **kwargs):
    return robots.Windows(
        episodes() if data is None else data,
        HORIZON,
        OBS_STEPS,
        ACT_STEPS,
        **{"batch_size": 8, **kwargs},
    )


def make_policy(
    objective="mip", dim=2, two_times=False, encoder=None, **kwargs
):
    network = kf.networks.MLP(
        (HORIZON, 2),
        width=16,
        depth=1,
        fourier_features=0,
        two_times=two_times,
        condition_dim=OBS_STEPS * dim if encoder is None else 6,
    )
    if encoder is None:
        inputs = keras.Input((OBS_STEPS, dim))
        encoder = keras.Model(inputs, keras.layers.Flatten()(inputs))
    return kf.policies.Policy(
        kf.FlowMapInterface(network, objective, ema=0.9, seed=0),
        encoder,
        act_steps=ACT_STEPS,
        **kwargs,
    )


def trained(*args, steps=4, data=None, **kwargs):
    policy = make_policy(*args, **kwargs)
    source = windows(data)
    policy.adapt(source)
    policy.compile(keras.optimizers.Adam(1e-2))
    for i in range(steps):
        policy.train_on_batch(*source[i % len(source)])
    return policy


# Windows.


@pytest.mark.once
def test_windows_by_hand():
    """Histories, chunks and padding at either end of an episode."""
    source = windows(episodes((10,)), shuffle=False, mask=True, batch_size=7)
    # Starts -1, 0, ..., 10 - 8 + 4 - 1 = 5.
    assert source.num_windows == 7 and len(source) == 1
    actions, observations, extras = source[0]
    assert actions.shape == (7, 8, 2) and observations.shape == (7, 2, 2)
    np.testing.assert_array_equal(actions[0, :, 0], [0, 0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(observations[0, :, 0], [0, 0])
    np.testing.assert_array_equal(extras["mask"][0], [0, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(actions[6, :, 0], [5, 6, 7, 8, 9, 9, 9, 9])
    np.testing.assert_array_equal(observations[6, :, 0], [5, 6])
    np.testing.assert_array_equal(extras["mask"][6], [1, 1, 1, 1, 1, 0, 0, 0])
    # Each step of the episode is the present of one window.
    present = observations[:, -1, 0]
    np.testing.assert_array_equal(present, np.arange(7))


@pytest.mark.once
def test_windows_never_cross_an_episode_and_cover_an_epoch():
    source = windows(drop_remainder=False)
    batches = [source[i] for i in range(len(source))]
    actions = np.concatenate([batch[0] for batch in batches])
    assert len(actions) == source.num_windows == (20 - 3) + (13 - 3)
    owner = actions[..., 0] >= 100
    assert (owner.all(1) | ~owner.any(1)).all()
    starts = {(a[0, 0], a[-1, 0]) for a in actions}
    assert len(starts) == len(actions)


@pytest.mark.once
def test_windows_shuffle_by_seed_and_epoch():
    first, again, other = windows(), windows(), windows(seed=1)
    np.testing.assert_array_equal(first[0][0], again[0][0])
    assert (first[0][0] != other[0][0]).any()
    first.on_epoch_end()
    assert (first[0][0] != again[0][0]).any()
    endless = windows(repeat=True)
    np.testing.assert_array_equal(endless[len(endless)][0], first[0][0])


@pytest.mark.once
def test_short_episodes():
    data = episodes((20, 5))
    with pytest.raises(ValueError, match="number 1 of 5 steps"):
        windows(data)
    assert windows(data, short="drop").num_windows == 17
    padded = windows(data, short="pad", shuffle=False, mask=True, batch_size=23)
    assert padded.num_windows == 17 + 6
    np.testing.assert_array_equal(padded[0][2]["mask"][-1], [1] + [0] * 7)
    with pytest.raises(ValueError, match="All 1 episodes"):
        windows(episodes((5,)), short="drop")


@pytest.mark.once
def test_bad_demonstrations():
    with pytest.raises(ValueError, match="holds no demonstration"):
        windows([])
    data = episodes()
    data[1]["observation"][3, 0] = np.nan
    with pytest.raises(
        ValueError, match="Episode 1.*'observation' holds NaN at step 3"
    ):
        windows(data)
    data = episodes()
    data[0]["action"] = data[0]["action"][:-1]
    with pytest.raises(
        ValueError, match="Episode 0.*20 steps.*'action' has 19"
    ):
        windows(data)
    data = episodes()
    data[1]["action"] = data[1]["action"][:, :1]
    with pytest.raises(
        ValueError, match=r"Episode 1.*'action' has rows of shape \(1,\)"
    ):
        windows(data)
    with pytest.raises(ValueError, match="`horizon` must hold"):
        robots.Windows(episodes(), 4, 2, 4)
    with pytest.raises(ValueError, match="more than the 27 windows"):
        windows(batch_size=28)


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
    model = kf.FlowMapInterface(network, objective, ema=None, seed=0)
    model._mask["now"] = ops.convert_to_tensor(mask)
    residual = ops.ones((8, 6, 2))
    np.testing.assert_allclose(
        float(ops.mean(model.norm(residual))), 1.0, rtol=1e-6
    )
    # The mean over the kept elements, by hand.
    e = rng.standard_normal((8, 6, 2)).astype("float32")
    expected = (mask[..., None] * e**2).sum() / (2 * mask.sum())
    np.testing.assert_allclose(
        float(ops.mean(model.norm(ops.convert_to_tensor(e)))),
        expected,
        rtol=1e-5,
    )
    model._mask["now"] = None


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
    def own(model, x, condition, training):
        return {"loss": ops.mean(x * x, axis=(1, 2))}

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
        pathlib.Path(__file__).parent / "published" / "policy_losses.npz"
    )
    form = objective in ("mip", "tsd")
    model = kf.FlowMapInterface(
        toy_network(),
        objective,
        objective_args={"form": "public"} if form else None,
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


# Normalisers.


@pytest.mark.parametrize("name", ["min_max", "mean_std", "quantile"])
def test_normalizers_and_their_streams(name):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((500, 3)) * [1.0, 1e-3, 0.0] + [5.0, 0.0, 7.0]
    whole, stream = normalizers.get(name), normalizers.get(name)
    whole.adapt(data)
    stream.adapt(part for part in np.array_split(data.reshape(-1, 5, 3), 7))
    for a, b in zip(whole.variables, stream.variables):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-9)
    y = keras.ops.convert_to_numpy(whole(data.astype("float32")))
    expected = {
        "min_max": (y[:, :2].min(0), y[:, :2].max(0), -1.0, 1.0),
        "mean_std": (y[:, :2].mean(0), y[:, :2].std(0), 0.0, 1.0),
        "quantile": (*np.quantile(y[:, :2], [0.01, 0.99], axis=0), -1.0, 1.0),
    }[name]
    np.testing.assert_allclose(expected[0], expected[2], atol=2e-3)
    np.testing.assert_allclose(expected[1], expected[3], atol=2e-3)
    # A constant stays put, whatever comes.
    other = np.array([[5.0, 0.0, 70.0]], "float32")
    assert keras.ops.convert_to_numpy(whole(other))[0, 2] == 0.0
    back = keras.ops.convert_to_numpy(whole.inverse(y + 0.0))
    np.testing.assert_allclose(back, data, rtol=1e-5, atol=1e-6)
    wild = keras.ops.convert_to_numpy(whole.inverse(np.full((1, 3), 9.0)))
    assert wild[0, 2] == 7.0


@pytest.mark.once
def test_normalizers_refuse():
    with pytest.raises(ValueError, match="Did you mean 'min_max'"):
        normalizers.get("minmax")
    normalizer = normalizers.get("mean_std")
    with pytest.raises(ValueError, match="empty"):
        normalizer.adapt([])
    with pytest.raises(ValueError, match="feature 1 first"):
        normalizer.adapt(np.array([[0.0, np.inf]]))
    normalizer.adapt(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="built for 2"):
        normalizer.adapt(np.zeros((3, 4)))


@pytest.mark.once
def test_quantile_keeps_a_fair_sample():
    """Of a long stream with a drift, not its beginning or end."""
    quantile = normalizers.Quantile(0.05, 0.95, most=2_000)
    quantile.adapt(
        np.arange(k, k + 1_000.0)[:, None] for k in range(0, 40_000, 1_000)
    )
    low = float(quantile.offset[0] - quantile.scale[0])
    high = float(quantile.offset[0] + quantile.scale[0])
    # Standard error of such a quantile: 40,000 sqrt(.05 .95 / 2,000) = 195.
    assert abs(low - 2_000) < 4 * 195 and abs(high - 38_000) < 4 * 195


# The policy.


@pytest.mark.parametrize("objective", ["regression", "mip", "flow", "lsd"])
def test_policy_fits_and_acts(objective):
    """fit improves the chunk; shapes, units and seeds are right."""
    policy = make_policy(objective, two_times=objective == "lsd")
    source = windows(repeat=True, mask=True)
    with pytest.raises(ValueError, match="call policy.adapt"):
        policy.compile(keras.optimizers.Adam(1e-2))
        policy.fit(source, steps_per_epoch=2)
    policy.adapt(source)
    with pytest.raises(ValueError, match="list of episodes"):
        policy.fit(episodes())
    actions, observations, _ = source[0]
    observations[3, 0, 1] = np.nan
    with pytest.raises(ValueError, match="`observation` holds NaN.*row 3"):
        policy.fit(actions, observations)
    history = policy.fit(source, steps_per_epoch=8, epochs=3, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    observation = source[0][1]
    chunk = policy.predict_chunk(observation, seed=1)
    assert chunk.shape == (8, HORIZON, 2) and chunk.dtype == np.float32
    # In the units of the demonstrations, which reach 100 and more.
    assert 10.0 < np.abs(chunk).max() < 500.0
    np.testing.assert_array_equal(
        chunk, policy.predict_chunk(observation, seed=1)
    )
    one = policy.predict_chunk(
        observation[2],
        noise=np.random.default_rng(0).standard_normal((1, HORIZON, 2)),
    )
    assert one.shape == (HORIZON, 2)
    changed = policy.predict_chunk(observation, seed=2)
    if policy.objective.start == "zero":
        np.testing.assert_array_equal(chunk, changed)
    else:
        assert np.abs(chunk - changed).max() > 1e-3


def test_chunk_equals_its_parts():
    """Normalise, encode, sample with `generate`, take back: the same."""
    policy = trained("flow", steps=3)
    observation = windows()[0][1]
    noise = np.random.default_rng(0).standard_normal((8, HORIZON, 2))
    noise = noise.astype("float32")
    chunk = policy.predict_chunk(observation, noise=noise, num_steps=3)
    normal = policy.observation_normalizers["observation"]
    condition = policy.encoder(normal(observation))
    sample = policy.interface.generate(
        condition=condition, noise=noise, num_steps=3
    )
    expected = policy.action_normalizer.inverse(sample)
    np.testing.assert_allclose(
        chunk, keras.ops.convert_to_numpy(expected), rtol=1e-5, atol=1e-4
    )
    zero = policy.predict_chunk(observation, start="zero", num_steps=3)
    from_zero = policy.predict_chunk(
        observation, noise=0.0 * noise, num_steps=3
    )
    np.testing.assert_allclose(zero, from_zero, rtol=1e-6, atol=1e-5)


def encoder_of_two():
    """A trained encoder of a dict of observations, with dropout."""
    inputs = {
        "arm": keras.Input((OBS_STEPS, 3)),
        "object": keras.Input((OBS_STEPS, 2)),
    }
    h = keras.layers.Concatenate()([inputs["arm"], inputs["object"]])
    h = keras.layers.Dense(6, "tanh")(keras.layers.Flatten()(h))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(h))


def dict_episodes():
    rng = np.random.default_rng(0)
    data = episodes()
    for episode in data:
        length = len(episode["action"])
        episode["observation"] = {
            "arm": rng.standard_normal((length, 3)).astype("float32"),
            "object": episode["observation"],
        }
    return data


@pytest.mark.once
def test_adapt_to_windows_is_adapt_to_episodes():
    """Each step counts once, as images of bytes do, in [-1, 1]."""
    data = dict_episodes()
    rng = np.random.default_rng(0)
    for episode in data:
        length = len(episode["action"])
        episode["observation"]["arm"] = rng.integers(
            0, 256, (length, 3), dtype="uint8"
        )
    policies = []
    for source in (windows(data), data):
        policy = make_policy(
            encoder=encoder_of_two(), observation_normalizer="mean_std"
        )
        policy.adapt(source)
        policies.append(policy)
    ours, theirs = (p.observation_normalizers["arm"] for p in policies)
    pixels = np.concatenate([e["observation"]["arm"] for e in data])
    for normalizer in (ours, theirs):
        np.testing.assert_allclose(
            normalizer.offset.numpy(), (pixels / 127.5 - 1).mean(0), atol=1e-6
        )
    action = policies[0].action_normalizer
    np.testing.assert_allclose(action.offset.numpy(), [56.0, 40.5])


def test_the_encoder_trains_and_is_averaged():
    policy = make_policy("mip", encoder=encoder_of_two())
    source = windows(dict_episodes())
    policy.adapt(source)
    policy.compile(keras.optimizers.Adam(1e-2))
    before = [v.numpy().copy() for v in policy.encoder.trainable_variables]
    for i in range(3):
        policy.train_on_batch(*source[i])
    average = policy.encoder_emas[0].averaged()
    for old, live, mean in zip(
        before, policy.encoder.trainable_variables, average.variables
    ):
        moved = np.abs(live.numpy() - old).max()
        assert moved > 1e-3
        # Between the start and the end, and used.
        assert 0 < np.abs(mean.numpy() - live.numpy()).max() < moved
    observation = source[0][1]
    averaged = policy.predict_chunk(observation)
    live = policy.predict_chunk(observation, use_ema=False)
    assert np.abs(averaged - live).max() > 1e-4
    # Dropout is off: the same twice.
    np.testing.assert_array_equal(averaged, policy.predict_chunk(observation))


def test_observations_that_do_not_fit():
    policy = make_policy("mip", encoder=encoder_of_two())
    arm, thing = np.zeros((1, 2, 3), "f"), np.zeros((1, 2, 2), "f")
    with pytest.raises(ValueError, match=r"Missing: \['object'\]"):
        policy.predict_chunk({"arm": arm})
    with pytest.raises(ValueError, match=r"not known: \['camera'\]"):
        policy.predict_chunk({"arm": arm, "object": thing, "camera": arm})
    with pytest.raises(ValueError, match=r"`observation\['arm'\]`.*2, 3"):
        policy.predict_chunk({"arm": thing, "object": thing})
    with pytest.raises(ValueError, match="dict of"):
        policy.predict_chunk(arm)
    with pytest.raises(ValueError, match="one row for each"):
        policy.loss(
            np.zeros((2, HORIZON, 2), "f"), {"arm": arm, "object": thing}
        )
    with pytest.raises(ValueError, match="`noise` must have shape"):
        make_policy("flow").predict_chunk(thing, noise=np.zeros((1, 8, 3)))
    with pytest.raises(NotImplementedError, match="predict_chunk"):
        policy.generate(4)
    with pytest.raises(ValueError, match="`act_steps`"):
        kf.policies.Policy(policy.interface, policy.encoder, act_steps=HORIZON)
    with pytest.raises(ValueError, match="network's condition"):
        inputs = keras.Input((2, 3))
        kf.policies.Policy(policy.interface, keras.Model(inputs, inputs))


def test_actions_are_clipped_and_counted():
    policy = trained(action_low=[0.0, -3.0], action_high=5.0)
    chunk = policy.predict_chunk(windows()[0][1])
    assert chunk[..., 0].min() >= 0.0 and chunk[..., 1].min() >= -3.0
    assert chunk.max() <= 5.0
    assert 0 < policy.clipped_actions <= policy.predicted_actions == 8 * 8 * 2


@keras.saving.register_keras_serializable("policy_test")
def position_of(observation):
    """The pose of a joint robot: its positions."""
    return observation[..., :2]


@pytest.mark.parametrize("kind", ["relative", "delta"])
def test_relative_actions_come_back_absolute(kind, tmp_path):
    """a_k = o_k + 1 from anywhere: learnt near 0, acts far from the data."""
    rng = np.random.default_rng(0)
    data = []
    for _ in range(4):
        o = rng.standard_normal(2) + np.cumsum(np.full((30, 2), 0.1), 0)
        data.append({"observation": o, "action": o + 1.0})
    policy = make_policy(
        "regression",
        representation=robots.action_representation(
            kind, position=2, rotation=False, gripper=0
        ),
        pose=position_of,
        action_normalizer="identity",
    )
    policy.compile(keras.optimizers.Adam(1e-2))
    source = windows(data, transform=policy.encode_actions)
    chunk = source[0][0]
    # The robot's history starts at o_0, the chunk with o_0 + 1.
    np.testing.assert_allclose(chunk[chunk[:, 0, 0] > 0.95][:, 0], 1.0, 1e-4)
    if kind == "delta":
        assert np.abs(chunk[:, 1:]).max() < 0.11
    policy.adapt(source)
    with pytest.raises(ValueError, match="transform=policy.encode_actions"):
        policy.fit(windows(data))
    policy.fit(source, epochs=2, verbose=0)
    here = source[0][1]
    there = here + 50.0
    near, far = policy.predict_chunk(here[:1]), policy.predict_chunk(there[:1])
    assert np.abs(near).max() < 20 < np.abs(far).max()
    policy.save_to_preset(tmp_path / "policy")
    copy = kf.policies.Policy.from_preset(tmp_path / "policy")
    np.testing.assert_allclose(copy.predict_chunk(there[:1]), far, rtol=1e-6)
    with pytest.raises(ValueError, match="cannot be exported"):
        policy.export(tmp_path / "saved")


# Control.


class Counting:
    """A policy whose chunk number c is c * 100 + the action's number."""

    obs_steps, horizon, act_steps, observation_rank = OBS_STEPS, HORIZON, 4, 1

    def __init__(self):
        self.seen = []

    def predict_chunk(self, history, seed=None):
        self.seen.append(history)
        numbers = 100.0 * len(self.seen) + np.arange(HORIZON, dtype="float32")
        chunk = np.broadcast_to(
            numbers[:, None], (*history.shape[:-2], HORIZON, 2)
        )
        return chunk


@pytest.mark.once
@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_queue_recedes(batch):
    policy = Counting()
    control = kf.policies.Controller(policy)
    actions = [control(np.full((*batch, 5), float(k))) for k in range(6)]
    assert [float(a.ravel()[0]) for a in actions] == [
        101, 102, 103, 104, 201, 202,
    ]  # fmt: skip
    assert actions[0].shape == (*batch, 2)
    first, second = (h[..., 0].reshape(-1, OBS_STEPS)[0] for h in policy.seen)
    np.testing.assert_array_equal(first, [0, 0])
    np.testing.assert_array_equal(second, [3, 4])


@pytest.mark.once
def test_ensembling_by_hand():
    control = kf.policies.Controller(Counting(), ensemble=0.5)
    actions = [float(control(np.zeros(5))[0]) for _ in range(8)]
    # Step 0: 101; step 1: the first chunk's 102 and the second's 201.
    w = np.exp(-0.5 * np.arange(8))
    assert actions[0] == 101
    assert actions[1] == pytest.approx((w[0] * 102 + w[1] * 201) / w[:2].sum())
    # A chunk of 8 reaches 7 steps; at step 7 the first no longer counts.
    last = [100 * c + 1 + (8 - c) for c in range(2, 9)]
    assert actions[7] == pytest.approx((w[:7] * last).sum() / w[:7].sum())


def test_select_action_is_the_chunks():
    policy = trained()
    with pytest.raises(RuntimeError, match="reset"):
        policy.select_action(np.zeros(2))
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((6, 2)).astype("float32")
    policy.reset(seed=3)
    actions = [policy.select_action(o) for o in observations]
    first = policy.predict_chunk(np.stack([observations[0]] * 2))
    second = policy.predict_chunk(observations[3:5])
    np.testing.assert_allclose(actions[:4], first[1:5], rtol=1e-6)
    np.testing.assert_allclose(actions[4:], second[1:3], rtol=1e-6)
    with pytest.raises(ValueError, match="`act_steps` must lie"):
        policy.reset(act_steps=HORIZON)


# Rollout.


class Line:
    """Walk along a line to its end at 1; the start state is a number."""

    action_dim = 2

    def reset(self, start):
        self.x = -(start % 7) / 7.0
        return self._observe()

    def step(self, action):
        self.x += float(np.clip(action[0], -0.25, 0.25))
        return self._observe(), 0.0, self.x >= 1.0

    def _observe(self):
        return np.array([self.x, 1.0], "float32")

    def expert_action(self):
        return np.array([0.25, 0.0], "float32")

    def render(self, size):
        return np.full((size, size, 3), int(100 + 50 * self.x), "uint8")


class Walker:
    """Walks where the start was not below `bound`."""

    clipped_actions = predicted_actions = 0

    def __init__(self, bound):
        self.bound = bound

    def reset(self, **options):
        self.options, self.goes = options, None

    def select_action(self, observations):
        if self.goes is None:
            self.goes = observations[..., 0] > self.bound
        return np.stack([0.25 * self.goes, 0.0 * self.goes], -1)


@pytest.mark.once
def test_evaluate_counts():
    starts = 700 + np.arange(10)
    found = kf.policies.evaluate(
        Walker(-0.5), [Line() for _ in range(4)], starts, max_steps=12
    )
    walks = (np.arange(10) % 7) / 7.0 < 0.5
    np.testing.assert_array_equal(found.success, walks)
    distance = 1 + (np.arange(10) % 7) / 7.0
    expected = np.where(walks, np.ceil(distance / 0.25), 12)
    np.testing.assert_array_equal(found.steps, expected)
    summary = found.summary()
    assert summary["success"] == walks.mean() and summary["episodes"] == 10
    expert = kf.policies.evaluate_expert([Line()], starts, max_steps=12)
    assert expert.rate == 1.0
    with pytest.raises(ValueError, match="at least one"):
        kf.policies.evaluate(Walker(0), [], starts)


def square_root(env, item):
    """What `EnvPool.imap` calls; raises below 0."""
    return env.action_dim, math.sqrt(item)


@pytest.mark.once
def test_env_pool():
    """The same episodes in processes of their own; errors come through."""
    starts = 700 + np.arange(10)
    ours = [Line() for _ in range(3)]
    with robots.EnvPool(Line, 3, processes=2) as pool:
        for evaluate in (
            functools.partial(kf.policies.evaluate, Walker(-0.5)),
            kf.policies.evaluate_expert,
        ):
            found, expected = (
                evaluate(envs, starts, max_steps=12) for envs in (pool, ours)
            )
            np.testing.assert_array_equal(found.steps, expected.steps)
            np.testing.assert_array_equal(found.success, expected.success)
        results = pool.imap(square_root, itertools.count())
        assert list(itertools.islice(results, 5)) == [
            (2, math.sqrt(i)) for i in range(5)
        ]
        results.close()
        with pytest.raises(RuntimeError, match="math domain error"):
            list(pool.imap(square_root, [4, 1, -1, -2, 9]))
        with pytest.raises(RuntimeError, match="TypeError"):
            pool.reset(["no number", 703, 704])
        # It goes on after all of these.
        np.testing.assert_array_equal(
            pool.reset(starts[:3]), [Line().reset(s) for s in starts[:3]]
        )
        assert list(pool.imap(square_root, [9])) == [(2, 3.0)]
        pool._processes[0].kill()
        pool._processes[0].join()
        with pytest.raises(RuntimeError, match="exit code -9"):
            pool.reset(starts[:3])
    with pytest.raises(ValueError, match="`num_envs`.*0"):
        robots.EnvPool(Line, 0)


@pytest.mark.once
def test_wilson_interval():
    """The published example of 81 in 263, and the ends."""
    low, high = kf.policies.wilson_interval(81, 263)
    assert low == pytest.approx(0.2553, abs=1e-4)
    assert high == pytest.approx(0.3662, abs=1e-4)
    assert kf.policies.wilson_interval(0, 10)[0] == 0.0
    assert kf.policies.wilson_interval(10, 10)[1] == 1.0


@pytest.mark.once
def test_record_writes_a_gif(tmp_path):
    from PIL import Image

    path = tmp_path / "walk.gif"
    assert kf.policies.record(Walker(-9), Line(), 700, path, size=8)
    with Image.open(path) as image:
        assert image.n_frames == 5 and image.size == (8, 8)
    assert [p.name for p in tmp_path.iterdir()] == ["walk.gif"]


# Meta-World.


@pytest.mark.once
def test_metaworld_start_states_are_numbers():
    """The same number, the same episode; others are others, all disjoint."""
    pytest.importorskip("metaworld")
    with pytest.raises(ValueError, match="Near matches: reach-v3"):
        robots.make_env("reach")
    env, other = (robots.make_env("reach-v3") for _ in range(2))
    first = env.reset(robots.EVALUATION_START + 3)
    env.step(np.ones(4))
    env.reset(robots.EVALUATION_START + 4)
    np.testing.assert_array_equal(
        first, other.reset(robots.EVALUATION_START + 3)
    )
    made = robots.demonstrations("reach-v3", 3, seed=5)
    assert [e["seed"] for e in made] == [5_000_000, 5_000_001, 5_000_002]
    states = [e["observation"][0] for e in made] + [first]
    assert len({s.tobytes() for s in states}) == 4
    for episode in made:
        assert episode["success"][-1] and episode["action"].shape[1] == 4
        assert np.abs(episode["action"]).max() <= 1.0
        # The goal is visible, or no policy could reach it.
        assert np.abs(episode["observation"][:, 18:]).min() > 0
    with pytest.raises(ValueError, match="between 0 and 899"):
        robots.demonstrations("reach-v3", 1, seed=900)

    class Pool:
        def imap(self, function, items):
            return (function(env, item) for item in items)

    with pytest.raises(ValueError, match="`pool`.*'door-open-v3'.*'reach-v3'"):
        robots.demonstrations("door-open-v3", 1, pool=Pool())
    noisy = robots.demonstrations("reach-v3", 1, seed=5, noise=0.3)[0]
    np.testing.assert_array_equal(
        noisy["observation"][0], made[0]["observation"][0]
    )
    assert np.abs(noisy["observation"][3] - made[0]["observation"][3]).max() > 0


@pytest.mark.slow
@pytest.mark.once
def test_a_policy_learns_to_reach():
    """From 20 demonstrations in 400 steps: most start states succeed."""
    pytest.importorskip("metaworld")
    source = robots.Windows(
        robots.demonstrations("reach-v3", 20), HORIZON, OBS_STEPS, ACT_STEPS,
        batch_size=128, repeat=True,
    )  # fmt: skip
    network = kf.networks.ChunkMLP(
        4, HORIZON, (OBS_STEPS, 21), width=64, depth=1, dropout=0.0
    )
    policy = kf.policies.Policy(
        kf.FlowMapInterface(network, "mip", ema=0.99, seed=0),
        observation_normalizer=kf.networks.MinMax(floor=5e-4),
        act_steps=ACT_STEPS,
        action_low=-1.0,
        action_high=1.0,
    )
    policy.adapt(source)
    policy.compile(keras.optimizers.AdamW(2e-3))
    policy.fit(source, steps_per_epoch=400, verbose=0)
    envs = [robots.make_env("reach-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(10)
    trained = kf.policies.evaluate(policy, envs, starts, max_steps=150)
    assert trained.rate >= 0.8


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize("name", ["mip_shelf_place", "flow_shelf_place"])
def test_shipped_policies_act(name):
    """On 20 start states; rates of 0.91 and 0.84 on the recipe's 100."""
    pytest.importorskip("metaworld")
    policy = kf.policies.Policy.from_preset(name)
    envs = [robots.make_env("shelf-place-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(20)
    found = kf.policies.evaluate(policy, envs, starts, max_steps=240)
    assert found.success.sum() >= 13


# Saving and export.


@pytest.fixture(scope="module", autouse=True)
def _one_tensorflow_process():
    """PyTorch's exports share a process: the start takes the most time."""
    with kf.export.tensorflow_process():
        yield


@pytest.mark.parametrize("objective", ["mip", "flow"])
def test_preset_round_trip(objective, tmp_path):
    policy = trained(objective, action_high=7.0, encoder=None)
    policy.save_to_preset(tmp_path / "policy")
    copy = kf.policies.Policy.from_preset(tmp_path / "policy")
    observation = windows()[0][1]
    np.testing.assert_allclose(
        copy.predict_chunk(observation, seed=0),
        policy.predict_chunk(observation, seed=0),
        rtol=1e-6,
    )
    assert copy.act_steps == ACT_STEPS and int(copy.adapted.numpy()) == 1


SERVE = """
import sys
import numpy as np, tensorflow as tf
sys.modules['keras'] = None
file = np.load(sys.argv[2])
serve = tf.saved_model.load(sys.argv[1]).signatures['serve']
worst = 0.0
for size in (7, 1):
    inputs = {k: tf.constant(v[:size]) for k, v in file.items() if k != 'chunk'}
    (out,) = serve(**inputs).values()
    worst = max(worst, float(np.abs(out.numpy() - file['chunk'][:size]).max()))
print('WORST', worst)
"""


@pytest.mark.parametrize(
    "kind", [pytest.param("mip", marks=pytest.mark.once), "flow"]
)
def test_saved_model_equals_the_policy(kind, tmp_path):
    """On its observations, in a process without Keras; dict and array."""
    data = dict_episodes() if kind == "flow" else None
    encoder = encoder_of_two() if kind == "flow" else None
    policy = trained(kind, encoder=encoder, data=data, action_high=60.0)
    policy.export(tmp_path / "policy", num_steps=2, verbose=False)
    observation = windows(data)[0][1]
    if not isinstance(observation, dict):
        observation = {"observation": observation}
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, HORIZON, 2)).astype("float32")
    chunk = policy.predict_chunk(
        observation if kind == "flow" else observation["observation"],
        noise=noise,
        num_steps=2,
    )
    np.savez(tmp_path / "io.npz", **observation, noise=noise, chunk=chunk)
    result = subprocess.run(
        [
            sys.executable, "-c", SERVE, str(tmp_path / "policy"),
            str(tmp_path / "io.npz"),
        ],
        capture_output=True, text=True, cwd=pathlib.Path(__file__).parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert "WORST" in result.stdout, result.stderr[-2000:]
    # Actions of size 100: 1e-5 of that.
    assert float(result.stdout.split()[-1]) < 1e-3


class Served:
    """A policy's SavedModel in the place of the policy, in closed loop."""

    def __init__(self, policy, folder):
        import tensorflow as tf

        self.tf, self.seen = tf, []
        # The endpoint dies with the object it came from.
        self.loaded = tf.saved_model.load(str(folder))
        self.serve = self.loaded.signatures["serve"]
        for name in ("obs_steps", "horizon", "act_steps", "observation_rank"):
            setattr(self, name, getattr(policy, name))
        self.noise = (policy.horizon, policy.action_dim)

    def predict_chunk(self, history, seed=None):
        self.seen.append(history)
        noise = self.tf.zeros((len(history), *self.noise))
        observation = self.tf.constant(history, "float32")
        (chunk,) = self.serve(observation=observation, noise=noise).values()
        return chunk.numpy()

    def reset(self, **options):
        self.control = kf.policies.Controller(self, **options)

    def select_action(self, observation):
        return self.control(observation)


@pytest.mark.slow
@pytest.mark.once
def test_saved_model_acts_as_the_policy(tmp_path):
    """The same chunks on whole episodes, and so the same successes."""
    pytest.importorskip("metaworld")
    policy = kf.policies.Policy.from_preset("mip_shelf_place")
    policy.export(tmp_path / "policy", verbose=False)
    served = Served(policy, tmp_path / "policy")
    envs = [robots.make_env("shelf-place-v3") for _ in range(5)]
    starts = robots.EVALUATION_START + np.arange(5)
    theirs = kf.policies.evaluate(served, envs, starts)
    ours = kf.policies.evaluate(policy, envs, starts)
    for history in list(served.seen):
        np.testing.assert_allclose(
            policy.predict_chunk(history),
            served.predict_chunk(history),
            atol=1e-5,
        )
    assert abs(int(theirs.success.sum()) - int(ours.success.sum())) <= 1
