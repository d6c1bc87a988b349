"""A folder of NumPy files, one episode each."""

import numpy as np
import pytest
from helpers.robots import assert_same

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


def recorded(num=11):
    rng = np.random.default_rng(0)
    return [
        {
            "observation": {
                "camera": rng.integers(0, 256, (4 + i, 6, 5, 3), "uint8"),
                "position": rng.normal(size=(4 + i, 2)).astype("float32"),
            },
            "action": rng.normal(size=(4 + i, 3)).astype("float32"),
            "success": np.arange(4 + i) == 3 + i,
        }
        for i in range(num)
    ]


@pytest.fixture
def folder(tmp_path):
    for i, episode in enumerate(recorded()):
        rest = {k: v for k, v in episode.items() if k != "observation"}
        np.savez(tmp_path / f"{i}.npz", **rest, **episode["observation"])
    return tmp_path


def test_episodes_come_in_the_order_of_numbers(folder):
    """10.npz after 9.npz; flags and images keep their kinds."""
    assert_same(robots.read_npz(folder), recorded())
    states = robots.read_npz(str(folder), "position")
    assert_same(states, robots.select_keys(recorded(), "position"))


def test_one_observation_is_an_array(tmp_path):
    rows = np.ones((5, 2), "float32")
    np.savez_compressed(tmp_path / "a.npz", observation=rows, action=rows)
    (episode,) = robots.read_npz(tmp_path)
    assert episode["observation"].shape == (5, 2)
    (episode,) = robots.read_npz(tmp_path, ["observation"])
    assert episode["observation"]["observation"].shape == (5, 2)


def test_what_cannot_be_read_is_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"no folder.*np\.savez"):
        robots.read_npz(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no .npz"):
        robots.read_npz(tmp_path / "empty")
    with pytest.raises(ValueError, match="'act' is no array of .*0.npz"):
        robots.read_npz(folder, action_key="act")
    with pytest.raises(ValueError, match="'wrist'.*camera"):
        robots.read_npz(folder, ["wrist"])
    whole = (folder / "3.npz").read_bytes()
    objects = np.array([{"x": 1}], dtype=object)
    for damaged in (b"", b"no zip", whole[: len(whole) // 2], objects):
        if isinstance(damaged, bytes):
            (folder / "3.npz").write_bytes(damaged)
        else:
            np.savez(folder / "3.npz", action=damaged)
        with pytest.raises(ValueError, match=r"3\.npz.*cannot be read"):
            robots.read_npz(folder)
    np.save(folder / "3.npy", np.ones(3))
    (folder / "3.npy").rename(folder / "3.npz")
    with pytest.raises(ValueError, match=r"3\.npz.*cannot be read"):
        robots.read_npz(folder)


def test_episodes_are_checked(folder):
    rows = np.ones((5, 2), "float32")
    np.savez(folder / "11.npz", action=rows, position=rows[:4])
    with pytest.raises(ValueError, match="Episode 11.*4 steps"):
        robots.read_npz(folder)
