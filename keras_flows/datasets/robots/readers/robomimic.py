"""Demonstrations of robomimic: HDF5 files of robosuite and of its like.

A file holds data/demo_<i>/{obs/<key>, actions, rewards, dones} and, for each
subset, mask/<filter> with the names of its demonstrations.

Source: arXiv 2108.03298; https://robomimic.github.io.
"""

from __future__ import annotations

import os
import typing

from keras_flows.datasets.robots.actions import to_rotation_6d
from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.robots.episodes import natural
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import PathLike

# Further arrays of a demonstration, and their names here.
EXTRAS = {"rewards": "reward", "dones": "done"}


@checked(path=given.path_of, rotation_6d=FLAG)
def read_robomimic(
    path: PathLike,
    keys: str | Sequence[str] | None = None,
    filter_key: str | None = None,
    action_key: str | None = "actions",
    rotation_6d: bool = False,
    order: str = "columns",
) -> list[dict[str, Any]]:
    """Episodes of a robomimic file.

    Args:
        path: the HDF5 file.
        keys: names of observations, in their order; all by default. One name
            alone makes the observation that array, not a dict.
        filter_key: name of a subset, "train", "valid" or "20_percent" say; all
            demonstrations by default.
        action_key: the array of actions; newer files also hold "actions_abs",
            the absolute ones.
        rotation_6d: whether to turn absolute actions (position, axis-angle,
            gripper), 7 numbers an arm, into (position, rotation 6-D,
            gripper), 10 an arm. Leave it for delta actions, which are small
            and have no jump at half a turn.
        order: of rotation 6-D; see `matrix_to_rotation_6d`.

    Returns:
        List of episodes in the order of their numbers: "observation" a dict of
        (T, ...) arrays, images uint8; "action" (T, A); "reward" and "done"
        (T,) if the file has them.

    Raises:
        ValueError: if the file is no robomimic file, or lacks what is asked.
    """
    h5py = needed("h5py", "h5py", "robots")
    if not os.path.isfile(path):
        raise ValueError(f"`path` {str(path)!r} is no file.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(
            f"`path` {str(path)!r} is no HDF5 file, or only part of one: "
            f"{error}."
        ) from error
    with file:
        if "data" not in file:
            raise ValueError(
                f"`path` {str(path)!r} has no group 'data', so it is no "
                f"robomimic file. It has {sorted(file)}."
            )
        episodes = [
            _episode(file["data"][name], name, keys, action_key)
            for name in _names(file, path, filter_key)
        ]
    if rotation_6d:
        for episode in episodes:
            episode["action"] = to_rotation_6d(episode["action"], order)
    return check_episodes(episodes, f"{os.path.basename(path)}")


def _names(file, path, filter_key):
    """Names of the demonstrations, in the order of their numbers."""
    names = list(file["data"])
    if filter_key is not None:
        filters = sorted(file["mask"]) if "mask" in file else []
        if filter_key not in filters:
            raise ValueError(
                f"`filter_key` {filter_key!r} is no subset of {str(path)!r}, "
                f"which has {filters or 'none'}."
            )
        chosen = [
            name.decode() if isinstance(name, bytes) else str(name)
            for name in file["mask"][filter_key][()]
        ]
        missing = sorted(set(chosen) - set(names), key=natural)
        if missing:
            raise ValueError(
                f"`filter_key` {filter_key!r} of {str(path)!r} names "
                f"{missing[0]!r}, which is not in the file."
            )
        names = chosen
    return sorted(names, key=natural)


def _episode(demo, name, keys, action_key):
    if "obs" not in demo:
        raise ValueError(
            f"{name!r} has no observations: this is a file of states. Run "
            "robomimic's dataset_states_to_obs.py on it."
        )
    if action_key not in demo:
        raise ValueError(
            f"`action_key` {action_key!r} is not in {name!r}, which has "
            f"{sorted(demo)}."
        )
    observations = demo["obs"]
    if isinstance(keys, str):
        check_keys([keys], observations, repr(name))
        observation = observations[keys][()]
    else:
        wanted = sorted(observations) if keys is None else names_of(keys)
        check_keys(wanted, observations, repr(name))
        observation = {key: observations[key][()] for key in wanted}
    episode = {"observation": observation, "action": demo[action_key][()]}
    for key, ours in EXTRAS.items():
        if key in demo:
            episode[ours] = demo[key][()]
    return episode
