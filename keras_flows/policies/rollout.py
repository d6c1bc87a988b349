"""Closed-loop evaluation in an environment."""

from __future__ import annotations

import dataclasses
import math
import time
import typing

import numpy as np

from keras_flows.datasets.robots.pool import EnvPool
from keras_flows.ops import given
from keras_flows.ops.bars import Bar
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SHARE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import keras

    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike
    from keras_flows.ops.types import Tree


@checked(successes=COUNT, trials=SIZE, z=POSITIVE)
def wilson_interval(
    successes: int, trials: int, z: float = 1.96
) -> tuple[float, float]:
    """The score interval of a rate (95 % at z = 1.96), (low, high).

    Source: Wilson 1927; right at 0 and 1, where the normal one is empty.
    """
    if successes > trials:
        raise ValueError(
            "`successes` must not be more than `trials`. Received: "
            f"{successes} of {trials}."
        )
    p = successes / trials
    middle = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    scale = 1 + z * z / trials
    low, high = (middle - spread) / scale, (middle + spread) / scale
    return max(low, 0.0), min(high, 1.0)


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What an evaluation found, one entry for each start state.

    Attributes:
        starts: the start states' numbers.
        success: whether the task was achieved.
        steps: steps until it was, or `max_steps`.
        clipped: share of predicted numbers outside the action bounds.
    """

    starts: np.ndarray
    success: np.ndarray
    steps: np.ndarray
    clipped: float = 0.0

    def __post_init__(self):
        clipped = SHARE("clipped", self.clipped)
        object.__setattr__(self, "clipped", clipped)

    @property
    def rate(self):
        """Share of successes."""
        return float(self.success.mean())

    def summary(self):
        """JSON values: rate, its 95 % interval, steps to success, counts."""
        low, high = wilson_interval(int(self.success.sum()), len(self.success))
        won = self.steps[self.success]
        return {
            "success": self.rate,
            "interval": [round(low, 4), round(high, 4)],
            "episodes": len(self.success),
            "steps_to_success": float(np.median(won)) if len(won) else None,
            "clipped": round(self.clipped, 6),
        }


# What acts: a `Policy`, or an object like it.
ACTING = given.of(
    given.having, methods=("reset", "select_action"), what="a policy"
)


@checked(policy=ACTING, max_steps=SIZE, seed=SEED, progress=FLAG)
def evaluate(
    policy: keras.Model,
    envs: Any,
    starts: ArrayLike,
    *,
    max_steps: int = 240,
    seed: int | None = 0,
    progress: bool = False,
    **options: Any,
) -> Rollout:
    """Run a policy in closed loop from each start state.

    Environments run in lockstep, as many as there are, and the policy acts
    for all of them at once; those that have finished wait.

    Args:
        policy: a `Policy`, or an object with its `reset` and `select_action`.
        envs: list of environments with `reset(start)` to an observation and
            `step(action)` to (observation, reward, success), such as
            `datasets.robots.make_env("reach-v3")`, or a
            `datasets.robots.EnvPool` of them, whose processes use all cores.
            Each start state must mean the same in all.
        starts: ints, the start states.
        max_steps: steps after which an episode has failed.
        seed: int, of the policy's noise.
        progress: whether to show a progress bar.
        options: of `Controller`: `num_steps`, `act_steps`, `ensemble`, ...

    Returns:
        A `Rollout`.
    """
    if not isinstance(envs, (list, tuple, EnvPool, _OneProcess)):
        raise ValueError(
            "`envs` must be a list of environments or an EnvPool. Received: "
            f"{type(envs).__name__}."
        )
    starts = given.array("starts", starts, ndim=1).astype("int64")
    if len(starts) == 0 or len(envs) == 0:
        raise ValueError(
            "`envs` and `starts` must hold at least one. Received "
            f"{len(envs)} and {len(starts)}."
        )
    success = np.zeros(len(starts), bool)
    steps = np.full(len(starts), max_steps)
    envs = _together(envs)
    bar = Bar(len(starts), "episode", progress)
    before = _counts(policy)
    for first in range(0, len(starts), len(envs)):
        wave = np.arange(first, min(first + len(envs), len(starts)))
        _run(
            policy, envs, starts[wave], wave, success, steps, max_steps,
            {**options, "seed": seed + first},
        )  # fmt: skip
        bar.advance(len(wave))
    clipped, predicted = np.subtract(_counts(policy), before)
    return Rollout(starts, success, steps, float(clipped / max(predicted, 1)))


def _counts(policy):
    return np.array(
        [
            getattr(policy, "clipped_actions", 0),
            getattr(policy, "predicted_actions", 0),
        ]
    )


def _run(policy, envs, starts, wave, success, steps, max_steps, options):
    """One wave of episodes, its results written to `success` and `steps`."""
    # A last wave that is smaller is filled up: one shape, one compilation.
    filled = [*starts, *[starts[-1]] * (len(envs) - len(starts))]
    live = list(range(len(starts)))
    observations = envs.reset(filled)
    policy.reset(**options)
    for step in range(1, max_steps + 1):
        actions = policy.select_action(_stack(observations))
        found = envs.step({i: actions[i] for i in live})
        for i, (observations[i], _, achieved) in found.items():
            if achieved:
                success[wave[i]], steps[wave[i]] = True, step
                live.remove(i)
        if not live:
            return


def _stack(observations):
    if isinstance(observations[0], dict):
        return {
            key: np.stack([o[key] for o in observations])
            for key in observations[0]
        }
    return np.stack(observations)


class _OneProcess:
    """Environments of this process, as an `EnvPool` has them."""

    def __init__(self, envs):
        self.envs = envs

    def __len__(self):
        return len(self.envs)

    def reset(self, starts):
        return [e.reset(s) for e, s in zip(self.envs, starts, strict=True)]

    def step(self, actions):
        return {i: self.envs[i].step(a) for i, a in actions.items()}

    def expert_actions(self):
        return [env.expert_action() for env in self.envs]


def _together(envs):
    """`envs` as something that steps all at once."""
    return (
        envs if isinstance(envs, (EnvPool, _OneProcess)) else _OneProcess(envs)
    )


class _Expert:
    """The environments' own experts, as a policy."""

    def __init__(self, envs):
        self.envs = envs

    def reset(self, **options):
        pass

    def select_action(self, observations):
        return self.envs.expert_actions()


