"""Demonstrations of LeRobot: parquet files, and videos of the cameras.

v2.1 has a file for each episode and meta/episodes.jsonl; v3.0 has many
episodes in a file and meta/episodes/*/*.parquet, which says where in the
videos an episode lies. Both have meta/info.json with the features.

Source: https://github.com/huggingface/lerobot.
"""

from __future__ import annotations

import json
import pathlib
import re
import typing
import warnings

import numpy as np

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.robots.readers import lerobot_frames
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import PathLike

VERSIONS = ("v2.0", "v2.1", "v3.0")
# Features that are further keys of an episode, and their names here.
EXTRAS = {
    "next.reward": "reward",
    "next.success": "success",
    "next.done": "done",
}
PREFIX = "observation."


@checked(path_or_repo=given.path_of)
def read_lerobot(
    path_or_repo: PathLike,
    keys: str | Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    revision: str | None = None,
) -> list[dict[str, Any]]:
    """Episodes of a LeRobotDataset, v2.0, v2.1 or v3.0.

    Args:
        path_or_repo: folder with meta/info.json; or "organisation/name", of
            which the Hugging Face hub's files are downloaded, videos only if
            they are asked for.
        keys: names of observations, in their order, with or without
            "observation."; all but texts by default, which a warning names.
            One name alone makes the observation that array, not a dict.
        episodes: numbers of the episodes to read; all by default.
        revision: branch, tag or commit of the repository.

    Returns:
        List of episodes: "observation" a dict of (T, ...) arrays by names
        without "observation.", images (T, H, W, 3) uint8, depth maps
        (T, H, W, 1) float32 in millimetres; "action" (T, A);
        "reward", "success" and "done" (T,) where recorded; "tasks", a list of
        what the episode was asked to do, and "episode_index".

    Raises:
        ValueError: if it is no such dataset, files or rows are missing,
            something asked for is not there or is a text, or the distances
            of a depth map cannot be told.
        ImportError: if a camera's video is asked for and there is no decoder.
    """
    pq = needed("pyarrow.parquet", "pyarrow", "robots")
    root, fetch = _root(path_or_repo, revision)
    info = _info(root, path_or_repo)
    features = _observed(info, keys, path_or_repo)
    videos = [k for k in features if info["features"][k]["dtype"] == "video"]
    if videos:
        lerobot_frames.decoder(videos)
    if fetch is not None:
        fetch(["data/**"] + [f"videos/**{key}/**" for key in videos])
    listed = _episodes(pq, root, info, path_or_repo)
    if episodes is not None:
        unknown = sorted(set(episodes) - set(listed))
        if unknown:
            raise ValueError(
                f"`episodes` {unknown} are not in {str(path_or_repo)!r}, "
                f"which has {len(listed)}."
            )
        listed = {number: listed[number] for number in episodes}
    tables = _tables(pq, root, info, features, listed, path_or_repo)
    read = []
    for number, row in listed.items():
        observation = {
            key.removeprefix(PREFIX): (
                _frames(root, info, key, number, row)
                if key in videos
                else _column(tables[number], key, info, root)
            )
            for key in features
        }
        if isinstance(keys, str):
            (observation,) = observation.values()
        episode = {
            "observation": observation,
            "action": _column(tables[number], "action", info, root),
            "tasks": list(row.get("tasks") or []),
            "episode_index": number,
        }
        for key, ours in EXTRAS.items():
            if key in info["features"]:
                column = _column(tables[number], key, info, root)
                episode[ours] = column.reshape(len(column))
        read.append(episode)
    return check_episodes(read, str(path_or_repo))


def _root(path_or_repo, revision):
    """The dataset's folder, and a function that downloads more of it."""
    path = pathlib.Path(path_or_repo)
    if path.is_dir():
        return path, None
    name = str(path_or_repo)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise ValueError(
            f"`path_or_repo` {name!r} is neither a folder nor a repository, "
            "'organisation/name'."
        )
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f"`path_or_repo` {name!r} is no folder. To download it: pip "
            f"install huggingface_hub ({error})."
        ) from error

    def fetch(patterns):
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                name,
                repo_type="dataset",
                revision=revision,
                allow_patterns=patterns,
            )
        )

    return fetch(["meta/**"]), fetch


def _info(root, name):
    file = root / "meta" / "info.json"
    if not file.is_file():
        raise ValueError(
            f"`path_or_repo` {str(name)!r} is no LeRobotDataset: it has no "
            "meta/info.json."
        )
    info = json.loads(file.read_text())
    version = info.get("codebase_version")
    if version not in VERSIONS:
        raise ValueError(
            f"`path_or_repo` {str(name)!r} has codebase_version {version!r}; "
            f"{', '.join(VERSIONS)} can be read. LeRobot's scripts convert "
            "others."
        )
    if "action" not in info["features"]:
        raise ValueError(
            f"`path_or_repo` {str(name)!r} has no feature 'action'. It has "
            f"{sorted(info['features'])}."
        )
    return info


