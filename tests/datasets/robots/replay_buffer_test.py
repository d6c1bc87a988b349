"""Replay buffers."""

import json
import zipfile

import numpy as np
import pytest
from helpers.robots import assert_same

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


def pusht(num=3):
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(num):
        steps = 5 + i
        episodes.append(
            {
                "observation": {
                    "img": rng.integers(2, 256, (steps, 6, 6, 3), "uint8"),
                    "keypoint": rng.normal(size=(steps, 9, 2)).astype(
                        "float32"
                    ),
                    "state": rng.normal(size=(steps, 5)).astype("float32"),
                },
                "action": rng.normal(size=(steps, 2)).astype("float32"),
            }
        )
    return episodes


@pytest.mark.parametrize("name", ["pusht.zarr", "pusht.zarr.zip"])
def test_replay_buffer_round_trip(tmp_path, name):
    zarr = pytest.importorskip("zarr")
    episodes = pusht()
    path = tmp_path / "deep" / name
    robots.write_replay_buffer(path, episodes, chunk=4)
    assert_same(robots.read_replay_buffer(path), episodes)
    states = robots.read_replay_buffer(path, "state")
    assert_same(states, robots.select_keys(episodes, "state"))
    assert [p.name for p in path.parent.iterdir()] == [name]
    if name.endswith(".zarr"):
        # What diffusion_policy's zarr 2 looks for.
        group = json.loads((path / ".zgroup").read_text())
        assert group == {"zarr_format": 2}
        root = zarr.open_group(path, mode="r")
        assert root["meta/episode_ends"][:].tolist() == [5, 11, 18]
        assert root["data/action"].shape == (18, 2)
    with pytest.raises(ValueError, match="exists. Remove it"):
        robots.write_replay_buffer(path, episodes)


def test_replay_buffer_of_others(tmp_path):
    """Zarr 2 by hand, without compression, the folder inside the zip."""
    pytest.importorskip("zarr")
    episodes = pusht(2)
    path = tmp_path / "a.zarr.zip"
    arrays = {"meta/episode_ends": np.array([5, 11])}
    for key in ("img", "keypoint", "state"):
        rows = [e["observation"][key] for e in episodes]
        # Push-T's file keeps images in float32, and states in float64.
        kind = "float64" if key == "state" else "float32"
        arrays[f"data/{key}"] = np.concatenate(rows).astype(kind)
    arrays["data/action"] = np.concatenate([e["action"] for e in episodes])
    with zipfile.ZipFile(path, "w") as file:
        for folder in ("", "meta/", "data/"):
            file.writestr(f"a.zarr/{folder}.zgroup", '{"zarr_format": 2}')
        for key, array in arrays.items():
            header = {
                "zarr_format": 2, "shape": array.shape, "chunks": array.shape,
                "dtype": array.dtype.str, "compressor": None, "order": "C",
                "fill_value": 0, "filters": None,
            }  # fmt: skip
            file.writestr(f"a.zarr/{key}/.zarray", json.dumps(header))
            zeros = ".".join("0" * array.ndim)
            file.writestr(f"a.zarr/{key}/{zeros}", array.tobytes())
    assert_same(robots.read_replay_buffer(path), episodes)
    with zipfile.ZipFile(path) as file:
        file.extractall(tmp_path)
    assert_same(robots.read_replay_buffer(tmp_path / "a.zarr"), episodes)


def test_replay_buffers_that_are_refused(tmp_path):
    zarr = pytest.importorskip("zarr")
    read = robots.read_replay_buffer
    path = tmp_path / "a.zarr"
    robots.write_replay_buffer(path, pusht())
    with pytest.raises(ValueError, match="`path` .*nowhere' does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"`keys` \['pose'\].*'keypoint'"):
        read(path, ["pose"])
    with pytest.raises(ValueError, match="`action_key` 'actions'.*'keypoint'"):
        read(path, action_key="actions")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="a.zip' is neither a folder nor"):
        read(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as file:
        file.writestr("data/.zgroup", '{"zarr_format": 2}')
    with pytest.raises(ValueError, match="b.zip' is no replay buffer"):
        read(tmp_path / "b.zip")
    root = zarr.open_group(path, mode="a")
    root["meta/episode_ends"][:] = [5, 5, 18]
    with pytest.raises(ValueError, match=r"must increase.*\[5, 5, 18\]"):
        read(path)
    root["meta/episode_ends"][:] = [5, 11, 17]
    with pytest.raises(ValueError, match="'img' .* 18 steps.* says 17"):
        read(path)
    del root["meta"]
    with pytest.raises(ValueError, match=r"needs data/\*.*has \['data'\]"):
        read(path)
    with pytest.raises(ValueError, match="`episodes`.*'state'"):
        clash = [{**e, "state": e["action"]} for e in pusht()]
        robots.write_replay_buffer(tmp_path / "c.zarr", clash)
    assert not list(tmp_path.glob(".*partial"))