@checked(max_steps=SIZE, progress=FLAG)
def evaluate_expert(
    envs: Any,
    starts: ArrayLike,
    *,
    max_steps: int = 240,
    progress: bool = False,
) -> Rollout:
    """`evaluate` of the environments' experts, on the same start states."""
    if isinstance(envs, (list, tuple)):
        envs = _together(envs)
    return evaluate(
        _Expert(envs), envs, starts, max_steps=max_steps, progress=progress
    )


@checked(predict=given.function, repeats=SIZE, warmup=COUNT)
def latency(
    predict: Callable[..., Any],
    observation: Tree,
    repeats: int = 1000,
    warmup: int = 50,
) -> dict[str, Any]:
    """Seconds of one call of `predict(observation)`, in milliseconds.

    Args:
        predict: e.g. `policy.predict_chunk`.
        observation: what to call it with.
        repeats: calls that count.
        warmup: calls before, with their compilation.

    Returns:
        Dict of "median", "p90" and "p99".
    """
    for _ in range(warmup):
        predict(observation)
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter()
        predict(observation)
        times[i] = time.perf_counter() - start
    return {
        name: float(1e3 * np.quantile(times, q))
        for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
    }


@checked(
    policy=ACTING,
    env=given.of(
        given.having, methods=("reset", "step", "render"), what="an environment"
    ),
    path=given.path_of,
    max_steps=SIZE,
    fps=SIZE,
    size=SIZE,
    seed=SEED,
)
def record(
    policy: keras.Model,
    env: Any,
    start: int,
    path: PathLike,
    *,
    max_steps: int = 240,
    fps: int = 20,
    size: int = 240,
    seed: int | None = 0,
    **options: Any,
) -> bool:
    """Save a GIF of one episode; returns whether it succeeded.

    Args:
        policy: a `Policy`.
        env: an environment with `render(size)`, see `evaluate`.
        start: the start state.
        path: file to write.
        max_steps: most steps to take.
        fps: frames a second.
        size: pixels of a side.
        seed: int, of the policy's noise.
        options: of `Controller`.
    """

    from PIL import Image

    observation, frames, achieved = env.reset(start), [], False
    policy.reset(seed=seed, **options)
    for _ in range(max_steps):
        frames.append(Image.fromarray(env.render(size)))
        observation, _, achieved = env.step(policy.select_action(observation))
        if achieved:
            frames.append(Image.fromarray(env.render(size)))
            break
    with replacing(path) as temporary:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:],
            duration=1000 // fps, loop=0,
        )  # fmt: skip
    return achieved
