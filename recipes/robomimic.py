"""Train a policy on robomimic's demonstrations, from states.

    KERAS_BACKEND=jax python recipes/robomimic.py --task=square_ph \\
        --path=square/ph/low_dim_abs.hdf5 --objective=mip --network=unet

Data: https://robomimic.github.io/docs/datasets/robomimic_v0.1.html (arXiv
2108.03298); files with absolute actions are made by diffusion_policy's and
MIP's scripts, or the actions are `actions_abs` (--action_key). --synthetic
makes a small file of the same layout instead. Actions by --actions:

- absolute: position, rotation 6-D and gripper of each arm, the paper's;
- relative: every step of a chunk seen from the pose at its first;
- delta: every step seen from the one before;
- recorded: as they are in the file, the 7 numbers of low_dim.hdf5 (what MIP
  calls delta).

`imitation.py` says which hyper-parameters are published, TASKS below which
belong to a task. Rotation 6-D is by columns in all four; MIP's absolute
actions are by rows, which for a network is the same task in other numbers.
With relative actions the rotations are not normalised, as in MIP, whose
pose is that of the step after.

Hardware: a GPU for the published 300,000 steps of 1024; with --synthetic two
CPU cores and a minute. None of the published figures has been reproduced by
us: no simulator runs here. Errors are metres, degrees, and the share of
gripper commands of the wrong sign.

Writes to --out: config.json, results.json and the preset.
"""

import dataclasses

import imitation
import numpy as np
from absl import app
from absl import flags

from keras_flows.datasets import robots
from keras_flows.ops.files import replacing


@dataclasses.dataclass(frozen=True)
class Task:
    """What the published configuration of a task says.

    Attributes:
        horizon: actions of a chunk. A U-Net's is the next power of two.
        object_dim: numbers of the observation "object".
        arms: number of arms.
    """

    horizon: int = 10
    object_dim: int = 14
    arms: int = 1

    @property
    def robots(self):
        return tuple(f"robot{i}" for i in range(self.arms))

    @property
    def keys(self):
        return ("object",) + tuple(
            f"{robot}_{name}"
            for robot in self.robots
            for name in ("eef_pos", "eef_quat", "gripper_qpos")
        )


TASKS = {
    "lift_ph": Task(horizon=16, object_dim=10),
    "lift_mh": Task(object_dim=10),
    "can_ph": Task(),
    "can_mh": Task(),
    "square_ph": Task(),
    "square_mh": Task(),
    "tool_hang_ph": Task(object_dim=44),
    "transport_ph": Task(object_dim=41, arms=2),
    "transport_mh": Task(object_dim=41, arms=2),
}

FLAGS = flags.FLAGS
# `--help` tells them too.
flags.adopt_module_key_flags(imitation)
flags.DEFINE_enum("task", "lift_ph", list(TASKS), "What is demonstrated.")
flags.DEFINE_enum(
    "actions",
    "absolute",
    ["absolute", "relative", "delta", "recorded"],
    "What the network predicts.",
)
flags.DEFINE_string("action_key", "actions", "The file's array of actions.")
flags.DEFINE_string("filter_key", None, "The file's subset, such as 'train'.")
flags.DEFINE_string("out", "out/robomimic", "Folder for what it makes.")


def synthetic(path, rng, num=40):
    """A robomimic file of arms that go to an object and grasp it."""
    import h5py

    task = TASKS[FLAGS.task]
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for i in range(num):
            steps = int(rng.integers(40, 60))
            group = file.create_group(f"data/demo_{i}")
            goal = rng.uniform(-0.3, 0.3, 3)
            now, actions = {}, []
            for robot in task.robots:
                arm = reach(rng, goal, steps)
                actions.append(arm.pop("action"))
                now |= {f"{robot}_{k}": v for k, v in arm.items()}
            object_state = np.zeros((steps, task.object_dim))
            object_state[:, :3] = goal
            object_state[:, 3:6] = goal - now["robot0_eef_pos"]
            for key, value in {"object": object_state, **now}.items():
                group[f"obs/{key}"] = value
            group[FLAGS.action_key] = np.concatenate(actions, axis=-1)
            group["rewards"] = np.arange(steps) == steps - 1
            group["dones"] = np.arange(steps) == steps - 1


