"""Receding-horizon control: histories, queues of actions, ensembling."""

from __future__ import annotations

import typing

import numpy as np
from keras import tree

from keras_flows.ops import given
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    import keras


class Controller:
    """Gives one action for each observation of an episode.

    Keeps the last `obs_steps` observations (at the start of an episode the
    first one repeated), asks the policy for a chunk when its queue is empty,
    and gives out `act_steps` of it. Single or batched, as the first
    observation is.

    With `ensemble` m a chunk is asked for in every step, and an action is the
    mean of what all chunks so far predict for it, weighted by exp(-m i), i = 0
    for the oldest (temporal ensembling, arXiv 2304.13705).

    Args:
        policy: a `Policy`.
        act_steps: actions of a chunk to execute; by default the policy's.
        ensemble: None, or m.
        seed: int or None, seed of all noise of the episode.
        options: arguments of `Policy.predict_chunk`.
    """

    @checked(
        policy=given.of(
            given.having, methods=("predict_chunk",), what="a Policy"
        ),
        act_steps=Optional(SIZE),
        ensemble=Optional(REAL),
        seed=SEED,
    )
    def __init__(
        self,
        policy: keras.Model,
        *,
        act_steps: int | None = None,
        ensemble: float | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        self.policy = policy
        first = policy.obs_steps - 1
        most = policy.horizon - first
        self.act_steps = policy.act_steps if act_steps is None else act_steps
        if not 1 <= self.act_steps <= most:
            raise ValueError(
                f"`act_steps` must lie between 1 and {most}. "
                f"Received: {act_steps!r}."
            )
        self.ensemble = ensemble
        self.options = options
        self._rng = np.random.Generator(np.random.Philox(seed))
        self._history, self._queue, self._chunks = None, [], []
        self._first = first

    def __call__(self, observation):
        """The action for the newest observation."""
        observation = tree.map_structure(
            lambda leaf: given.plain_array("observation", leaf), observation
        )
        ranks = (self.policy.observation_rank, self.policy.observation_rank + 1)
        leaves = tree.flatten(observation)
        if not leaves or leaves[0].ndim not in ranks:
            raise ValueError(
                "`observation` must be one observation, or one for each "
                f"robot: {ranks[0]} or {ranks[1]} dimensions, without a "
                f"history. Received: {[leaf.shape for leaf in leaves]}."
            )
        if self._history is None:
            self._history = [observation] * self.policy.obs_steps
        else:
            self._history = [*self._history[1:], observation]
        if self.ensemble is not None:
            return self._mean_action()
        if not self._queue:
            chunk = self._chunk()[..., self._first :, :]
            self._queue = [chunk[..., i, :] for i in range(self.act_steps)]
        return self._queue.pop(0)

    def _chunk(self):
        leaf = tree.flatten(self._history[-1])[0]
        axis = 0 if leaf.ndim == self.policy.observation_rank else 1
        history = tree.map_structure(
            lambda *steps: np.stack(steps, axis), *self._history
        )
        seed = int(self._rng.integers(2**63))
        return self.policy.predict_chunk(history, seed=seed, **self.options)

    def _mean_action(self):
        """The weighted mean of all chunks' actions for this step."""
        self._chunks = [chunk[..., 1:, :] for chunk in self._chunks]
        self._chunks = [c for c in self._chunks if c.shape[-2]]
        self._chunks.append(self._chunk()[..., self._first :, :])
        actions = np.stack([chunk[..., 0, :] for chunk in self._chunks])
        weights = np.exp(-self.ensemble * np.arange(len(actions)))
        weights = (weights / weights.sum()).astype(actions.dtype)
        return np.tensordot(weights, actions, axes=1)
