"""Windows of demonstrations: observation histories and action chunks."""

from __future__ import annotations

import functools
import typing

import keras
import numpy as np
from keras import tree

from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.ops import given
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import Episodes

SHORT = ("error", "pad", "drop")


class Windows(keras.utils.PyDataset):
    """Batches (actions, observations[, {"mask": ...}]) for `Policy.fit`.

    The window that starts at step i of an episode holds the observations
    i, ..., i + obs_steps - 1 and the actions i, ..., i + horizon - 1; the
    action to execute first is therefore number obs_steps - 1. Windows start
    from -(obs_steps - 1) and reach up to act_steps - 1 steps past the end;
    steps outside the episode repeat its first or last one.

    Batches are gathered by index, so that a set of images is held in memory
    once and not once for every window.

    Args:
        episodes: list of dicts with "observation", (T, ...) or a dict of
            such arrays, and "action", (T, A).
        horizon: H, actions of a chunk.
        obs_steps: observations of a history.
        act_steps: actions of a chunk that will be executed.
        batch_size: windows of a batch.
        mask: whether batches hold {"mask": (B, H)}, 1 where the action is
            one of the episode and 0 where it repeats the last or first. The
            loss is then a mean over the others alone.
        transform: None, or a function of (actions (B, H, A), observations)
            to actions, such as a change of the actions' representation.
        short: what becomes of episodes shorter than the horizon: "error",
            "pad" (windows from each of their steps) or "drop".
        shuffle: whether each epoch has another order.
        repeat: whether batches never end: `fit(windows, steps_per_epoch=)`.
        drop_remainder: whether windows that fill no batch are left out.
        seed: int, of the order.

    Raises:
        ValueError: if the episodes do not pass `check_episodes`, or one is
            shorter than the horizon.
    """

    # `fit` keeps Keras from shuffling the batches by a seed of its own.
    ordered = True

    @checked(
        mask=FLAG,
        transform=given.of(given.function, none=True),
        shuffle=FLAG,
        repeat=FLAG,
        drop_remainder=FLAG,
        seed=COUNT,
    )
    def __init__(
        self,
        episodes: Episodes,
        horizon: int = 16,
        obs_steps: int = 2,
        act_steps: int = 8,
        batch_size: int = 256,
        *,
        mask: ArrayLike = False,
        transform: Callable[..., Any] | None = None,
        short: str = "error",
        shuffle: bool = True,
        repeat: bool = False,
        drop_remainder: bool = True,
        seed: int | None = 0,
    ) -> None:
        super().__init__()
        for argument, value in (
            ("horizon", horizon),
            ("obs_steps", obs_steps),
            ("act_steps", act_steps),
            ("batch_size", batch_size),
        ):
            if type(value) is not int or value < 1:
                raise ValueError(
                    f"`{argument}` must be an int of at least 1. "
                    f"Received: {value!r}."
                )
        if obs_steps - 1 + act_steps > horizon:
            raise ValueError(
                "`horizon` must hold the observed steps before the present "
                "and `act_steps` from it on: at least obs_steps - 1 + "
                f"act_steps = {obs_steps - 1 + act_steps}. Received: {horizon}."
            )
        given.choice("short", short, SHORT)
        episodes = self._long_enough(check_episodes(episodes), horizon, short)
        self.horizon, self.obs_steps = horizon, obs_steps
        self.act_steps, self.batch_size = act_steps, batch_size
        self.mask, self.transform = mask, transform
        self.shuffle, self.repeat = shuffle, repeat
        self.drop_remainder, self.seed = drop_remainder, seed
        self.actions = np.concatenate([e["action"] for e in episodes])
        self.observations = tree.map_structure(
            lambda *arrays: np.concatenate(arrays),
            *[e["observation"] for e in episodes],
        )
        self._first, self._last, self._start = self._index(episodes)
        if len(self) == 0:
            raise ValueError(
                f"`batch_size` {batch_size} is more than the "
                f"{len(self._start)} windows. Take a smaller one, or "
                "drop_remainder=False."
            )
        # Two epochs at a time: Keras looks into the first before it begins.
        self._order = functools.lru_cache(2)(self._permutation)

    @staticmethod
    def _long_enough(episodes, horizon, short):
        too_short = [
            i for i, e in enumerate(episodes) if len(e["action"]) < horizon
        ]
        if not too_short or short == "pad":
            return episodes
        if short == "error":
            length = len(episodes[too_short[0]]["action"])
            raise ValueError(
                f"{len(too_short)} of {len(episodes)} episodes are shorter "
                f"than `horizon` ({horizon}), number {too_short[0]} of "
                f"{length} steps first. Lower `horizon`, or pass short='pad' "
                "or 'drop'."
            )
        kept = [e for e in episodes if len(e["action"]) >= horizon]
        if not kept:
            raise ValueError(
                f"All {len(episodes)} episodes are shorter than `horizon` "
                f"({horizon}). Lower it, or pass short='pad'."
            )
        return kept

    def _index(self, episodes):
        """Of each window: its episode's first and last row, and its start."""
        columns, row = [], 0
        for episode in episodes:
            length = len(episode["action"])
            stop = length
            if length >= self.horizon:
                stop = length - self.horizon + self.act_steps
            starts = np.arange(-(self.obs_steps - 1), stop)
            columns.append(
                np.stack(
                    [
                        np.full_like(starts, row),
                        np.full_like(starts, row + length - 1),
                        row + starts,
                    ]
                )
            )
            row += length
        return np.concatenate(columns, axis=1)

    @property
    def num_windows(self) -> int:
        return len(self._start)

    def __len__(self):
        last = 0 if self.drop_remainder else self.batch_size - 1
        return (self.num_windows + last) // self.batch_size

    @property
    def num_batches(self) -> int | None:
        return None if self.repeat else len(self)

    def _permutation(self, epoch):
        if not self.shuffle:
            return np.arange(self.num_windows)
        stream = np.random.Philox(key=[self.seed, 0], counter=[0, 0, epoch, 0])
        return np.random.Generator(stream).permutation(self.num_windows)

    def __getitem__(self, index):
        epoch, batch = divmod(index, len(self))
        if not self.repeat:
            epoch = self._epoch
        rows = self._order(epoch)[
            batch * self.batch_size : (batch + 1) * self.batch_size
        ]
        return self.gather(rows)

    _epoch = 0

    def on_epoch_end(self) -> None:
        self._epoch += 1

    def action_parts(self) -> Any:
        """All actions part by part: of chunks, where they are transformed."""
        if self.transform is None:
            yield from in_parts(self.actions)
            return
        for start in range(0, self.num_windows, self.batch_size):
            stop = min(start + self.batch_size, self.num_windows)
            yield self.gather(np.arange(start, stop))[0]

    def _transformed(self, actions, observations):
        changed = np.asarray(self.transform(actions, observations))
        if changed.shape[:2] != actions.shape[:2] or changed.ndim != 3:
            raise ValueError(
                "`transform` must give actions, "
                f"{(*actions.shape[:2], 'A')}. Received: {changed.shape}."
            )
        return changed

    def gather(self, windows: Any) -> tuple[Any, ...]:
        """The batch of some windows, an array of their numbers."""
        first, last, start = (
            column[windows, None]
            for column in (self._first, self._last, self._start)
        )
        steps = start + np.arange(self.horizon)
        inside = np.clip(steps, first, last)
        history = inside[:, : self.obs_steps]
        observations = tree.map_structure(
            lambda a: as_floats(a[history]), self.observations
        )
        actions = self.actions[inside]
        if self.transform is not None:
            actions = self._transformed(actions, observations)
        batch = (actions.astype("float32"), observations)
        if not self.mask:
            return batch
        return (*batch, {"mask": (inside == steps).astype("float32")})


def in_parts(array, rows=4096):
    """Some rows of an array after the other, as floats."""
    for start in range(0, len(array), rows):
        yield as_floats(array[start : start + rows])


def as_floats(array: ArrayLike) -> Array:
    """Float32; bytes of an image, 0 to 255, as -1 to 1."""
    array = given.plain_array("array", array)
    if array.dtype == np.uint8:
        return array.astype("float32") / 127.5 - 1.0
    return array.astype("float32")
