"""Which cells of the matrix run where."""

import os
import pathlib
import zlib

import keras
import pytest

HERE = pathlib.Path(__file__).parent
# A chain is walked op by op in up to 250 steps, seconds a cell; these few tell
# whether a backend walks it as PyTorch does.
KEPT = ("test_samples_are_the_closed_form[discrete v-chain]",)
# Of the trainings, those of the gate; ALL_MODES=1 runs the rest.
TRAINED = ("[edm-dmd]", "[linear-sid]")
# PyTorch runs every cell. The others run one in so many, since what differs
# between backends is not in the cells; WHOLE_MATRIX=1 runs all of them.
SHARE = 3


def in_share(name):
    """Whether a cell runs on this backend, the same ones every time."""
    if keras.backend.backend() == "torch" or "WHOLE_MATRIX" in os.environ:
        return True
    return "two_modes" in name or zlib.crc32(name.encode()) % SHARE == 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Chains once, but for a few; of six distillations two in the gate."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        if "chain" in item.name and item.name not in KEPT:
            item.add_marker(pytest.mark.once)
        if not in_share(item.nodeid):
            item.add_marker(
                pytest.mark.skip(reason="a cell; WHOLE_MATRIX=1 runs it")
            )
        if "finds_both_modes" in item.name and "ALL_MODES" not in os.environ:
            if not item.name.endswith(TRAINED):
                item.add_marker(
                    pytest.mark.skip(reason="a training; ALL_MODES=1 runs it")
                )
