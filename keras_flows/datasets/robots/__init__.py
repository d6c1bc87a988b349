"""Demonstrations of robots: readers, windows, actions; see docs/robots.md."""

from keras_flows.datasets.robots.actions import ActionRepresentation
from keras_flows.datasets.robots.actions import action_representation
from keras_flows.datasets.robots.rotations import axis_angle_to_matrix
from keras_flows.datasets.robots.actions import from_rotation_6d
from keras_flows.datasets.robots.rotations import matrix_to_axis_angle
from keras_flows.datasets.robots.rotations import matrix_to_quaternion
from keras_flows.datasets.robots.rotations import matrix_to_rotation_6d
from keras_flows.datasets.robots.actions import poses
from keras_flows.datasets.robots.rotations import quaternion_to_matrix
from keras_flows.datasets.robots.rotations import quaternion_to_rotation_6d
from keras_flows.datasets.robots.rotations import rotation_6d_to_matrix
from keras_flows.datasets.robots.actions import to_rotation_6d
from keras_flows.datasets.robots.episodes import check_episodes
from keras_flows.datasets.robots.episodes import concatenate
from keras_flows.datasets.robots.episodes import select_keys
from keras_flows.datasets.robots.episodes import split_episodes
from keras_flows.datasets.robots.readers.lerobot import read_lerobot
from keras_flows.datasets.robots.metaworld import ACTION_DIM
from keras_flows.datasets.robots.metaworld import EVALUATION_START
from keras_flows.datasets.robots.metaworld import OBSERVATION_DIM
from keras_flows.datasets.robots.metaworld import demonstrations
from keras_flows.datasets.robots.metaworld import make_env
from keras_flows.datasets.robots.readers.minari import read_minari
from keras_flows.datasets.robots.readers.npz import read_npz
from keras_flows.datasets.robots.pool import EnvPool
from keras_flows.datasets.robots.readers.replay import read_replay_buffer
from keras_flows.datasets.robots.readers.replay import (
    write_replay_buffer,
)
from keras_flows.datasets.robots.readers.rlds import read_rlds
from keras_flows.datasets.robots.readers.robomimic import read_robomimic
from keras_flows.datasets.robots.windows import Windows
from keras_flows.datasets.robots.windows import as_floats

__all__ = [
    "ACTION_DIM",
    "action_representation",
    "ActionRepresentation",
    "as_floats",
    "axis_angle_to_matrix",
    "check_episodes",
    "concatenate",
    "demonstrations",
    "EnvPool",
    "EVALUATION_START",
    "from_rotation_6d",
    "make_env",
    "matrix_to_axis_angle",
    "matrix_to_quaternion",
    "matrix_to_rotation_6d",
    "OBSERVATION_DIM",
    "poses",
    "quaternion_to_matrix",
    "quaternion_to_rotation_6d",
    "read_lerobot",
    "read_minari",
    "read_npz",
    "read_replay_buffer",
    "read_rlds",
    "read_robomimic",
    "rotation_6d_to_matrix",
    "select_keys",
    "split_episodes",
    "to_rotation_6d",
    "Windows",
    "write_replay_buffer",
]