synthetic.file = "robomimic_synthetic.hdf5"


def reach(rng, goal, steps):
    """An arm's path: towards the goal and upright, then closing its hand."""
    position, turn = rng.uniform(-0.5, 0.5, 3), rng.uniform(-0.6, 0.6, 3)
    rows = {key: [] for key in ("eef_pos", "eef_quat", "gripper_qpos",
                                "action")}  # fmt: skip
    for _ in range(steps):
        matrix = robots.axis_angle_to_matrix(turn)
        near = np.linalg.norm(goal - position) < 0.05
        rows["eef_pos"].append(position)
        rows["eef_quat"].append(robots.matrix_to_quaternion(matrix))
        rows["gripper_qpos"].append(np.array([0.04, -0.04]) * (1 - near))
        position, turn = position + 0.1 * (goal - position), 0.9 * turn
        target = [position, turn]
        if FLAGS.actions == "recorded":
            target = [(goal - position), -turn]
        rows["action"].append(np.concatenate([*target, [1.0 if near else -1]]))
    return {key: np.asarray(value) for key, value in rows.items()}


def arm_errors(arms):
    """Errors of absolute actions; see the module."""

    def errors(predicted, recorded):
        p, q = (
            a.reshape(-1, arms, 10).astype("float64")
            for a in (predicted, recorded)
        )
        turns = [robots.rotation_6d_to_matrix(a[..., 3:9]) for a in (p, q)]
        between = np.matmul(np.swapaxes(turns[0], -1, -2), turns[1])
        angle = np.linalg.norm(robots.matrix_to_axis_angle(between), axis=-1)
        wrong = (p[..., 9] > 0) != (q[..., 9] > 0)
        return {
            "position": float(
                np.linalg.norm(p[..., :3] - q[..., :3], axis=-1).mean()
            ),
            "rotation": float(np.degrees(angle).mean()),
            "gripper": float(wrong.mean()),
        }

    return errors


def recorded_errors(predicted, recorded):
    """Errors of actions in the file's own units."""
    p, q = (a.reshape(-1, 7) for a in (predicted, recorded))
    return {
        "root_mean_square": float(np.sqrt(np.mean((p[:, :6] - q[:, :6]) ** 2))),
        "gripper": float(((p[:, 6] > 0) != (q[:, 6] > 0)).mean()),
    }


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    task = TASKS[FLAGS.task]
    path = imitation.demonstrations(synthetic)
    absolute = FLAGS.actions != "recorded"
    episodes = robots.read_robomimic(
        path,
        task.keys,
        filter_key=FLAGS.filter_key,
        action_key=FLAGS.action_key,
        rotation_6d=absolute,
    )
    config = {
        "path": str(path), "task": FLAGS.task, "actions": FLAGS.actions,
        "action_key": FLAGS.action_key, "filter_key": FLAGS.filter_key,
    }  # fmt: skip
    horizon = task.horizon
    if FLAGS.network == "unet":
        horizon = 2 ** int(np.ceil(np.log2(horizon)))
    if not absolute:
        imitation.run(config, episodes, horizon, recorded_errors)
        return
    # Rotations seen from the pose are near one another: left as they are.
    rotations = [10 * i + j for i in range(task.arms) for j in range(3, 9)]
    imitation.run(
        config,
        episodes,
        horizon,
        arm_errors(task.arms),
        robots.action_representation(FLAGS.actions, arms=task.arms),
        plain=rotations if FLAGS.actions == "relative" else (),
    )


if __name__ == "__main__":
    app.run(main)
