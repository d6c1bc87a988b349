"""Which cells of the matrix run where."""

import os
import pathlib

import pytest

HERE = pathlib.Path(__file__).parent
# A chain is walked op by op in up to 250 steps, seconds a cell; these few tell
# whether a backend walks it as PyTorch does.
KEPT = ("test_samples_are_the_closed_form[discrete v-chain]",)
# Of the trainings, those of the gate; ALL_MODES=1 runs the rest.
TRAINED = ("[edm-dmd]", "[linear-sid]", "[vp-dmd]")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Chains once, but for a few; of six distillations three in the gate."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        if "chain" in item.name and item.name not in KEPT:
            item.add_marker(pytest.mark.once)
        if "finds_both_modes" in item.name and "ALL_MODES" not in os.environ:
            if not item.name.endswith(TRAINED):
                item.add_marker(
                    pytest.mark.skip(reason="a training; ALL_MODES=1 runs it")
                )