def _observed(info, keys, name):
    """Full names of the observations to read."""
    known = {
        key.removeprefix(PREFIX): key
        for key in info["features"]
        if key.startswith(PREFIX) or key == "observation"
    }
    texts = [
        short
        for short, key in known.items()
        if not _is_array(info["features"][key])
    ]
    if keys is None:
        if texts:
            warnings.warn(
                f"{texts} of {str(name)!r} are left out: no numbers, but "
                + ", ".join(info["features"][known[k]]["dtype"] for k in texts)
                + ".",
                stacklevel=3,
            )
        return [key for short, key in known.items() if short not in texts]
    wanted = names_of(keys)
    wanted = [key.removeprefix(PREFIX) for key in wanted]
    check_keys(wanted, known, repr(str(name)))
    asked = [key for key in wanted if key in texts]
    if asked:
        raise ValueError(
            f"`keys` {asked} of {str(name)!r} are no numbers, but "
            f"{info['features'][known[asked[0]]]['dtype']}: leave them out. "
            "What an episode was asked to do is its 'tasks'."
        )
    return [known[key] for key in wanted]


def _is_array(feature):
    """Whether a feature is of numbers or pictures."""
    dtype = feature["dtype"]
    if dtype in ("image", "video"):
        return True
    try:
        return np.dtype(dtype).kind in "fiub"
    except TypeError:
        return False


def _episodes(pq, root, info, name):
    """Number of each episode -> what meta says of it, in order."""
    if info["codebase_version"] == "v3.0":
        rows = []
        for file in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
            columns = [
                column
                for column in pq.read_schema(file).names
                if not column.startswith("stats/")
            ]
            rows += pq.read_table(file, columns=columns).to_pylist()
    else:
        file = root / "meta" / "episodes.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        rows = [json.loads(line) for line in lines if line.strip()]
    listed = {int(row["episode_index"]): row for row in rows}
    total = info.get("total_episodes", len(listed))
    if not listed or len(listed) != total:
        raise ValueError(
            f"`path_or_repo` {str(name)!r} lists {len(listed)} episodes in "
            f"meta/episodes, and meta/info.json says {total}. The download "
            "may be incomplete."
        )
    return dict(sorted(listed.items()))


def _tables(pq, root, info, features, listed, name):
    """Number of each episode -> its rows, of the columns that are read."""
    columns = [
        key
        for key in (*features, "action", *EXTRAS)
        if key in info["features"] and info["features"][key]["dtype"] != "video"
    ]
    files = {}
    for number, row in listed.items():
        place = info["data_path"].format(
            episode_chunk=number // info.get("chunks_size", 1000),
            episode_index=number,
            total_episodes=info.get("total_episodes"),
            chunk_index=row.get("data/chunk_index"),
            file_index=row.get("data/file_index"),
        )
        files.setdefault(root / place, []).append(number)
    tables = {}
    for file, numbers in files.items():
        if not file.is_file():
            raise ValueError(
                f"`path_or_repo` {str(name)!r} lacks "
                f"{str(file.relative_to(root))!r}, with episode {numbers[0]}."
            )
        order = ["episode_index", "frame_index"]
        table = pq.read_table(file, columns=columns + order)
        owners = table.column("episode_index").to_numpy()
        frames = table.column("frame_index").to_numpy()
        for number in numbers:
            rows = np.flatnonzero(owners == number)
            rows = rows[np.argsort(frames[rows], kind="stable")]
            length = listed[number].get("length", len(rows))
            if len(rows) != length:
                raise ValueError(
                    f"Episode {number} of {str(name)!r} has {len(rows)} rows "
                    f"in {file.name}, and meta/episodes says {length}."
                )
            tables[number] = table.take(rows)
    return tables


def _column(table, key, info, root):
    """(T, ...) of a column: numbers, or images that are stored in it."""
    feature = info["features"][key]
    column = table.column(key).combine_chunks()
    if feature["dtype"] == "image":
        return np.stack(
            [
                lerobot_frames.image(row, key, feature, root)
                for row in column.to_pylist()
            ]
        )
    shape = tuple(feature["shape"])
    while hasattr(column, "storage"):
        column = column.storage
    while hasattr(column, "flatten") and hasattr(column.type, "value_type"):
        column = column.flatten()
    if column.null_count:
        raise ValueError(
            f"{key!r} has {column.null_count} empty values. Leave it out of "
            "`keys`, or repair the dataset."
        )
    values = column.to_numpy(zero_copy_only=False)
    try:
        return values.reshape(table.num_rows, *shape)
    except ValueError as error:
        raise ValueError(
            f"{key!r} has {values.size} numbers in {table.num_rows} rows, "
            f"and meta/info.json says {shape} a row."
        ) from error


def _frames(root, info, key, number, row):
    """(T, H, W, C): an episode's frames of a video."""
    place = info["video_path"].format(
        video_key=key,
        episode_chunk=number // info.get("chunks_size", 1000),
        episode_index=number,
        chunk_index=row.get(f"videos/{key}/chunk_index"),
        file_index=row.get(f"videos/{key}/file_index"),
    )
    file = root / place
    if not file.is_file():
        raise ValueError(f"{key!r}: video {str(file)!r} is missing.")
    return lerobot_frames.video(
        file,
        f"{place}, episode {number},",
        key,
        info["features"][key],
        # The time of an episode's first frame in a file of several.
        row.get(f"videos/{key}/from_timestamp") or 0.0,
        row["length"],
        info["fps"],
    )
