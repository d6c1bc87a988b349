"""A folder of NumPy files, one episode each: what `np.savez` writes.

    np.savez("episodes/0.npz", action=actions, camera=images, hand=hands)

Every array has a row for each step. "action" is (T, A); "reward", "done" and
"success" are kept beside it; all others are the observation. One array alone
that is called "observation" is the observation itself.
"""

from __future__ import annotations

import typing
import zipfile
import zlib

import numpy as np

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import check_keys
from keras_flows.datasets.robots.episodes import names_of
from keras_flows.datasets.robots.episodes import natural
from keras_flows.datasets.robots.readers.replay import EXTRAS
from keras_flows.ops import given
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Sequence

    from keras_flows.ops.types import Episodes
    from keras_flows.ops.types import PathLike

# The name of an observation that has no parts.
WHOLE = "observation"


@checked(path=given.path_of, action_key=given.text)
def read_npz(
    path: PathLike,
    keys: Sequence[str] | None = None,
    action_key: str = "action",
) -> Episodes:
    """Episodes of a folder of .npz files, one a file.

    Args:
        path: folder; its files are read in the order of their names, "2.npz"
            before "10.npz".
        keys: names of arrays that are the observation, in their order; by
            default all but actions, rewards and flags. One name alone makes
            the observation that array, not a dict. Images are uint8,
            (T, H, W, C).
        action_key: the array of actions.

    Returns:
        List of episodes: "observation" a dict of (T, ...) arrays; "action"
        (T, A), float32; "reward", "done" and "success" where files have them.

    Raises:
        ValueError: if there is no such file, one cannot be read or lacks what
            is asked, or the episodes do not pass `check_episodes`.
    """
    files = sorted(path.glob("*.npz"), key=lambda file: natural(file.name))
    if not files:
        kind = "holds no .npz file" if path.is_dir() else "is no folder"
        raise ValueError(
            f"`path` {str(path)!r} {kind}. Write each episode by "
            "np.savez('episodes/0.npz', action=..., camera=..., ...)."
        )
    episodes = []
    for file in files:
        arrays = _arrays(file)
        if action_key not in arrays:
            raise ValueError(
                f"`action_key` {action_key!r} is no array of {str(file)!r}, "
                f"which has {sorted(arrays)}."
            )
        if keys is None:
            wanted = [n for n in arrays if n not in (action_key, *EXTRAS)]
        else:
            wanted = names_of(keys)
        check_keys(wanted, list(arrays), repr(str(file)))
        observation = {name: arrays[name] for name in wanted}
        if isinstance(keys, str) or (keys is None and wanted == [WHOLE]):
            (observation,) = observation.values()
        extras = {
            name: arrays[name]
            for name in EXTRAS
            if name in arrays and name not in wanted
        }
        episodes.append(
            {
                "observation": observation,
                "action": arrays[action_key],
                **extras,
            }
        )
    return check_episodes(episodes, path.name)


def _arrays(file):
    """The arrays of a file; objects in it are not unpickled."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (
        OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile, zlib.error
    ) as error:  # fmt: skip
        raise ValueError(
            f"`path`: {str(file)!r} cannot be read as arrays: {error}"
        ) from error
