"""Rotations and representations of actions."""

import math

import numpy as np
import pytest

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


def test_rotations_are_scipys(turns):
    matrices, vectors = turns.as_matrix(), turns.as_rotvec()
    quaternions = turns.as_quat(canonical=True)
    np.testing.assert_allclose(
        robots.quaternion_to_matrix(quaternions), matrices, atol=1e-12
    )
    np.testing.assert_allclose(
        robots.quaternion_to_matrix(-3 * quaternions), matrices, atol=1e-12
    )
    np.testing.assert_allclose(
        robots.axis_angle_to_matrix(vectors), matrices, atol=1e-12
    )
    ours = robots.matrix_to_quaternion(matrices)
    assert (ours[:, 3] >= 0).all()
    # At half a turn the sign is anyone's.
    same = np.abs(np.sum(ours * quaternions, axis=-1))
    np.testing.assert_allclose(same, 1.0, atol=1e-12)
    ours = robots.matrix_to_axis_angle(matrices)
    assert (np.linalg.norm(ours, axis=-1) <= np.pi + 1e-9).all()
    back = type(turns).from_rotvec(ours)
    np.testing.assert_allclose((back * turns.inv()).magnitude(), 0.0, atol=1e-7)
    plain = np.linalg.norm(vectors, axis=-1) < math.pi - 1e-3
    np.testing.assert_allclose(ours[plain], vectors[plain], atol=1e-9)
    small = np.linalg.norm(vectors, axis=-1) < 1e-3
    np.testing.assert_allclose(
        ours[small], vectors[small], rtol=1e-6, atol=1e-15
    )


@pytest.mark.parametrize("order", ["columns", "rows"])
def test_rotation_6d(turns, order, rng):
    matrices = turns.as_matrix()
    ours = robots.matrix_to_rotation_6d(matrices, order)
    parts = matrices if order == "rows" else np.swapaxes(matrices, -1, -2)
    np.testing.assert_array_equal(ours, parts[:, :2].reshape(-1, 6))
    np.testing.assert_allclose(
        robots.rotation_6d_to_matrix(ours, order), matrices, atol=1e-12
    )
    # Any numbers make a rotation: what a network puts out.
    made = robots.rotation_6d_to_matrix(rng.normal(size=(50, 6)), order)
    np.testing.assert_allclose(
        np.matmul(made, np.swapaxes(made, -1, -2)),
        np.broadcast_to(np.eye(3), made.shape),
        atol=1e-9,
    )
    np.testing.assert_allclose(np.linalg.det(made), 1.0, atol=1e-9)
    with pytest.raises(ValueError, match="`rotation`.*zeros, parallel"):
        robots.rotation_6d_to_matrix(np.ones(6), order)


def test_wrong_rotations_are_named():
    with pytest.raises(ValueError, match=r"`quaternion`.*4.*\(3,\)"):
        robots.quaternion_to_matrix(np.zeros(3))
    with pytest.raises(ValueError, match="`quaternion` must not hold zeros"):
        robots.quaternion_to_matrix(np.zeros(4))
    with pytest.raises(ValueError, match="`quaternion` must be finite.*NaN"):
        robots.quaternion_to_matrix(np.full(4, np.nan))
    with pytest.raises(ValueError, match="`order`.*'xy'"):
        robots.matrix_to_rotation_6d(np.eye(3), "xy")
    with pytest.raises(ValueError, match=r"`actions`.*7.*14.*\(5, 10\)"):
        robots.to_rotation_6d(np.zeros((5, 10)))


def random_actions(rng, shape, arms, order="columns"):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    count = math.prod(shape) * arms
    turns = rotation.random(count, random_state=int(rng.integers(1000)))
    rotations = robots.matrix_to_rotation_6d(turns.as_matrix(), order)
    actions = np.concatenate(
        [
            rng.normal(size=(count, 3)),
            rotations,
            rng.choice([-1.0, 1.0], (count, 1)),
        ],
        axis=-1,
    )
    return actions.reshape(*shape, 10 * arms).astype("float32")


@pytest.mark.parametrize("order", ["columns", "rows"])
@pytest.mark.parametrize("arms", [1, 2])
@pytest.mark.parametrize("name", ["absolute", "relative", "delta"])
def test_representations_are_inverted(name, arms, order, rng):
    kind = robots.action_representation(name, arms=arms, order=order)
    actions = random_actions(rng, (3, 8), arms, order)
    pose = random_actions(rng, (3,), arms, order).reshape(3, arms, 10)
    pose = pose[..., :9].reshape(3, 9 * arms)
    chunk = kind.encode(actions, pose)
    assert chunk.shape == actions.shape and chunk.dtype == np.float32
    assert (name == "absolute") == np.array_equal(chunk, actions)
    np.testing.assert_allclose(kind.decode(chunk, pose), actions, atol=2e-5)
    # The gripper, to the bit.
    split = (3, 8, arms, 10)
    np.testing.assert_array_equal(
        chunk.reshape(split)[..., 9], actions.reshape(split)[..., 9]
    )
    # One chunk alone is the same as in a batch.
    np.testing.assert_array_equal(kind.encode(actions[1], pose[1]), chunk[1])
    again = robots.action_representation(name, **kind.get_config())
    np.testing.assert_array_equal(again.encode(actions, pose), chunk)


