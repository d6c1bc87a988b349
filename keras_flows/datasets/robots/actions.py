"""What the numbers of an action are relative to. NumPy.

An absolute action says where each arm's end effector should be: (position,
rotation 6-D, gripper). Seen from the pose it starts from (arXiv 2402.10329,
where it is called relative) it no longer depends on where the robot stands;
seen from the step before it is a delta. Both need the pose, which the
observation holds. `rotations.py` has the rotations.
"""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.datasets.robots.episodes import natural
from keras_flows.datasets.robots.rotations import axis_angle_to_matrix
from keras_flows.datasets.robots.rotations import check_order
from keras_flows.datasets.robots.rotations import matrix_to_axis_angle
from keras_flows.datasets.robots.rotations import matrix_to_rotation_6d
from keras_flows.datasets.robots.rotations import quaternion_to_rotation_6d
from keras_flows.datasets.robots.rotations import rotation_6d_to_matrix
from keras_flows.ops import given
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import Tree


def to_rotation_6d(actions: ArrayLike, order: str = "columns") -> Array:
    """Absolute actions with axis-angle as such with rotation 6-D.

    Args:
        actions: (..., 7 n): position (3), axis-angle (3) and gripper (1) of
            each of n arms.
        order: see `matrix_to_rotation_6d`.

    Returns:
        (..., 10 n), float32.
    """
    arms = _arms(actions, 7)
    rotation = matrix_to_rotation_6d(
        axis_angle_to_matrix(arms[..., 3:6]), order
    )
    return _joined(arms[..., :3], rotation, arms[..., 6:])


def from_rotation_6d(actions: ArrayLike, order: str = "columns") -> Array:
    """The inverse of `to_rotation_6d`, what such a robot is sent.

    Args:
        actions: (..., 10 n).
        order: the same as then.

    Returns:
        (..., 7 n), float32, angles from 0 to pi.
    """
    arms = _arms(actions, 10)
    rotation = matrix_to_axis_angle(
        rotation_6d_to_matrix(arms[..., 3:9], order)
    )
    return _joined(arms[..., :3], rotation, arms[..., 9:])


def _arms(actions, size):
    actions = given.array("actions", actions)
    if actions.ndim < 1 or not actions.shape[-1] or actions.shape[-1] % size:
        raise ValueError(
            f"`actions` must be {size} numbers an arm, (..., {size}) or "
            f"(..., {2 * size}). Received: {actions.shape}."
        )
    return actions.reshape(*actions.shape[:-1], -1, size)


def _joined(*parts):
    """Parts (..., n, d) of the arms, as one vector of float32."""
    arms = np.concatenate(parts, axis=-1)
    return arms.reshape(*arms.shape[:-2], -1).astype("float32")


