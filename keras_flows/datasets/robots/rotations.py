"""Rotations: matrices, axis-angle, quaternions, rotation 6-D. NumPy.

Rotations here are matrices R (..., 3, 3) with x_world = R x_body; axis-angle
vectors (..., 3), the axis times the angle in radians; quaternions (..., 4) in
the order x, y, z, w (robosuite, SciPy, ROS), not w first (MuJoCo, PyTorch3D);
and rotation 6-D (..., 6), two columns of R one after the other, which unlike
the others is continuous (arXiv 1812.07035). Quaternions q and -q are the same
rotation; those returned have w >= 0.
"""

from __future__ import annotations

import typing

import numpy as np

from keras_flows.ops import given

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike

ORDERS = ("columns", "rows")


def _array(value, name, size):
    """float64 with `size` numbers in the last axes, and finite."""
    value = given.array(name, value)
    size = (size,) if isinstance(size, int) else size
    if value.shape[-len(size) :] != size:
        raise ValueError(
            f"`{name}` must have shape (..., {', '.join(map(str, size))}). "
            f"Received: {value.shape}."
        )
    return value


def check_order(order):
    if not isinstance(order, str) or order not in ORDERS:
        raise ValueError(
            f"`order` must be 'columns' or 'rows'. Received: {order!r}."
        )


def _unit(vectors, name):
    """Vectors of length 1, and which of them had none."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (length > 1e-8).all():
        raise ValueError(
            f"`{name}` must not hold zeros, parallel vectors or NaN where it "
            "gives a direction."
        )
    return vectors / length


def matrix_to_rotation_6d(matrix: ArrayLike, order: str = "columns") -> Array:
    """Rotation 6-D (..., 6) of matrices (..., 3, 3).

    Args:
        order: "columns": the first two columns, as the paper has it and MIP's
            relative actions; "rows": the first two rows, as PyTorch3D,
            diffusion_policy and UMI. What a network was trained on decides.
    """
    matrix = _array(matrix, "matrix", (3, 3))
    check_order(order)
    if order == "columns":
        matrix = np.swapaxes(matrix, -1, -2)
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def rotation_6d_to_matrix(rotation: str, order: str = "columns") -> Array:
    """Matrices (..., 3, 3) of any six numbers, by Gram-Schmidt.

    Args:
        rotation: (..., 6); a network's output need not be orthonormal.
        order: see `matrix_to_rotation_6d`.

    Raises:
        ValueError: if its two vectors are parallel or zero.
    """
    rotation = _array(rotation, "rotation", 6)
    check_order(order)
    x = _unit(rotation[..., :3], "rotation")
    y = rotation[..., 3:]
    y = _unit(y - np.sum(x * y, axis=-1, keepdims=True) * x, "rotation")
    matrix = np.stack([x, y, np.cross(x, y)], axis=-2)
    return np.swapaxes(matrix, -1, -2) if order == "columns" else matrix


def quaternion_to_matrix(quaternion: ArrayLike) -> Array:
    """Matrices (..., 3, 3) of quaternions (..., 4), x, y, z, w."""
    quaternion = _array(quaternion, "quaternion", 4)
    x, y, z, w = np.moveaxis(_unit(quaternion, "quaternion"), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(matrix: ArrayLike) -> Array:
    """Quaternions (..., 4), x, y, z, w with w >= 0, of matrices (..., 3, 3)."""
    m = _array(matrix, "matrix", (3, 3))
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    # Four times the product of each component with all four.
    products = np.stack(
        [
            np.stack(row, axis=-1)
            for row in (
                [
                    1 + xx - yy - zz,
                    m[..., 0, 1] + m[..., 1, 0],
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 2, 1] - m[..., 1, 2],
                ],
                [
                    m[..., 0, 1] + m[..., 1, 0],
                    1 - xx + yy - zz,
                    m[..., 1, 2] + m[..., 2, 1],
                    m[..., 0, 2] - m[..., 2, 0],
                ],
                [
                    m[..., 0, 2] + m[..., 2, 0],
                    m[..., 1, 2] + m[..., 2, 1],
                    1 - xx - yy + zz,
                    m[..., 1, 0] - m[..., 0, 1],
                ],
                [
                    m[..., 2, 1] - m[..., 1, 2],
                    m[..., 0, 2] - m[..., 2, 0],
                    m[..., 1, 0] - m[..., 0, 1],
                    1 + xx + yy + zz,
                ],
            )
        ],
        axis=-2,
    )
    # The row of the largest component divides by no small number.
    largest = np.argmax(
        np.diagonal(products, axis1=-2, axis2=-1), axis=-1, keepdims=True
    )
    row = np.take_along_axis(products, largest[..., None], axis=-2)[..., 0, :]
    row = _unit(row, "matrix")
    return np.where(row[..., 3:] < 0, -row, row)


def axis_angle_to_matrix(axis_angle: ArrayLike) -> Array:
    """Matrices (..., 3, 3) of axis-angle vectors (..., 3), in radians."""
    axis_angle = _array(axis_angle, "axis_angle", 3)
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    # sin(a / 2) / a, also at 0.
    scale = 0.5 * np.sinc(angle / (2 * np.pi))
    return quaternion_to_matrix(
        np.concatenate([axis_angle * scale, np.cos(angle / 2)], axis=-1)
    )


def matrix_to_axis_angle(matrix: ArrayLike) -> Array:
    """Axis-angle vectors (..., 3) of matrices, angles from 0 to pi."""
    quaternion = matrix_to_quaternion(matrix)
    vector, w = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, w)
    return vector / (0.5 * np.sinc(angle / (2 * np.pi)))


def quaternion_to_rotation_6d(
    quaternion: ArrayLike, order: str = "columns"
) -> Array:
    """Rotation 6-D (..., 6) of quaternions (..., 4), x, y, z, w."""
    return matrix_to_rotation_6d(quaternion_to_matrix(quaternion), order)
