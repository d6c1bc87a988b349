"""Rotations."""

import math

import pytest


@pytest.fixture
def turns():
    """Random rotations, and the awkward ones."""
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    awkward = [
        [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.0, 1e-4, 0.0],
        [math.pi, 0.0, 0.0], [0.0, math.pi, 0.0], [0.0, 0.0, math.pi],
        [math.pi - 1e-7, 0.0, 0.0], [2.0, 2.0, 0.0], [-1.0, 1.5, 2.0],
    ]  # fmt: skip
    return rotation.concatenate(
        [rotation.random(200, random_state=0), rotation.from_rotvec(awkward)]
    )
