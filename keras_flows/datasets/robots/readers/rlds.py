"""Demonstrations in RLDS, the layout of episodes in TensorFlow Datasets.

Source: arXiv 2111.02767; https://github.com/google-research/rlds.
"""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import PathLike

# Further arrays of a step, if it has them.
EXTRAS = ("reward", "success", "is_terminal")


@checked(
    name=given.text,
    split=given.text,
    data_dir=given.of(given.path_of, none=True),
    drop_last=FLAG,
)
def read_rlds(
    name: str | None,
    split: str = "train",
    data_dir: PathLike | None = None,
    keys: str | Sequence[str] | None = None,
    drop_last: bool = False,
) -> list[dict[str, Any]]:
    """Episodes of a TensorFlow Datasets set in the layout of RLDS.

    It is read without TensorFlow, so it must have been prepared in a format
    with random access, "array_record" say; one of ours is made if it is not
    there yet.

    Args:
        name: name of the set, with its config and version if need be.
        split: e.g. "train" or "train[:90%]".
        data_dir: folder of the prepared sets, tfds's own by default.
        keys: names of observations, in their order, where they are a dict
            (inner ones as "outer/inner"); all by default. One name alone makes
            the observation that array, not a dict. Texts are left out.
        drop_last: whether to leave out the last step of each episode. In many
            sets its action has no meaning; in ours it has.

    Returns:
        List of episodes: "observation", "action", joined from its parts where
        it is a dict; "reward", "success" and "is_terminal" (T,) where the set
        has them; and what "episode_metadata" says, except where a name is
        taken.

    Raises:
        ValueError: if the set has another layout, or lacks what is asked.
    """
    tfds = needed("tensorflow_datasets", "tensorflow-datasets")
    needed("array_record", "array_record")
    try:
        builder = tfds.builder(name, **_where(data_dir))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"`name` {name!r} is no set of TensorFlow Datasets: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not builder.is_prepared():
        builder = tfds.builder(
            name, file_format="array_record", **_where(data_dir)
        )
        builder.download_and_prepare()
    try:
        source = builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise ValueError(
            f"`name` {name!r} was prepared in a format without random access "
            f"({error}). Prepare it again with `tfds build {name} "
            "--file_format=array_record`, or name another `data_dir`."
        ) from error
    features = source.dataset_info.features
    if "steps" not in features:
        raise ValueError(
            f"`name` {name!r} is not in the layout of RLDS: it has no "
            f"'steps', but {sorted(features)}."
        )
    step = features["steps"].feature
    missing = [key for key in ("observation", "action") if key not in step]
    if missing:
        raise ValueError(
            f"Steps of {name!r} have no {missing}. They have {sorted(step)}."
        )
    return check_episodes(
        [_episode(record, keys, drop_last, name) for record in source], name
    )


def _where(data_dir):
    return {} if data_dir is None else {"data_dir": str(data_dir)}


def _episode(record, keys, drop_last, name):
    steps = list(record["steps"])
    if drop_last:
        steps = steps[:-1]
    if not steps:
        raise ValueError(f"An episode of {name!r} has no step.")
    observation = _stacked([row["observation"] for row in steps])
    if isinstance(observation, dict):
        if keys is None:
            keys = [k for k, v in observation.items() if v.dtype.kind in "fiub"]
        wanted = names_of(keys)
        check_keys(wanted, observation, repr(name))
        picked = {key: observation[key] for key in wanted}
        observation = picked[keys] if isinstance(keys, str) else picked
    elif keys is not None:
        raise ValueError(
            f"`keys` {keys!r} needs named observations; those of {name!r} are "
            f"one array of shape {observation.shape[1:]}."
        )
    action = _stacked([row["action"] for row in steps])
    if isinstance(action, dict):
        action = np.concatenate(
            [part.reshape(len(steps), -1) for part in action.values()], axis=-1
        )
    episode = {"observation": observation, "action": action}
    for key in EXTRAS:
        if key in steps[0]:
            episode[key] = np.stack([row[key] for row in steps])
    for key, value in record.get("episode_metadata", {}).items():
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, np.generic):
            value = value.item()
        episode.setdefault(key, value)
    return episode


def _stacked(rows):
    """Arrays with a row a step, inner dicts flattened to "outer/inner"."""
    if not isinstance(rows[0], dict):
        return np.stack([np.asarray(row) for row in rows])
    flat = {}
    for key in rows[0]:
        inner = _stacked([row[key] for row in rows])
        if isinstance(inner, dict):
            flat |= {f"{key}/{k}": v for k, v in inner.items()}
        else:
            flat[key] = inner
    return flat
