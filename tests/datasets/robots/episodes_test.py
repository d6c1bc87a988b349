"""The common format of episodes; missing packages."""

import sys

import numpy as np
import pytest
from helpers.robots import episode

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


def test_check_casts_and_copies_nothing_else():
    given = episode(5, image=True)
    given["observation"]["eef_pos"] = given["observation"]["eef_pos"].astype(
        "float64"
    )
    given["success"] = np.zeros(5, bool)
    given["seed"] = 3
    (checked,) = robots.check_episodes([given])
    observation = checked["observation"]
    assert observation["eef_pos"].dtype == np.float32
    assert observation["view"] is given["observation"]["view"]
    assert checked["action"] is given["action"]
    assert checked["success"].dtype == bool and checked["seed"] == 3
    assert given["observation"]["eef_pos"].dtype == np.float64


def broken(change):
    """Three episodes, of which the last is changed."""
    episodes = [episode(5, seed) for seed in range(3)]
    change(episodes[2])
    return episodes


def put(place, index, value):
    def change(e):
        *outer, key = place.split("/")
        for name in outer:
            e = e[name]
        e[key][index] = value

    return change


BAD = {
    "NaN": (
        put("observation/eef_pos", (3, 1), np.nan),
        "Episode 2 .*'observation/eef_pos' holds NaN at step 3 .of 5; 1 step",
    ),
    "infinite action": (
        put("action", 4, np.inf),
        "Episode 2 .*'action' holds an infinite number at step 4",
    ),
    "too large for float32": (
        lambda e: e.update(reward=np.array([0, 0, 1e200, 0, 0])),
        "Episode 2 .*'reward' holds an infinite number at step 2",
    ),
    "one observation more": (
        lambda e: e["observation"].update(eef_pos=np.zeros((6, 3))),
        "Episode 2 .*'observation/eef_pos' has 6 steps and 'action' has 5",
    ),
    "no action": (lambda e: e.pop("action"), "Episode 2 .* has no 'action'"),
    "discrete actions": (
        lambda e: e.update(action=np.arange(5)),
        r"Episode 2 .*'action' must be \(T, A\).*Received: \(5,\)",
    ),
    "other shape": (
        lambda e: e.update(action=np.zeros((5, 6), "float32")),
        r"Episode 2 .*'action' has rows of shape \(6,\).*first.*shape \(7,\)",
    ),
    "other kind": (
        lambda e: e["observation"].update(eef_pos=np.zeros((5, 3), "uint8")),
        "Episode 2 .*eef_pos' has rows.*uint8.*first.*float32",
    ),
    "key missing": (
        lambda e: e["observation"].pop("object"),
        "Episode 2 .*lacks 'observation/object'",
    ),
    "key too many": (
        lambda e: e.update(success=np.zeros(5, bool)),
        "Episode 2 .*unlike the first, 'success'",
    ),
    "texts": (
        lambda e: e["observation"].update(eef_pos=np.array(["a"] * 5)),
        "Episode 2 .*eef_pos' must be an array of numbers.*<U1",
    ),
    "no step": (
        lambda e: e.update(
            observation=np.zeros((0, 3)), action=np.zeros((0, 7))
        ),
        "Episode 2 .* has no step",
    ),
    "no dict": (
        lambda e: e.update(observation={}),
        "Episode 2 .*'observation' is an empty dict",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_check_names_what_is_wrong(case):
    change, message = BAD[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        robots.check_episodes(broken(change))


def test_check_refuses_nothing_at_all():
    with pytest.raises(ValueError, match="`train` holds no demonstration"):
        robots.check_episodes([], "train")
    with pytest.raises(ValueError, match="Episode 0.*must be a dict.*list"):
        robots.check_episodes([[1, 2]])


def test_select_and_concatenate():
    episodes = [episode(4, 1, image=True), episode(6, 2, image=True)]
    named = robots.select_keys(episodes, ["object", "eef_pos"])
    assert list(named[0]["observation"]) == ["object", "eef_pos"]
    flat = robots.concatenate(episodes, ["object", "eef_pos"])
    for one, both in zip(episodes, flat):
        steps = len(one["action"])
        assert both["observation"].shape == (steps, 7)
        np.testing.assert_array_equal(
            both["observation"][:, :4],
            one["observation"]["object"].reshape(steps, 4),
        )
        np.testing.assert_array_equal(
            both["observation"][:, 4:], one["observation"]["eef_pos"]
        )
        assert both["reward"] is one["reward"]
    alone = robots.select_keys(episodes, "view")
    assert alone[0]["observation"] is episodes[0]["observation"]["view"]
    with pytest.raises(ValueError, match="leave out 'view', an image"):
        robots.concatenate(episodes)
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*\['eef_pos', "):
        robots.select_keys(episodes, ["hand"])
    with pytest.raises(ValueError, match="needs named observations"):
        robots.select_keys(alone, ["view"])


def test_split_holds_out_a_part():
    episodes = [episode(3, seed) for seed in range(10)]
    train, out = robots.split_episodes(episodes, 0.2, seed=1)
    assert len(train) == 8 and len(out) == 2
    assert {id(e) for e in train + out} == {id(e) for e in episodes}
    others = [robots.split_episodes(episodes, 0.2, seed=s)[1] for s in range(9)]
    assert len({tuple(id(e) for e in o) for o in others}) > 1
    assert len(robots.split_episodes(episodes[:2], 0.01)[1]) == 1
    with pytest.raises(ValueError, match="`held_out`.*1.5"):
        robots.split_episodes(episodes, 1.5)
    with pytest.raises(ValueError, match="at least 2.*1"):
        robots.split_episodes(episodes[:1], 0.5)


MODULES = {
    "read_robomimic": ("h5py", "a.hdf5"),
    "read_replay_buffer": ("zarr", "a.zarr"),
    "read_minari": ("minari", "a"),
    "read_lerobot": ("pyarrow.parquet", "a/b"),
}


@pytest.mark.parametrize("reader", MODULES)
def test_missing_packages_are_named(reader, monkeypatch):
    module, name = MODULES[reader]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras_flows\[robots"):
        getattr(robots, reader)(name)
