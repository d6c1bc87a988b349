"""Demonstrations: every reader, what they refuse, and actions' rotations.

The files are written here by hand, as their users' tools write them.
"""

import json
import math
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


def episode(steps, seed=0, image=False):
    """An episode in the common format."""
    rng = np.random.default_rng(seed)
    observation = {
        "eef_pos": rng.normal(size=(steps, 3)).astype("float32"),
        "object": rng.normal(size=(steps, 2, 2)).astype("float32"),
    }
    if image:
        observation["view"] = rng.integers(0, 256, (steps, 8, 8, 3), "uint8")
    return {
        "observation": observation,
        "action": rng.normal(size=(steps, 7)).astype("float32"),
        "reward": rng.normal(size=steps).astype("float32"),
    }


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        assert set(b) <= set(a)
        for key, value in b.items():
            if key == "observation" and isinstance(value, dict):
                assert list(a[key]) == list(value)
                pairs = [(a[key][k], v) for k, v in value.items()]
            else:
                pairs = [(a[key], value)]
            for x, y in pairs:
                np.testing.assert_array_equal(x, y)
                assert np.asarray(x).dtype == np.asarray(y).dtype


# The common format


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


# robomimic


def robomimic_file(path, demos, masks=None, **changes):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, demo in demos.items():
            group = file.create_group(f"data/{name}")
            group.attrs["num_samples"] = len(demo["action"])
            for key, value in demo["observation"].items():
                # The format's own precision.
                kind = value.dtype if value.dtype == "uint8" else "float64"
                group[f"obs/{key}"] = value.astype(kind)
            group["actions"] = demo["action"].astype("float64")
            group["rewards"] = demo["reward"].astype("float64")
            group["dones"] = np.arange(len(demo["action"])) // 4
        for name, names in (masks or {}).items():
            file[f"mask/{name}"] = np.array(names, dtype="S8")
    return path


def test_robomimic_file(tmp_path):
    # Eleven, so that the alphabet's order is another.
    demos = {f"demo_{i}": episode(4 + i, i, image=True) for i in range(11)}
    path = robomimic_file(
        tmp_path / "low_dim.hdf5",
        demos,
        {"train": ["demo_10", "demo_2"], "valid": ["demo_3"]},
    )
    ours = robots.read_robomimic(path)
    assert_same(ours, list(demos.values()))
    np.testing.assert_array_equal(ours[1]["done"], [0, 0, 0, 0, 1])
    train = robots.read_robomimic(path, ["object"], filter_key="train")
    expected = robots.select_keys(
        [demos["demo_2"], demos["demo_10"]], ["object"]
    )
    assert_same(train, expected)
    (valid,) = robots.read_robomimic(path, "view", filter_key="valid")
    np.testing.assert_array_equal(
        valid["observation"], demos["demo_3"]["observation"]["view"]
    )
    assert valid["observation"].dtype == np.uint8


@pytest.mark.parametrize("arms", [1, 2])
def test_robomimic_absolute_actions(tmp_path, arms, rng):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    demo = episode(6)
    actions = rng.normal(size=(6, arms, 7))
    turns = rotation.random(6 * arms, random_state=0)
    actions[..., 3:6] = turns.as_rotvec().reshape(6, arms, 3)
    demo["action"] = actions.reshape(6, -1)
    path = robomimic_file(tmp_path / "abs.hdf5", {"demo_0": demo})
    (ours,) = robots.read_robomimic(path, rotation_6d=True)
    assert ours["action"].shape == (6, 10 * arms)
    split = ours["action"].reshape(6, arms, 10)
    np.testing.assert_array_equal(
        split[..., [0, 1, 2, 9]], actions[..., [0, 1, 2, 6]].astype("float32")
    )
    matrices = turns.as_matrix().reshape(6, arms, 3, 3)
    np.testing.assert_allclose(split[..., 3:6], matrices[..., 0], atol=1e-6)
    np.testing.assert_allclose(split[..., 6:9], matrices[..., 1], atol=1e-6)
    back = robots.from_rotation_6d(ours["action"])
    np.testing.assert_allclose(back, demo["action"], atol=1e-5)


