"""Demonstrations in memory: a list of episodes, the same whatever file held it.

An episode is a dict of

- "observation": an array (T, ...), or a dict of named arrays (T, ...);
- "action": (T, A), float32;
- further keys, in every episode or in none: arrays (T, ...) such as "reward"
  and "success", and values of the whole episode such as "seed" or "tasks".

The action of row t is what was done after the observation of row t. Numbers
are float32; uint8 (images, channels last) stays uint8, and further keys keep
their integers and booleans.
"""

from __future__ import annotations

import re
import typing

import numpy as np

from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import Episodes


def natural(name):
    """Sort key by which "demo_2" comes before "demo_10"."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]


def check_episodes(
    episodes: Episodes, name: str = "episodes"
) -> list[dict[str, Any]]:
    """Demonstrations in the common format, or an error that says where not.

    Args:
        episodes: list of dicts; see the module.
        name: what messages call the argument.

    Returns:
        A new list of new dicts; arrays are copied only where they are cast.

    Raises:
        ValueError: if there is no episode, or one has no step, no observation
            or action, NaN or infinite numbers, keys of different lengths, or
            other keys, shapes or kinds of numbers than the first.
    """
    episodes = listed(episodes, name)
    if not episodes:
        raise ValueError(
            f"`{name}` holds no demonstration. Check the path, the filter and "
            "the split they were read with."
        )
    checked, first = [], None
    for number, episode in enumerate(episodes):
        where = f"Episode {number} of `{name}`"
        rows = _checked(episode, where)
        described = _describe(rows)
        if first is None:
            first = described
        elif described != first:
            raise ValueError(_difference(where, first, described))
        checked.append(rows)
    return checked


def listed(episodes, name="episodes"):
    """Episodes as a list, or an error that names the argument."""
    if not isinstance(episodes, (list, tuple)):
        raise ValueError(
            f"`{name}` must be a list of episodes, each a dict. Received: "
            f"{type(episodes).__name__}."
        )
    return list(episodes)


def names_of(keys):
    """`keys` as a list of names."""
    if isinstance(keys, str):
        return [keys]
    if not isinstance(keys, (list, tuple)) or not all(
        isinstance(key, str) for key in keys
    ):
        raise ValueError(
            f"`keys` must be a name or a list of names. Received: {keys!r}."
        )
    return list(keys)


def _checked(episode, where):
    if not isinstance(episode, dict):
        raise ValueError(
            f"{where} must be a dict of arrays. Received: "
            f"{type(episode).__name__}."
        )
    missing = {"observation", "action"} - set(episode)
    if missing:
        raise ValueError(
            f"{where} has no {' and no '.join(sorted(map(repr, missing)))}. "
            f"It has {sorted(episode)}."
        )
    action = _numbers(episode["action"], "action", where)
    if action.ndim != 2:
        raise ValueError(
            f"{where}: 'action' must be (T, A), one row of A numbers a step. "
            f"Received: {action.shape}. Discrete actions have to become "
            "vectors first (one-hot, say)."
        )
    observation = episode["observation"]
    if isinstance(observation, dict):
        if not observation:
            raise ValueError(f"{where}: 'observation' is an empty dict.")
        observation = {
            key: _numbers(value, f"observation/{key}", where)
            for key, value in observation.items()
        }
        named = {f"observation/{k}": v for k, v in observation.items()}
    else:
        observation = _numbers(observation, "observation", where)
        named = {"observation": observation}
    rows = {"observation": observation, "action": action}
    for key, value in episode.items():
        if key in rows:
            continue
        if isinstance(value, np.ndarray) and value.ndim:
            value = _floats(value)
            named[key] = value
        rows[key] = value
    if not len(action):
        raise ValueError(f"{where} has no step.")
    for key, value in named.items():
        if len(value) != len(action):
            raise ValueError(
                f"{where}: {key!r} has {len(value)} steps and 'action' has "
                f"{len(action)}. Every array must have one row a step; drop "
                "the observation after the last action."
            )
    for key, value in {**named, "action": action}.items():
        _check_finite(value, key, where)
    return rows


def _numbers(value, key, where):
    """An array of float32 (or uint8) with rows in time."""
    try:
        value = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{where}: {key!r} has rows of different shapes ({error})."
        ) from error
    if not value.ndim or value.dtype.kind not in "fiub":
        raise ValueError(
            f"{where}: {key!r} must be an array of numbers with a row for "
            f"each step. Received: shape {value.shape}, dtype {value.dtype}."
        )
    if value.dtype == "uint8" and key != "action":
        return value
    with np.errstate(over="ignore"):  # becomes infinite, which is found
        return value.astype("float32", copy=False)


def _floats(value):
    """float32 where it was floating, as it is otherwise."""
    if value.dtype.kind != "f":
        return value
    with np.errstate(over="ignore"):
        return value.astype("float32", copy=False)


def _check_finite(value, key, where):
    if value.dtype.kind != "f":
        return
    # A sum is finite unless some number is not, or it overflows.
    if np.isfinite(value.sum(dtype="float64")):
        return
    finite = np.isfinite(value).reshape(len(value), -1).all(axis=1)
    if finite.all():
        return
    step = int(np.argmin(finite))
    kind = "NaN" if np.isnan(value[step]).any() else "an infinite number"
    raise ValueError(
        f"{where}: {key!r} holds {kind} at step {step} (of {len(value)}; "
        f"{int((~finite).sum())} steps are affected). Repair the recording "
        "or leave the episode out."
    )


def _describe(episode):
    """What must agree between episodes: key -> (shape of a row, dtype)."""
    described = {}
    for key, value in episode.items():
        if isinstance(value, dict) and key == "observation":
            for name, array in value.items():
                described[f"{key}/{name}"] = array.shape[1:], array.dtype.name
        elif isinstance(value, np.ndarray) and value.ndim:
            described[key] = value.shape[1:], value.dtype.name
        else:
            described[key] = None
    return described


def _difference(where, first, described):
    for kind, keys in (
        ("lacks", sorted(set(first) - set(described))),
        ("has, unlike the first,", sorted(set(described) - set(first))),
    ):
        if keys:
            return (
                f"{where} {kind} {', '.join(map(repr, keys))}. All episodes "
                "must have the same keys; read those that they share, with "
                "`keys`."
            )
    key = next(key for key in first if first[key] != described[key])

    def say(description):
        if description is None:
            return "no array"
        return f"rows of shape {description[0]} and dtype {description[1]}"

    return (
        f"{where}: {key!r} has {say(described[key])}, in the first episode "
        f"{say(first[key])}. All episodes must agree."
    )


def select_keys(
    episodes: Episodes, keys: str | Sequence[str] | None
) -> list[dict[str, Any]]:
    """Episodes with some of their observations.

    Args:
        episodes: list of episodes whose "observation" is a dict.
        keys: list of names, which gives their order; or one name, and the
            observation is that array, not a dict.

    Returns:
        A new list; further keys stay.

    Raises:
        ValueError: if a name is not in an episode.
    """
    wanted = names_of(keys)
    if not wanted:
        raise ValueError("`keys` must name at least one observation.")
    chosen = []
    for number, episode in enumerate(check_episodes(episodes)):
        observation = episode["observation"]
        if not isinstance(observation, dict):
            raise ValueError(
                f"`keys` {keys!r} needs named observations; those of "
                f"`episodes`[{number}] are one array of shape "
                f"{np.shape(observation)}."
            )
        check_keys(wanted, observation, f"episode {number}")
        picked = {key: observation[key] for key in wanted}
        if isinstance(keys, str):
            picked = picked[keys]
        chosen.append({**episode, "observation": picked})
    return chosen


def check_keys(wanted, known, where):
    """Raise for names that are not there.

    Raises:
        ValueError: with the names that are.
    """
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise ValueError(
            f"`keys` {unknown} are no observations of {where}, which has "
            f"{sorted(known)}."
        )


def concatenate(
    episodes: Episodes, keys: str | Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Episodes whose observation is one vector a step.

    Args:
        episodes: list of episodes.
        keys: names in the order they are joined; all, in the episodes' order,
            by default.

    Returns:
        A new list with "observation" (T, D), float32: the named arrays, each
        flattened to a vector a step, beside each other.

    Raises:
        ValueError: if a name is not there, or is an image (uint8).
    """
    joined = []
    if keys is not None:
        episodes = select_keys(episodes, keys)
    for episode in check_episodes(episodes):
        observation = episode["observation"]
        if not isinstance(observation, dict):
            observation = {"observation": observation}
        columns = []
        for key, value in observation.items():
            if value.dtype == "uint8":
                raise ValueError(
                    f"`keys` must leave out {key!r}, an image (uint8, "
                    f"{value.shape[1:]}): an encoder joins it with the rest."
                )
            columns.append(value.reshape(len(value), -1))
        columns = np.concatenate(columns, axis=-1).astype("float32", copy=False)
        joined.append({**episode, "observation": columns})
    return joined


@checked(held_out=Number(above=0, below=1), seed=SEED)
def split_episodes(
    episodes: Episodes, held_out: float, seed: int | None = 0
) -> tuple[list[Any], list[Any]]:
    """Some episodes to train on, and others to measure with.

    Args:
        episodes: list of episodes, at least 2.
        held_out: fraction of them, in (0, 1), that is held out; at least one
            is, and at least one is not.
        seed: int; which ones.

    Returns:
        (those to train on, those held out), each in the given order.
    """
    episodes = listed(episodes)
    if len(episodes) < 2:
        raise ValueError(
            f"`episodes` must be at least 2 to hold one out. Received: "
            f"{len(episodes)}."
        )
    num = min(max(round(held_out * len(episodes)), 1), len(episodes) - 1)
    order = np.random.Generator(np.random.Philox(seed)).permutation(
        len(episodes)
    )
    out = set(order[:num].tolist())
    return (
        [e for i, e in enumerate(episodes) if i not in out],
        [e for i, e in enumerate(episodes) if i in out],
    )
