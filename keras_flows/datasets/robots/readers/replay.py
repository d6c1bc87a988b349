"""Replay buffers of diffusion_policy: zarr groups of all episodes in a row.

data/<key> holds the steps of all episodes, one after the other, and
meta/episode_ends where each ends. Push-T has "keypoint" (9, 2), "state" (agent
x, y; block x, y, angle), "img" (96, 96, 3) and "action" (2).

Source: arXiv 2303.04137; https://github.com/real-stanford/diffusion_policy.
"""

from __future__ import annotations

import pathlib
import typing
import zipfile

import numpy as np

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import Episodes
    from keras_flows.ops.types import PathLike

# Array names that are further keys of an episode, not observations.
EXTRAS = ("reward", "done", "success")


@checked(path=given.path_of, action_key=given.text)
def read_replay_buffer(
    path: PathLike,
    keys: str | Sequence[str] | None = None,
    action_key: str | None = "action",
) -> list[dict[str, Any]]:
    """Episodes of a zarr replay buffer.

    Args:
        path: folder (.zarr) or zip file (.zarr.zip) of it.
        keys: names of arrays that are the observation, in their order; by
            default all but actions, rewards and flags. One name alone makes
            the observation that array, not a dict. Values from 0 to 255 in a
            four-dimensional array are images and become uint8.
        action_key: the array of actions.

    Returns:
        List of episodes: "observation" a dict of (T, ...) arrays; "action"
        (T, A); "reward", "done" and "success" (T,) if the buffer has them.

    Raises:
        ValueError: if it is no replay buffer, or lacks what is asked.
    """
    zarr = needed("zarr", "zarr", "robots")
    store, where = _store(zarr, path)
    try:
        try:
            root = zarr.open_group(store, path=where, mode="r")
        except (FileNotFoundError, ValueError) as error:
            raise ValueError(
                f"`path` {str(path)!r} is no replay buffer: {error}."
            ) from error
        if "data" not in root or "meta/episode_ends" not in root:
            raise ValueError(
                f"`path` {str(path)!r} is no replay buffer: it needs data/* "
                f"and meta/episode_ends, and has {sorted(root.keys())}."
            )
        data = root["data"]
        names = sorted(data.keys())
        if action_key not in names:
            raise ValueError(
                f"`action_key` {action_key!r} is no array of {str(path)!r}, "
                f"which has {names}."
            )
        wanted = keys
        if keys is None:
            wanted = [n for n in names if n not in (action_key, *EXTRAS)]
        else:
            wanted = names_of(keys)
        check_keys(wanted, names, repr(str(path)))
        extras = [n for n in EXTRAS if n in names and n not in wanted]
        ends = _ends(root["meta/episode_ends"][:], path)
        arrays = {
            name: _rows(data[name], name, int(ends[-1]), path)
            for name in (*wanted, action_key, *extras)
        }
    finally:
        store.close()
    episodes = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        rows = {name: array[start:end] for name, array in arrays.items()}
        observation = {name: rows[name] for name in wanted}
        if isinstance(keys, str):
            observation = rows[keys]
        episodes.append(
            {
                "observation": observation,
                "action": rows[action_key],
                **{name: rows[name] for name in extras},
            }
        )
    return check_episodes(episodes, pathlib.Path(path).name)


def _store(zarr, path):
    """A zarr store, and the path of the buffer in it."""
    path = pathlib.Path(path)
    if path.is_dir():
        return zarr.storage.LocalStore(path, read_only=True), ""
    if not path.is_file():
        raise ValueError(f"`path` {str(path)!r} does not exist.")
    try:
        with zipfile.ZipFile(path) as file:
            names = file.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"`path` {str(path)!r} is neither a folder nor a zip file, or "
            f"only part of one: {error}."
        ) from error
    # Some archives hold the folder, some what is in it.
    for name in names:
        for mark in (
            "meta/episode_ends/.zarray",
            "meta/episode_ends/zarr.json",
        ):
            if name.endswith(mark):
                where = name[: -len(mark)].rstrip("/")
                return zarr.storage.ZipStore(path, mode="r"), where
    raise ValueError(
        f"`path` {str(path)!r} is no replay buffer: no meta/episode_ends in it."
    )


def _ends(ends, path):
    ends = np.asarray(ends).astype("int64")
    if ends.ndim != 1 or not len(ends):
        raise ValueError(
            f"`path` {str(path)!r} holds no demonstration: meta/episode_ends "
            f"has shape {ends.shape}."
        )
    if (np.diff(ends, prepend=0) <= 0).any():
        raise ValueError(
            f"meta/episode_ends of {str(path)!r} must increase from above 0. "
            f"Received: {ends[:8].tolist()}..."
        )
    return ends.tolist()


def _rows(array, name, steps, path):
    if array.shape[0] != steps:
        raise ValueError(
            f"{name!r} of {str(path)!r} has {array.shape[0]} steps, but "
            f"meta/episode_ends says {steps}. The file may have been copied "
            "in part."
        )
    rows = array[:]
    # Push-T's file keeps its images as float32.
    if rows.ndim == 4 and rows.dtype != "uint8":
        low, high = float(rows.min()), float(rows.max())
        if low >= 0.0 and 1.0 < high <= 255.0:
            return np.round(rows).astype("uint8")
    return rows


@checked(path=given.path_of, chunk=SIZE)
def write_replay_buffer(
    path: PathLike, episodes: Episodes, *, chunk: ArrayLike = 512
) -> None:
    """Write episodes as a replay buffer that diffusion_policy reads, too.

    Args:
        path: folder to make, or zip file if the name ends in .zip.
        episodes: list of episodes. An observation that is one array is named
            "state"; further keys are written where they are arrays.
        chunk: steps of a chunk.

    Raises:
        ValueError: if `path` exists, or the episodes are not in order.
    """
    zarr = needed("zarr", "zarr", "robots")
    path = pathlib.Path(path)
    if path.exists():
        raise ValueError(
            f"`path` {str(path)!r} exists. Remove it, or name another."
        )
    episodes = check_episodes(episodes)
    rows = [_named(episode) for episode in episodes]
    with replacing(path) as temporary:
        if path.suffix == ".zip":
            store = zarr.storage.ZipStore(temporary, mode="w")
        else:
            store = zarr.storage.LocalStore(temporary)
        try:
            root = zarr.create_group(store, zarr_format=2)
            data = root.create_group("data")
            for name in rows[0]:
                values = np.concatenate([row[name] for row in rows])
                data.create_array(
                    name, data=values, chunks=(chunk, *values.shape[1:])
                )
            lengths = [len(e["action"]) for e in episodes]
            ends = np.cumsum(lengths, dtype="int64")
            root.create_group("meta").create_array("episode_ends", data=ends)
        finally:
            store.close()


def _named(episode):
    """The arrays of an episode by the names of a buffer."""
    rows = {
        key: value
        for key, value in episode.items()
        if key != "observation" and isinstance(value, np.ndarray) and value.ndim
    }
    observation = episode["observation"]
    if not isinstance(observation, dict):
        observation = {"state": observation}
    taken = sorted(set(observation) & set(rows))
    if taken:
        raise ValueError(
            f"`episodes` have {taken} both as observations and beside them. "
            "Rename one: a replay buffer has one list of names."
        )
    return {**observation, **rows}