def test_robomimic_files_that_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = robomimic_file(
        tmp_path / "a.hdf5", {"demo_0": episode(4)}, {"train": ["demo_7"]}
    )
    with pytest.raises(ValueError, match="`path` .*nowhere.hdf5' is no file"):
        robots.read_robomimic(tmp_path / "nowhere.hdf5")
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*\['eef_pos', "):
        robots.read_robomimic(path, ["hand"])
    with pytest.raises(ValueError, match=r"`filter_key` 'all'.*\['train'\]"):
        robots.read_robomimic(path, filter_key="all")
    with pytest.raises(ValueError, match="'train'.*names 'demo_7'"):
        robots.read_robomimic(path, filter_key="train")
    with pytest.raises(ValueError, match="`action_key` 'actions_abs'.*dones"):
        robots.read_robomimic(path, action_key="actions_abs")
    (tmp_path / "half.hdf5").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="half.hdf5' is no HDF5 file, or only"):
        robots.read_robomimic(tmp_path / "half.hdf5")
    with h5py.File(path, "a") as file:
        file["data/demo_0/obs/eef_pos"][2] = np.nan
    with pytest.raises(ValueError, match="`a.hdf5`.*eef_pos' holds NaN at ste"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs"]
    with pytest.raises(ValueError, match="'demo_0' has no observations"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data/demo_0"]
    with pytest.raises(ValueError, match="`a.hdf5` holds no demonstration"):
        robots.read_robomimic(path)
    with h5py.File(path, "a") as file:
        del file["data"]
    with pytest.raises(ValueError, match=r"no group 'data'.*\['mask'\]"):
        robots.read_robomimic(path)


# Replay buffers


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


# Minari


@pytest.fixture
def minari_sets(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    gymnasium = pytest.importorskip("gymnasium")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    spaces = gymnasium.spaces

    class Env(gymnasium.Env):
        """Observations and rewards tell the step."""

        def __init__(self, action_space):
            self.action_space = action_space
            box = spaces.Box(-100, 100, (2,), np.float64)
            self.observation_space = spaces.Dict(
                {"state": box, "goal": spaces.Dict({"position": box})}
            )

        def observation(self):
            state = np.full(2, 10.0 * self.start + self.t)
            return {"state": state, "goal": {"position": -state}}

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.t, self.start = 0, seed
            return self.observation(), {}

        def step(self, action):
            self.t += 1
            done = self.t == 3 + self.start
            return self.observation(), float(self.t), done, False, {}

    def make(name, action_space):
        env = minari.DataCollector(Env(action_space))
        for seed in range(2):
            env.reset(seed=seed)
            for t in range(3 + seed):
                action = t % 2
                if isinstance(action_space, spaces.Box):
                    action = np.array([t, seed], "float64")
                env.step(action)
        env.create_dataset(name, algorithm_name="test")
        env.close()

    make("test/box-v0", spaces.Box(-9, 9, (2,), np.float64))
    make("test/discrete-v0", spaces.Discrete(2))
    return tmp_path / "sets"


@pytest.mark.filterwarnings("ignore")
def test_minari(minari_sets):
    read = robots.read_minari
    ours = read("test/box-v0")
    expected = []
    for seed in range(2):
        steps = np.arange(3 + seed, dtype="float32")
        state = np.repeat(10.0 * seed + steps[:, None], 2, 1).astype("float32")
        expected.append(
            {
                "action": np.stack([steps, 0 * steps + seed], 1),
                "reward": steps + 1,
                "termination": steps == steps[-1],
                "truncation": steps < 0,
            }
        )
        for key, value in ("state", state), ("goal/position", -state):
            np.testing.assert_array_equal(ours[seed]["observation"][key], value)
            assert ours[seed]["observation"][key].dtype == np.float32
    assert_same(ours, expected)
    folder = minari_sets / "test" / "box-v0"
    for place in (folder, folder / "data"):
        assert_same(read(place), expected)
    goals = read("test/box-v0", "goal/position")
    np.testing.assert_array_equal(
        goals[1]["observation"], ours[1]["observation"]["goal/position"]
    )
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*goal/position"):
        read("test/box-v0", ["hand"])
    with pytest.raises(ValueError, match="'action' must be.*Discrete actions"):
        read("test/discrete-v0")
    with pytest.raises(ValueError, match="'test/none-v0' is neither.*sets"):
        read("test/none-v0")
    with pytest.raises(ValueError, match="folder without a Minari dataset"):
        read(minari_sets)


# LeRobot


def png(pixels):
    import io

    image = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


FPS = 10


def write_video(path, frames):
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt, stream.gop_size = "yuv420p", 4
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def lerobot_set(root, version, lengths=(4, 6, 5), camera=None):
    """A LeRobotDataset written by hand; returns its episodes."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    shapes = {
        "observation.state": (3,),
        "observation.gripper": (1,),
        "observation.keypoints": (2, 2),
        "action": (2,),
        "next.reward": (1,),
    }
    features = {
        key: {"dtype": "float32", "shape": list(shape), "names": None}
        for key, shape in shapes.items()
    }
    if camera is not None:
        features["observation.images.top"] = {
            "dtype": camera, "shape": [16, 16, 3], "names": None,
        }  # fmt: skip
    episodes, tables, listed, videos, index = [], [], [], [], 0
    for number, steps in enumerate(lengths):
        rows = {
            key: rng.normal(size=(steps, *shape)).astype("float32")
            for key, shape in shapes.items()
        }
        ours = {
            "observation": {
                key: rows[f"observation.{key}"]
                for key in ("state", "gripper", "keypoints")
            },
            "action": rows["action"],
            "reward": rows["next.reward"].reshape(-1),
            "tasks": [f"task {number}"],
            "episode_index": number,
        }
        columns = {
            # One number is no list in Hugging Face's columns.
            key: (value[:, 0] if shapes[key] == (1,) else value).tolist()
            for key, value in rows.items()
        }
        if camera is not None:
            grey = rng.integers(0, 256, (steps, 1, 1, 1), "uint8")
            frames = np.broadcast_to(grey, (steps, 16, 16, 3))
            ours["observation"]["images.top"] = frames
            videos.append(np.ascontiguousarray(frames))
            if camera == "image":
                columns["observation.images.top"] = [
                    {"bytes": png(frame), "path": None} for frame in frames
                ]
        columns |= {
            "timestamp": [i / FPS for i in range(steps)],
            "frame_index": list(range(steps)),
            "episode_index": [number] * steps,
            "index": list(range(index, index + steps)),
            "task_index": [number] * steps,
        }
        episodes.append(ours)
        tables.append(pa.table(columns))
        listed.append(
            {
                "episode_index": number,
                "tasks": [f"task {number}"],
                "length": steps,
            }
        )
        if version == "v3.0":
            listed[-1] |= {
                "data/chunk_index": 0,
                "data/file_index": number // 2,
                "dataset_from_index": index,
                "dataset_to_index": index + steps,
                "stats/action/mean": [0.0, 0.0],
                "videos/observation.images.top/chunk_index": 0,
                "videos/observation.images.top/file_index": number // 2,
                "videos/observation.images.top/from_timestamp": (
                    lengths[number - 1] / FPS if number % 2 else 0.0
                ),
            }
        index += steps
    info = {
        "codebase_version": version,
        "total_episodes": len(lengths),
        "chunks_size": 2,
        "fps": FPS,
        "features": features,
    }

    def write(table, place):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / place)

    if version == "v3.0":
        files = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        info["data_path"] = f"data/{files}.parquet"
        info["video_path"] = "videos/{video_key}/" + files + ".mp4"
        for i in range(0, len(lengths), 2):
            file = info["data_path"].format(chunk_index=0, file_index=i // 2)
            write(pa.concat_tables(tables[i : i + 2]), file)
        write(
            pa.Table.from_pylist(listed),
            "meta/episodes/chunk-000/file-000.parquet",
        )
    else:
        info["data_path"] = (
            "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
        )
        info["video_path"] = (
            "videos/chunk-{episode_chunk:03d}/{video_key}/"
            "episode_{episode_index:06d}.mp4"
        )
        for i, table in enumerate(tables):
            file = info["data_path"].format(
                episode_chunk=i // 2, episode_index=i
            )
            write(table, file)
        (root / "meta").mkdir(exist_ok=True)
        (root / "meta" / "episodes.jsonl").write_text(
            "\n".join(map(json.dumps, listed)) + "\n"
        )
    (root / "meta" / "info.json").write_text(json.dumps(info))
    if camera == "video":
        key = "observation.images.top"
        for i in range(0, len(lengths), 2 if version == "v3.0" else 1):
            frames = videos[i]
            if version == "v3.0":
                frames = np.concatenate(videos[i : i + 2])
            place = info["video_path"].format(
                video_key=key, chunk_index=0, file_index=i // 2,
                episode_chunk=i // 2, episode_index=i,
            )  # fmt: skip
            write_video(root / place, frames)
    return episodes


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot(tmp_path, version):
    episodes = lerobot_set(tmp_path, version, camera="image")
    ours = robots.read_lerobot(tmp_path)
    assert_same(ours, episodes)
    keys = ["observation.keypoints", "state"]
    assert_same(
        robots.read_lerobot(tmp_path, keys),
        robots.select_keys(episodes, ["keypoints", "state"]),
    )
    assert_same(
        robots.read_lerobot(tmp_path, "state", episodes=[2, 0]),
        robots.select_keys([episodes[2], episodes[0]], "state"),
    )


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_videos(tmp_path, version, monkeypatch):
    pytest.importorskip("av")
    episodes = lerobot_set(tmp_path, version, camera="video")
    for number, one in enumerate(robots.read_lerobot(tmp_path)):
        ours = one["observation"]["images.top"]
        expected = episodes[number]["observation"]["images.top"]
        assert ours.dtype == np.uint8 and ours.shape == expected.shape
        # Grey frames of all values survive the codec to a few.
        difference = np.abs(ours.astype(int) - expected.astype(int))
        assert difference.max() <= 12
    video = next(tmp_path.glob("videos/**/*.mp4"))
    shutil.move(video, tmp_path / "away.mp4")
    with pytest.raises(ValueError, match="images.top': video .* is missing"):
        robots.read_lerobot(tmp_path)
    write_video(video, np.zeros((2, 16, 16, 3), "uint8"))
    with pytest.raises(ValueError, match=r"no frame for steps \[2, 3"):
        robots.read_lerobot(tmp_path, ["images.top"])


def test_lerobot_without_a_decoder(tmp_path, monkeypatch):
    episodes = lerobot_set(tmp_path, "v2.1")
    file = tmp_path / "meta" / "info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.images.top"] = {
        "dtype": "video", "shape": [16, 16, 3], "names": None,
    }  # fmt: skip
    file.write_text(json.dumps(info))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="images.top.*pip install av.*`keys`"):
        robots.read_lerobot(tmp_path)
    assert_same(
        robots.read_lerobot(tmp_path, ["state"]),
        robots.select_keys(episodes, ["state"]),
    )


def test_lerobot_from_the_hub(tmp_path, monkeypatch):
    """Downloads what is asked for, in two steps."""
    episodes = lerobot_set(tmp_path, "v3.0")
    asked = []

    def snapshot_download(name, repo_type, revision, allow_patterns):
        asked.append((name, repo_type, revision, allow_patterns))
        return str(tmp_path)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_same(robots.read_lerobot("org/name", revision="v3.0"), episodes)
    assert asked == [
        ("org/name", "dataset", "v3.0", ["meta/**"]),
        ("org/name", "dataset", "v3.0", ["data/**"]),
    ]
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install huggingface_hub"):
        robots.read_lerobot("org/name")
    with pytest.raises(ValueError, match="neither a folder nor a repository"):
        robots.read_lerobot(tmp_path / "nowhere")


def test_lerobot_sets_that_are_refused(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    read = robots.read_lerobot
    with pytest.raises(ValueError, match="no meta/info.json"):
        read(tmp_path)
    lerobot_set(tmp_path, "v2.1")
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*\['gripper', "):
        read(tmp_path, ["hand"])
    with pytest.raises(ValueError, match=r"`episodes` \[3\].*which has 3"):
        read(tmp_path, episodes=[0, 3])
    file = tmp_path / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, 4), file)
    with pytest.raises(ValueError, match="Episode 1 .* 4 rows.* says 6"):
        read(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="lacks .*000001.*with episode 1"):
        read(tmp_path)
    pq.write_table(table, file)

    def change(**changes):
        file = tmp_path / "meta" / "info.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    change(total_episodes=4)
    with pytest.raises(ValueError, match="lists 3 episodes.* says 4"):
        read(tmp_path)
    change(total_episodes=3, codebase_version="v1.6")
    with pytest.raises(ValueError, match="codebase_version 'v1.6'; v2.0, v2.1"):
        read(tmp_path)
    info = json.loads((tmp_path / "meta" / "info.json").read_text())
    features = info["features"]
    features["action"]["shape"] = [3]
    change(codebase_version="v2.1", features=features)
    with pytest.raises(ValueError, match="'action' has 8 numbers in 4 rows"):
        read(tmp_path)
    del features["action"]
    change(features=features)
    with pytest.raises(ValueError, match="no feature 'action'"):
        read(tmp_path)


# TensorFlow Datasets


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("metaworld")
    import keras_flows.datasets.robots.metaworld_builder  # noqa: F401

    return tmp_path_factory.mktemp("tfds")


@pytest.mark.filterwarnings("ignore")
def test_metaworld_builder(tfds_dir):
    import tensorflow_datasets as tfds

    from keras_flows.datasets.robots import metaworld_builder as builder

    expected = robots.demonstrations("reach-v3", 3, seed=1, noise=0.1)
    config = builder.MetaworldConfig(task="reach-v3", num=3, seed=1, noise=0.1)
    assert config.name == "reach-v3_num3_seed1_noise0.1"
    source = tfds.data_source(
        "metaworld_demonstrations",
        split="train",
        data_dir=str(tfds_dir),
        builder_kwargs={"config": config, "file_format": "array_record"},
    )
    assert len(source) == 3
    record = source[0]
    assert record["episode_metadata"]["task"] == b"reach-v3"
    flags = {
        key: [bool(step[key]) for step in record["steps"]]
        for key in ("is_first", "is_last", "is_terminal")
    }
    steps = len(expected[0]["action"])
    assert flags["is_first"] == [True] + [False] * (steps - 1)
    assert flags["is_last"] == [False] * (steps - 1) + [True]
    assert not any(flags["is_terminal"])
    # By name alone, whoever made it.
    ours = robots.read_rlds(
        "metaworld_demonstrations/reach-v3_num3_seed1_noise0.1",
        data_dir=tfds_dir,
    )
    assert [one["task"] for one in ours] == ["reach-v3"] * 3
    for one, other in zip(ours, expected):
        # The episode's own success is another thing than the steps'.
        assert one["success"].shape == other["success"].shape
    assert_same(ours, expected)
    part = robots.read_rlds(
        "metaworld_demonstrations/reach-v3_num3_seed1_noise0.1",
        split="train[1:]",
        data_dir=tfds_dir,
        drop_last=True,
    )
    assert len(part[0]["action"]) == len(expected[1]["action"]) - 1


@pytest.mark.filterwarnings("ignore")
def test_rlds_set_of_others(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 3, 8, 8, 3), "uint8")
    states = rng.normal(size=(2, 3, 4)).astype("float32")

    class OthersRobot(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tfds.core.Path(tmp_path)

        def _info(self):
            features = tfds.features
            return self.dataset_info_from_configs(
                disable_shuffling=True,
                features=features.FeaturesDict(
                    {
                        "steps": features.Dataset(
                            {
                                "observation": {
                                    "image": features.Image(shape=(8, 8, 3)),
                                    "state": features.Tensor(
                                        shape=(4,), dtype=np.float32
                                    ),
                                    "instruction": features.Text(),
                                },
                                "action": {
                                    "move": features.Tensor(
                                        shape=(2,), dtype=np.float32
                                    ),
                                    "open": features.Scalar(dtype=np.float32),
                                },
                                "reward": features.Scalar(dtype=np.float32),
                            }
                        ),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(2):
                yield (
                    i,
                    {
                        "steps": [
                            {
                                "observation": {
                                    "image": images[i, t],
                                    "state": states[i, t],
                                    "instruction": "push",
                                },
                                "action": {
                                    "move": states[i, t, :2],
                                    "open": states[i, t, 3],
                                },
                                "reward": t,
                            }
                            for t in range(3)
                        ]
                    },
                )

    ours = robots.read_rlds("others_robot", data_dir=tmp_path)
    expected = [
        {
            "observation": {"image": images[i], "state": states[i]},
            "action": states[i][:, [0, 1, 3]],
            "reward": np.arange(3, dtype="float32"),
        }
        for i in range(2)
    ]
    assert_same(ours, expected)
    assert_same(
        robots.read_rlds("others_robot", data_dir=tmp_path, keys="state"),
        robots.select_keys(expected, "state"),
    )
    with pytest.raises(ValueError, match=r"`keys` \['hand'\].*'state'"):
        robots.read_rlds("others_robot", data_dir=tmp_path, keys=["hand"])


@pytest.mark.filterwarnings("ignore")
def test_rlds_sets_that_are_refused(tfds_dir):
    pytest.importorskip("sklearn")
    import keras_flows.datasets.digits_builder  # noqa: F401
    from keras_flows.datasets.robots import metaworld_builder as builder

    with pytest.raises(ValueError, match="not in the layout of RLDS.*'image'"):
        robots.read_rlds("sklearn_digits", data_dir=tfds_dir)
    with pytest.raises(ValueError, match="must be a task.*<task>_num<n>"):
        builder.MetaworldConfig.from_name("reach")
    assert builder.MetaworldConfig.from_name("reach-v3").num == 100


# Actions


@pytest.fixture
def turns():
    """Random rotations, and the awkward ones."""
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    awkward = [
        [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.0, 1e-4, 0.0],
        [math.pi, 0.0, 0.0], [0.0, math.pi, 0.0], [0.0, 0.0, math.pi],
        [math.pi - 1e-7, 0.0, 0.0], [2.0, 2.0, 0.0], [-1.0, 1.5, 2.0],
    ]  # fmt: skip
    return rotation.concatenate(
        [rotation.random(200, random_state=0), rotation.from_rotvec(awkward)]
    )


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
    with pytest.raises(ValueError, match="`quaternion` must not hold.*NaN"):
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