class ActionRepresentation:
    """Absolute actions as they are, of any size; the base of the other kinds.

    An action has, for each arm, `position` numbers, rotation 6-D (6) where
    `rotation`, and `gripper` numbers, which always stay absolute. Joint angles
    are a position without rotation. Without rotation differences are plain;
    with it they are in the frame of the end effector they are taken from.

    Args:
        arms: number of arms.
        position: numbers of an arm's position.
        rotation: whether rotation 6-D follows, which needs position=3.
        gripper: numbers of an arm's gripper.
        order: of rotation 6-D; see `matrix_to_rotation_6d`.
    """

    @checked(arms=SIZE, position=SIZE, rotation=FLAG, gripper=COUNT)
    def __init__(
        self,
        arms: int = 1,
        position: int = 3,
        rotation: bool = True,
        gripper: int = 1,
        order: str = "columns",
    ) -> None:
        if rotation and position != 3:
            raise ValueError(
                "`position` must be 3 with a rotation, which turns it. "
                f"Received: {position}. Pass rotation=False for joints."
            )
        check_order(order)
        self.arms, self.position, self.gripper = arms, position, gripper
        self.rotation, self.order = rotation, order

    @property
    def needs_pose(self) -> bool:
        """Whether `encode` and `decode` look at the pose."""
        return type(self) is not ActionRepresentation

    @property
    def action_dim(self) -> int:
        """Numbers of an action."""
        return self.arms * (self.pose_dim // self.arms + self.gripper)

    @property
    def pose_dim(self) -> int:
        """Numbers of a pose: an action without the grippers."""
        return self.arms * (self.position + 6 * self.rotation)

    def get_config(self) -> dict[str, Any]:
        return {
            "arms": self.arms,
            "position": self.position,
            "rotation": self.rotation,
            "gripper": self.gripper,
            "order": self.order,
        }

    def encode(
        self, actions: ArrayLike, pose: Callable[..., Any] | None = None
    ) -> Array:
        """What the network learns.

        Args:
            actions: (..., H, action_dim), absolute, the steps of a chunk.
            pose: (..., pose_dim), where the end effectors are when the chunk
                begins (see `poses`): position and rotation of each arm.

        Returns:
            Chunk (..., H, action_dim), float32.

        Raises:
            ValueError: on other shapes, or a rotation that is none.
        """
        return self._mapped(actions, pose, "actions", self._encode)

    def decode(
        self, chunk: ArrayLike, pose: Callable[..., Any] | None = None
    ) -> Array:
        """The inverse of `encode`: absolute actions of what was predicted.

        Args:
            chunk: (..., H, action_dim).
            pose: (..., pose_dim), of now.

        Returns:
            Actions (..., H, action_dim), float32.

        Raises:
            ValueError: as `encode`.
        """
        return self._mapped(chunk, pose, "chunk", self._decode)

    def _encode(self, frames, pose):
        """What a kind is: (position (..., H, n, P), matrix or None), and so
        the pose, H = 1, to the same of the chunk."""
        return frames

    def _decode(self, frames, pose):
        """The inverse of `_encode`."""
        return frames

    def _mapped(self, values, pose, name, function):
        values = np.asarray(values)
        if not self.needs_pose:
            return values.astype("float32", copy=False)
        if values.ndim < 2 or values.shape[-1] != self.action_dim:
            raise ValueError(
                f"`{name}` must be (..., H, {self.action_dim}): {self.arms} "
                f"arm(s) of {self.position} + {6 * self.rotation} + "
                f"{self.gripper} numbers. Received: {values.shape}."
            )
        if pose is None or np.shape(pose)[-1:] != (self.pose_dim,):
            raise ValueError(
                f"`pose` must be (..., {self.pose_dim}): position and "
                "rotation of each arm, without grippers. Received: "
                f"{None if pose is None else np.shape(pose)}."
            )
        steps, own = values.shape[-2], self.pose_dim // self.arms
        pose = np.asarray(pose, dtype="float64")
        pose = pose.reshape(*pose.shape[:-1], 1, self.arms, own)
        if pose.ndim != values.ndim + 1:
            raise ValueError(
                f"`pose` must be one for each of the {name}, "
                f"{(*values.shape[:-2], self.pose_dim)}. Received: "
                f"{(*pose.shape[:-3], self.pose_dim)}."
            )
        arms = values.reshape(*values.shape[:-2], steps, self.arms, -1)
        # The gripper is copied without arithmetic.
        out = arms.astype("float32")
        out[..., :own] = self._packed(
            *function(self._frames(arms[..., :own]), self._frames(pose))
        )
        return out.reshape(values.shape)

    def _frames(self, values):
        """(position (..., P), matrix (..., 3, 3) or None)."""
        position = np.asarray(values[..., : self.position], dtype="float64")
        if not self.rotation:
            return position, None
        rotation = values[..., self.position :]
        return position, rotation_6d_to_matrix(rotation, self.order)

    def _packed(self, position, matrix):
        if matrix is None:
            return position
        rotation = matrix_to_rotation_6d(matrix, self.order)
        return np.concatenate([position, rotation], axis=-1)


class Relative(ActionRepresentation):
    """Every step of a chunk seen from the pose at its first step.

    p_i' = R^T (p_i - p), R_i' = R^T R_i; without rotation p_i' = p_i - p.
    Source: arXiv 2402.10329, section III-C.
    """

    def _encode(self, frames, pose):
        return _seen_from(frames, pose)

    def _decode(self, frames, pose):
        return _composed(pose, frames)


class Delta(ActionRepresentation):
    """Every step of a chunk seen from the one before, the first from the pose.

    p_i' = R_{i-1}^T (p_i - p_{i-1}), R_i' = R_{i-1}^T R_i, with (p_0, R_0) the
    pose. Errors of a prediction add up over the chunk.
    """

    def _encode(self, frames, pose):
        before = _shifted(pose[0], frames[0], -3), None
        if frames[1] is not None:
            before = before[0], _shifted(pose[1], frames[1], -4)
        return _seen_from(frames, before)

    def _decode(self, frames, pose):
        positions, matrices = frames
        now, done = pose, []
        for i in range(positions.shape[-3]):
            step = (
                positions[..., i : i + 1, :, :],
                None if matrices is None else matrices[..., i : i + 1, :, :, :],
            )
            now = _composed(now, step)
            done.append(now)
        return (
            np.concatenate([p for p, _ in done], axis=-3),
            None
            if matrices is None
            else np.concatenate([m for _, m in done], axis=-4),
        )


def _shifted(first, steps, axis):
    """The steps one later, `first` before them."""
    first = np.broadcast_to(first, np.take(steps, [0], axis).shape)
    return np.concatenate([first, np.delete(steps, -1, axis)], axis)


def _seen_from(frames, reference):
    (position, matrix), (origin, turned) = frames, reference
    if matrix is None:
        return position - origin, None
    back = np.swapaxes(turned, -1, -2)
    moved = np.matmul(back, (position - origin)[..., None])[..., 0]
    return moved, np.matmul(back, matrix)


def _composed(reference, frames):
    (origin, turned), (position, matrix) = reference, frames
    if matrix is None:
        return origin + position, None
    moved = np.matmul(turned, position[..., None])[..., 0]
    return origin + moved, np.matmul(turned, matrix)


REPRESENTATIONS = {
    "absolute": ActionRepresentation,
    "delta": Delta,
    "relative": Relative,
}


def action_representation(
    identifier: Any = "absolute", **kwargs: Any
) -> ActionRepresentation:
    """A representation of actions, by name.

    Args:
        identifier: "absolute", "delta" or "relative"; a representation is
            returned as it is.
        kwargs: arguments of `ActionRepresentation`.

    Returns:
        An object with `encode(actions, pose)` and `decode(chunk, pose)`.

    Raises:
        ValueError: if there is none of that name.
    """
    if isinstance(identifier, ActionRepresentation):
        if kwargs:
            raise ValueError(
                f"{sorted(kwargs)} are left over: `identifier` is a "
                "representation already."
            )
        return identifier
    if not isinstance(identifier, str) or identifier not in REPRESENTATIONS:
        raise ValueError(
            f"`identifier` must be one of {sorted(REPRESENTATIONS)}. "
            f"Received: {identifier!r}."
        )
    return REPRESENTATIONS[identifier](**kwargs)


def poses(
    observation: Tree,
    robots: Sequence[str] | None = None,
    order: str = "columns",
) -> Any:
    """Poses of the end effectors, from robosuite's names of observations.

    Args:
        observation: dict with "<robot>_eef_pos" (..., 3) and
            "<robot>_eef_quat" (..., 4), x, y, z, w.
        robots: names of the arms, in the order of the actions; by default
            all, by their numbers.
        order: of rotation 6-D; see `matrix_to_rotation_6d`.

    Returns:
        (..., 9 n), float32.

    Raises:
        ValueError: if a name is not there.
    """
    if not isinstance(observation, dict):
        raise ValueError(
            "`observation` must be a dict of robosuite's names. Received: "
            f"{type(observation).__name__}."
        )
    if robots is not None and not isinstance(robots, (list, tuple)):
        raise ValueError(
            f"`robots` must be a list of names. Received: {robots!r}."
        )
    check_order(order)
    end = "_eef_pos"
    if robots is None:
        found = [
            key.removesuffix(end) for key in observation if key.endswith(end)
        ]
        robots, asked = sorted(found, key=natural) or ["robot0"], ""
    else:
        asked = f" of `robots`, {list(robots)}"
    columns = []
    for robot in robots:
        for key in (f"{robot}_eef_pos", f"{robot}_eef_quat"):
            if key not in observation:
                raise ValueError(
                    f"`observation` has no {key!r}, which a pose{asked} "
                    f"needs. It has {sorted(observation)}."
                )
        columns.append(np.asarray(observation[f"{robot}_eef_pos"]))
        columns.append(
            quaternion_to_rotation_6d(observation[f"{robot}_eef_quat"], order)
        )
    return np.concatenate(columns, axis=-1).astype("float32")
