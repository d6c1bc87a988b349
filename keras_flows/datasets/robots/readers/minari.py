"""Demonstrations of Minari, Gymnasium's collection of offline data.

Source: https://minari.farama.org.
"""

from __future__ import annotations

import os
import pathlib
import typing

import numpy as np

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.robots.episodes import select_keys
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import PathLike


@checked(name_or_path=given.path_of, download=FLAG)
def read_minari(
    name_or_path: PathLike,
    keys: str | Sequence[str] | None = None,
    download: bool = False,
) -> list[dict[str, Any]]:
    """Episodes of a Minari dataset.

    Minari keeps the observation after the last action, too; it is left out.

    Args:
        name_or_path: e.g. "D4RL/door/human-v2", from MINARI_DATASETS_PATH
            (~/.minari/datasets by default); or the folder of a dataset, with
            or without its "data".
        keys: names of observations, in their order, where the observation
            space is a dict (inner ones as "outer/inner"); all by default. One
            name alone makes the observation that array, not a dict.
        download: whether a name that is not on this machine is downloaded.

    Returns:
        List of episodes with "observation", "action", "reward",
        "termination" and "truncation".

    Raises:
        ValueError: if there is no such dataset, or its actions or
            observations are no vectors.
    """
    minari = needed("minari", "minari", "robots")
    dataset = _dataset(minari, name_or_path, download)
    name = str(dataset.id)
    episodes = []
    for recorded in dataset.iterate_episodes():
        steps = len(recorded.rewards)
        observation = _flat(recorded.observations, steps, "observation", name)
        action = _flat(recorded.actions, steps, "action", name)
        if isinstance(action, dict):
            raise ValueError(
                f"Actions of {name!r} are a dict of {sorted(action)}, not one "
                "vector a step. Join them before writing the dataset."
            )
        episodes.append(
            {
                "observation": observation,
                "action": action,
                "reward": np.asarray(recorded.rewards),
                "termination": np.asarray(recorded.terminations),
                "truncation": np.asarray(recorded.truncations),
            }
        )
    if keys is not None and episodes:
        known = episodes[0]["observation"]
        if isinstance(known, dict):
            wanted = names_of(keys)
            check_keys(wanted, known, repr(name))
        episodes = select_keys(episodes, keys)
    return check_episodes(episodes, name)


def _dataset(minari, name_or_path, download):
    path = pathlib.Path(name_or_path)
    for folder in (path / "data", path):
        if (folder / "metadata.json").is_file():
            return minari.MinariDataset(folder)
    if path.is_dir():
        raise ValueError(
            f"`name_or_path` {str(name_or_path)!r} is a folder without a "
            "Minari dataset: no data/metadata.json in it."
        )
    try:
        return minari.load_dataset(str(name_or_path), download=download)
    except (FileNotFoundError, ValueError) as error:
        place = os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets")
        raise ValueError(
            f"`name_or_path` {str(name_or_path)!r} is neither a folder nor a "
            f"dataset in {place}: {error} Pass download=True, or run "
            f"`minari download {name_or_path}`."
        ) from error


def _flat(value, steps, what, name):
    """The first `steps` rows, inner dicts flattened to "outer/inner"."""
    if isinstance(value, dict):
        flat = {}
        for key, inner in value.items():
            inner = _flat(inner, steps, f"{what}/{key}", name)
            if isinstance(inner, dict):
                flat |= {f"{key}/{k}": v for k, v in inner.items()}
            else:
                flat[key] = inner
        return flat
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"{what!r} of {name!r} is a {type(value).__name__}; only spaces "
            "of arrays and dicts of them can be read."
        )
    return value[:steps]
