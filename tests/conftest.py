"""Shared set-up: one backend per process, seeds fixed."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest


def pytest_collection_modifyitems(items):
    """`once` tests run on PyTorch, which starts and builds the fastest."""
    if keras.backend.backend() == "torch":
        return
    skip = pytest.mark.skip(reason="runs once, on PyTorch")
    for item in items:
        if item.get_closest_marker("once"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _fixed_seed():
    keras.utils.set_random_seed(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
