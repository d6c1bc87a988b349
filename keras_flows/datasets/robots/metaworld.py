"""Meta-World v3 with state observations: tasks and their scripted experts.

Simulator and experts come with the package (`pip install
'keras_flows[robots]'`), so demonstrations are made, not downloaded. An
observation is [now (18), goal (3)]: hand position, gripper opening and the
objects' positions and quaternions at this step, and where to bring them; the
simulator's copy of the step before is left out, since a policy keeps a history
of its own. An action is (dx, dy, dz, gripper) in [-1, 1], 0.01 m per unit.

Source: arXiv 1910.10897; https://github.com/Farama-Foundation/Metaworld.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import typing
import warnings

import numpy as np

from keras_flows.ops import given
from keras_flows.ops.bars import Bar
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike

OBSERVATION_DIM = 21
ACTION_DIM = 4
# Start states of evaluations, beyond those that demonstrations use.
EVALUATION_START = 900_000_000
_STARTS_PER_SEED = 1_000_000


def _metaworld():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS
            from metaworld.policies import ENV_POLICY_MAP
        # The experts' actions are clipped, as the warning asks, here.
        warnings.filterwarnings("ignore", "Constant", module="metaworld")
    except ImportError as error:
        raise ImportError(
            "Meta-World is needed: pip install 'keras_flows[robots]'. "
            f"({error})"
        ) from error
    return ALL_V3_ENVIRONMENTS, ENV_POLICY_MAP


def tasks():
    """Names of the 50 tasks."""
    return tuple(sorted(_metaworld()[0]))


class MetaworldTask:
    """One task: an environment whose start state is a function of a number.

    Args:
        task: name, "shelf-place-v3" say; see `tasks`.

    Attributes:
        action_low, action_high: bounds of an action, -1 and 1.
    """

    observation_shape = (OBSERVATION_DIM,)
    action_dim = ACTION_DIM
    action_low, action_high = -1.0, 1.0

    def __init__(self, task):
        environments, experts = _metaworld()
        if task not in environments:
            near = difflib.get_close_matches(task, environments, 3, 0.4)
            raise ValueError(
                f"`task` {task!r} does not exist. "
                + (f"Near matches: {', '.join(near)}. " if near else "")
                + "datasets.robots.metaworld.tasks() lists all 50."
            )
        self.task = task
        self._env = environments[task]()
        # With the goal hidden neither the expert nor a policy can reach it.
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        self._expert = experts[task]()
        self._full = None

    def reset(self, start):
        """Go to the start state number `start`; returns the observation."""
        # `reset(seed=)` is ignored by Meta-World.
        self._env.seed(int(start))
        self._full = self._env.reset()[0]
        return self._observation()

    def step(self, action):
        """One step of 0.0125 s x 5.

        Args:
            action: (4,), clipped to [-1, 1].

        Returns:
            (observation (21,), reward, whether the task is achieved).
        """
        action = np.clip(action, self.action_low, self.action_high)
        self._full, reward, _, _, info = self._env.step(
            np.asarray(action, dtype="float32")
        )
        return self._observation(), float(reward), info["success"] > 0

    def expert_action(self):
        """What the scripted expert does now, (4,), clipped to [-1, 1]."""
        action = self._expert.get_action(self._full)
        return np.clip(action, self.action_low, self.action_high).astype(
            "float32"
        )

    def _observation(self):
        full = self._full
        return np.concatenate([full[:18], full[36:39]]).astype("float32")

    def render(self, size=240, camera="corner"):
        """An image (size, size, 3), uint8; needs MUJOCO_GL=egl or a screen."""
        import mujoco

        if getattr(self, "_renderer", None) is None:
            self._renderer = mujoco.Renderer(self._env.model, size, size)
            flags = self._renderer.scene.flags
            # Four times as fast without a graphics card.
            flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._renderer.update_scene(self._env.data, camera=camera)
        image = self._renderer.render()
        # These cameras hang upside down.
        return image[::-1, ::-1] if camera.startswith("corner") else image


@checked(task=given.text)
def make_env(task: str) -> Any:
    """The `MetaworldTask` of a name."""
    return MetaworldTask(task)


@checked(
    task=given.text,
    num=SIZE,
    seed=COUNT,
    noise=NOT_NEGATIVE,
)
def demonstrations(
    task: str,
    num: int,
    seed: int | None = 0,
    noise: ArrayLike = 0.0,
    max_steps: int = 240,
    tail: int = 5,
    progress: bool = False,
    pool: Any = None,
) -> list[dict[str, Any]]:
    """Successful episodes of the scripted expert.

    Start states are the numbers seed * 10^6, seed * 10^6 + 1, ..., all below
    `EVALUATION_START`, from where evaluations count; those where the expert
    fails are left out. Labels are the expert's actions; with `noise` others
    are executed.

    Args:
        task: name of the task.
        num: number of episodes.
        seed: int from 0 to 899.
        noise: standard deviation of the noise on executed actions.
        max_steps: steps after which an episode has failed.
        tail: steps kept after success.
        progress: whether to show a progress bar.
        pool: an `EnvPool` of this task, whose processes run the episodes; they
            are the same without.

    Returns:
        List of dicts of "observation" (T, 21), "action" (T, 4), "reward"
        (T,), "success" (T,) and "seed", the number of the start state.

    Raises:
        ValueError: if the task does not exist, or the expert fails too often.
        RuntimeError: if the pool's environments are of another task.
    """
    if num < 1:
        raise ValueError(f"`num` must be at least 1. Received: {num!r}.")
    if not 0 <= seed * _STARTS_PER_SEED < EVALUATION_START:
        raise ValueError(
            f"`seed` must lie between 0 and 899. Received: {seed!r}."
        )
    episode = functools.partial(
        _episode, task=task, noise=noise, max_steps=max_steps, tail=tail
    )
    most = 20 + 20 * num
    starts = range(seed * _STARTS_PER_SEED, seed * _STARTS_PER_SEED + most)
    if pool is None:
        env = make_env(task)
        tried = (episode(env, start) for start in starts)
    else:
        tried = pool.imap(episode, starts)
    bar = Bar(num, "demonstration", progress)
    episodes = []
    with contextlib.closing(tried):
        for found in tried:
            if found is not None:
                episodes.append(found)
                bar.advance()
            if len(episodes) == num:
                return episodes
    raise ValueError(
        f"The expert of {task!r} succeeded in {len(episodes)} of {most} "
        f"episodes only (noise={noise}); lower `noise` or raise `max_steps`."
    )


def _episode(env, start, task, noise, max_steps, tail):
    """One episode, or None where the expert fails."""
    if env.task != task:
        raise ValueError(
            f"`pool` must have environments of {task!r}. "
            f"Received: {env.task!r}."
        )
    rng = np.random.Generator(np.random.Philox([start, 1]))
    rows = {key: [] for key in ("observation", "action", "reward", "success")}
    observation, left = env.reset(start), None
    for _ in range(max_steps):
        action = env.expert_action()
        executed = action
        if noise:
            executed = action + noise * rng.standard_normal(
                ACTION_DIM, dtype="float32"
            )
        rows["observation"].append(observation)
        rows["action"].append(action)
        observation, reward, success = env.step(executed)
        rows["reward"].append(np.float32(reward))
        rows["success"].append(success)
        if success and left is None:
            left = tail
        if left is not None:
            if left == 0:
                arrays = {k: np.asarray(v) for k, v in rows.items()}
                return {**arrays, "seed": start}
            left -= 1
    return None