def test_relative_is_by_scipys_rotations(rng):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    actions = random_actions(rng, (5,), 1)
    quaternion = rotation.random(random_state=4).as_quat()
    position = rng.normal(size=3)
    pose = robots.poses(
        {"robot0_eef_pos": position, "robot0_eef_quat": quaternion}
    )
    now = rotation.from_quat(quaternion)
    targets = rotation.from_matrix(
        robots.rotation_6d_to_matrix(actions[:, 3:9])
    )
    relative = robots.action_representation("relative").encode(actions, pose)
    np.testing.assert_allclose(
        relative[:, :3], now.inv().apply(actions[:, :3] - position), atol=1e-5
    )
    matrices = (now.inv() * targets).as_matrix()
    np.testing.assert_allclose(relative[:, 3:6], matrices[..., 0], atol=1e-5)
    np.testing.assert_allclose(relative[:, 6:9], matrices[..., 1], atol=1e-5)
    # It does not depend on where the robot stands.
    elsewhere, moved = rotation.random(random_state=5), np.array([1.0, 2, 3])
    shifted = actions.copy()
    shifted[:, :3] = elsewhere.apply(actions[:, :3]) + moved
    shifted[:, 3:9] = robots.matrix_to_rotation_6d(
        (elsewhere * targets).as_matrix()
    )
    pose = robots.poses(
        {
            "robot0_eef_pos": elsewhere.apply(position) + moved,
            "robot0_eef_quat": (elsewhere * now).as_quat(),
        }
    )
    for name in ("relative", "delta"):
        kind = robots.action_representation(name)
        np.testing.assert_allclose(
            kind.encode(shifted, pose)[1:],
            kind.encode(actions, pose)[1:] if name == "delta" else relative[1:],
            atol=1e-5,
        )
    # A delta is the relative action from the step before.
    delta = robots.action_representation("delta").encode(actions, pose)
    kind = robots.action_representation("relative")
    for i in range(1, 5):
        step = kind.encode(actions[i : i + 1], actions[i - 1, :9])
        np.testing.assert_allclose(delta[i : i + 1], step, atol=1e-6)


def test_poses_of_two_arms(rng):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    turns = rotation.random(3, random_state=6)
    observation = {"object": np.zeros((3, 5))}
    for i in (1, 0):
        observation[f"robot{i}_eef_pos"] = np.full((3, 3), 1.0 + i)
        observation[f"robot{i}_eef_quat"] = (turns**i).as_quat()
    pose = robots.poses(observation)
    assert pose.shape == (3, 18) and pose.dtype == np.float32
    np.testing.assert_array_equal(pose[:, [0, 9]], [[1.0, 2.0]] * 3)
    np.testing.assert_allclose(
        pose[:, 12:15], turns.as_matrix()[..., 0], atol=1e-6
    )
    one = robots.poses(observation, robots=["robot1"])
    np.testing.assert_array_equal(one, pose[:, 9:])


def test_joints_have_plain_differences(rng):
    actions = rng.normal(size=(4, 8)).astype("float32")
    pose = rng.normal(size=7)
    kinds = {
        name: robots.action_representation(name, position=7, rotation=False)
        for name in ("relative", "delta")
    }
    relative = kinds["relative"].encode(actions, pose)
    np.testing.assert_allclose(
        relative[:, :7], actions[:, :7] - pose, atol=1e-6
    )
    delta = kinds["delta"].encode(actions, pose)
    np.testing.assert_allclose(
        np.cumsum(delta[:, :7], axis=0) + pose, actions[:, :7], atol=1e-5
    )
    for kind, chunk in zip(kinds.values(), (relative, delta)):
        np.testing.assert_allclose(kind.decode(chunk, pose), actions, atol=1e-5)


def test_representations_that_are_refused(rng):
    make = robots.action_representation
    with pytest.raises(ValueError, match="`identifier`.*'absolute'.*'rel'"):
        make("rel")
    with pytest.raises(ValueError, match="`position` must be 3 .*7"):
        make("delta", position=7)
    with pytest.raises(ValueError, match="`arms`.*0"):
        make("delta", arms=0)
    kind = make("relative")
    assert make(kind) is kind
    with pytest.raises(ValueError, match=r"\['arms'\] are left over"):
        make(kind, arms=2)
    actions = random_actions(rng, (2, 4), 1)
    with pytest.raises(ValueError, match=r"`actions`.*10.*\(2, 4, 9\)"):
        kind.encode(actions[..., :9], np.zeros(9))
    with pytest.raises(ValueError, match="`pose`.*9.*Received: None"):
        kind.decode(actions)
    with pytest.raises(ValueError, match=r"`pose`.*\(2, 9\).*Received: \(9,"):
        kind.decode(actions, actions[0, 0, :9])
    with pytest.raises(ValueError, match="`observation`.*'robot1_eef_pos'"):
        robots.poses({}, robots=["robot1"])
