"""LeRobot: depth maps, shapes that are not as said, and texts."""

import io
import json

import numpy as np
import pytest

import keras_flows as kf

# Files and NumPy.
pytestmark = pytest.mark.once

robots = kf.datasets.robots
KEY = "observation.images.depth"
QUANTISER = {
    "video.depth_min": 0.01,
    "video.depth_max": 10.0,
    "video.shift": 3.5,
    "video.use_log": True,
}
STEPS = 3


def stored(root, feature, column=None, frames=None, pixel_format=None):
    """A set of one episode with one more observation, `feature`."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    rng = np.random.default_rng(0)
    columns = {
        "observation.state": rng.normal(size=(STEPS, 2)).tolist(),
        "action": rng.normal(size=(STEPS, 2)).tolist(),
        "episode_index": [0] * STEPS,
        "frame_index": list(range(STEPS)),
    }
    if column is not None:
        columns[KEY] = column
    features = {
        "observation.state": {"dtype": "float32", "shape": [2]},
        "action": {"dtype": "float32", "shape": [2]},
        KEY: feature,
    }
    (root / "meta").mkdir(parents=True)
    (root / "data").mkdir()
    pq.write_table(pa.table(columns), root / "data" / "0.parquet")
    (root / "meta" / "info.json").write_text(
        json.dumps(
            {
                "codebase_version": "v2.1",
                "total_episodes": 1,
                "fps": 10,
                "features": features,
                "data_path": "data/{episode_index}.parquet",
                "video_path": "{episode_index}.mkv",
            }
        )
    )
    listed = {"episode_index": 0, "tasks": ["a"], "length": STEPS}
    (root / "meta" / "episodes.jsonl").write_text(json.dumps(listed))
    if frames is not None:
        _video(root / "0.mkv", frames, pixel_format)
    return root


def _video(path, frames, pixel_format):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for pixels in frames:
            frame = av.VideoFrame(
                frames.shape[2], frames.shape[1], pixel_format
            )
            plane = frame.planes[0]
            rows = np.zeros(
                (frames.shape[1], plane.line_size // pixels.itemsize),
                pixels.dtype,
            )
            rows[:, : frames.shape[2]] = pixels
            plane.update(rows.tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def images(pixels, kind="PNG"):
    pillow = pytest.importorskip("PIL.Image")
    cells = []
    for each in pixels:
        file = io.BytesIO()
        pillow.fromarray(each).save(file, format=kind)
        cells.append({"bytes": file.getvalue(), "path": None})
    return cells


def read(root):
    (episode,) = robots.read_lerobot(root)
    return episode["observation"]["images.depth"]


def feature(dtype, shape, **info):
    return {"dtype": dtype, "shape": list(shape), "info": info}


# Distances of a room in millimetres, beyond what 8 bits hold.
DEPTH = np.arange(STEPS * 24, dtype="uint16").reshape(STEPS, 4, 6) * 71 + 120


@pytest.mark.parametrize("mark", ["is_depth_map", "video.is_depth_map", "none"])
@pytest.mark.parametrize("unit", ["mm", "m"])
def test_depth_images_are_millimetres(tmp_path, mark, unit):
    pixels, kind = DEPTH, "PNG"
    if unit == "m":
        pixels, kind = (DEPTH / 1000).astype("float32"), "TIFF"
    marked = {} if mark == "none" else {mark: True}
    stored(
        tmp_path / "set",
        feature("image", (4, 6, 1), **marked),
        images(pixels, kind),
    )
    found = read(tmp_path / "set")
    assert found.dtype == np.float32 and found.shape == (STEPS, 4, 6, 1)
    np.testing.assert_allclose(found[..., 0], DEPTH, rtol=1e-6)


@pytest.mark.parametrize("use_log", [True, False])
def test_depth_videos_are_millimetres(tmp_path, use_log):
    low, high, shift = 0.01, 10.0, 3.5

    def scale(metres):
        return np.log(metres + shift) if use_log else metres

    share = (scale(DEPTH / 1000) - scale(low)) / (scale(high) - scale(low))
    codes = np.rint(4095 * share).astype("uint16")
    about = {**QUANTISER, "video.use_log": use_log, "is_depth_map": True}
    stored(
        tmp_path / "set",
        feature("video", (4, 6, 1), **about),
        frames=codes,
        pixel_format="gray12le",
    )
    found = read(tmp_path / "set")
    assert found.dtype == np.float32 and found.shape == (STEPS, 4, 6, 1)
    # A step of the 12 bits is 2.4 mm, or 0.9 to 3.5 mm of the logarithm.
    assert np.abs(found[..., 0] - DEPTH).max() < 2.5
    assert found.max() > 5000


REFUSED = {
    "depth of 8 bits": (
        feature("image", (4, 6, 1), is_depth_map=True),
        {"column": (DEPTH // 64).astype("uint8")},
        "images.depth'.*depth map.*8 bits",
    ),
    "depth video without its numbers": (
        feature("video", (4, 6, 1), is_depth_map=True),
        {"frames": DEPTH, "pixel_format": "gray12le"},
        "images.depth'.*cannot be told.*video.depth_min",
    ),
    "video of 12 bits without a mark": (
        feature("video", (4, 6, 1)),
        {"frames": DEPTH, "pixel_format": "gray12le"},
        "images.depth'.*12 bits.*is_depth_map",
    ),
    "another height": (
        feature("image", (5, 6, 3)),
        {"column": np.zeros((STEPS, 4, 6, 3), "uint8")},
        r"images.depth'.*\(4, 6, 3\).*says \(5, 6, 3\)",
    ),
    "another height of a video": (
        feature("video", (5, 6, 1)),
        {"frames": np.zeros((STEPS, 4, 6), "uint8"), "pixel_format": "gray"},
        r"images.depth'.*\(4, 6, 1\).*says \(5, 6, 1\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_refused(tmp_path, name):
    about, content, message = REFUSED[name]
    if "column" in content:
        content = {"column": images(content["column"])}
    stored(tmp_path / "set", about, **content)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        robots.read_lerobot(tmp_path / "set")
    (episode,) = robots.read_lerobot(tmp_path / "set", ["state"])
    assert list(episode["observation"]) == ["state"]


@pytest.mark.parametrize("shape", [(4, 6, 1), (1, 4, 6)])
def test_grey_images_have_one_channel(tmp_path, shape):
    pixels = (DEPTH // 64).astype("uint8")
    stored(tmp_path / "set", feature("image", shape), images(pixels))
    np.testing.assert_array_equal(read(tmp_path / "set")[..., 0], pixels)


@pytest.mark.parametrize("dtype", ["string", "language"])
def test_texts_are_left_out_by_name(tmp_path, dtype):
    stored(tmp_path / "set", feature(dtype, (1,)), ["a", "b", "c"])
    with pytest.warns(UserWarning, match="images.depth.*are left out"):
        (episode,) = robots.read_lerobot(tmp_path / "set")
    assert list(episode["observation"]) == ["state"]
    with pytest.raises(ValueError, match="`keys`.*images.depth.*leave them"):
        robots.read_lerobot(tmp_path / "set", ["images.depth", "state"])
