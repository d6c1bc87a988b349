"""Policies: training, acting, adapting, saving."""

import keras
import numpy as np
import pytest
from helpers.close import close
from helpers.policies import ACT_STEPS
from helpers.policies import HORIZON
from helpers.policies import dict_episodes
from helpers.policies import encoder_of_two
from helpers.policies import episodes
from helpers.policies import make_policy
from helpers.policies import trained
from helpers.policies import windows

import keras_flows as kf
from keras_flows.datasets import robots


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
    # A flow map's loss is the noisier one.
    epochs = 6 if objective == "lsd" else 3
    history = policy.fit(source, steps_per_epoch=8, epochs=epochs, verbose=0)
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
    close(chunk, keras.ops.convert_to_numpy(expected), 5)
    zero = policy.predict_chunk(observation, start="zero", num_steps=3)
    from_zero = policy.predict_chunk(
        observation, noise=0.0 * noise, num_steps=3
    )
    close(zero, from_zero, 6)


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
    close(copy.predict_chunk(there[:1]), far, 6)
    with pytest.raises(ValueError, match="cannot be exported"):
        policy.export(tmp_path / "saved")


@pytest.mark.parametrize("objective", ["mip", "flow"])
def test_preset_round_trip(objective, tmp_path):
    policy = trained(objective, action_high=7.0, encoder=None)
    policy.save_to_preset(tmp_path / "policy")
    copy = kf.policies.Policy.from_preset(tmp_path / "policy")
    observation = windows()[0][1]
    close(
        copy.predict_chunk(observation, seed=0),
        policy.predict_chunk(observation, seed=0),
        6,
    )
    assert copy.act_steps == ACT_STEPS and int(copy.adapted.numpy()) == 1
