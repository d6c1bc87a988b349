"""LeRobot sets."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
from helpers.robots import assert_same

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots


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
