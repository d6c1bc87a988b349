"""Splits, copies and parts of a batch."""

import numpy as np
import pytest
from keras import ops

from keras_flows.ops import RowSplit
from keras_flows.ops import copies
from keras_flows.ops import parts


def host(x):
    return ops.convert_to_numpy(x)


def place(turn, rounding):
    return ops.convert_to_tensor([turn, rounding], dtype="float32")


def is_off(rows):
    """Which rows the merge takes from the off-diagonal group."""
    off = ops.ones((rows.num_off,))
    return host(rows.merge(off, ops.zeros((rows.num_diagonal,)))) > 0


@pytest.mark.parametrize("batch", [1, 2, 7, 16, 100])
@pytest.mark.parametrize("portion", [0.0, 0.25, 0.3, 1.0])
def test_row_split_is_even_and_reversible(batch, portion):
    x = ops.arange(batch, dtype="float32")
    for turn, rounding in ((0.0, 0.01), (0.0, 0.99), (0.6, 0.01)):
        drawn = RowSplit.is_drawn(batch, portion)
        assert drawn == (batch * portion % 1.0 > 1e-6)
        rows = RowSplit(
            batch, portion, place(turn, rounding) if drawn else None
        )
        off, diagonal = rows.split({"x": x, "same": (x,)})
        off, diagonal = off["x"], diagonal["same"][0]
        assert len(off) == rows.num_off and len(diagonal) == rows.num_diagonal
        assert rows.num_off + rows.num_diagonal == batch + drawn
        np.testing.assert_array_equal(host(rows.merge(off, diagonal)), host(x))
        taken = np.flatnonzero(is_off(rows))
        assert abs(len(taken) - batch * portion) < 1
        assert set(taken) <= set(host(off))
        gaps = np.diff(np.append(taken, taken[:1] + batch))
        if not drawn and len(gaps) > 1:
            assert np.ptp(gaps) <= 1


UNEVEN = [
    (batch, portion) for batch in (1, 2, 3, 7) for portion in (0.25, 0.3, 0.9)
]


@pytest.mark.parametrize("batch, portion", UNEVEN)
@pytest.mark.parametrize("known", [True, False])
def test_each_row_is_off_diagonal_as_often_as_asked(batch, portion, known):
    """Over the draws, whatever the batch size; sizes do not depend on them."""
    size = batch if known else ops.convert_to_tensor(batch)
    splits = [
        RowSplit(size, portion, place((turn + 0.5) / batch, rounding))
        for turn in range(batch)
        for rounding in (np.arange(20) + 0.5) / 20
    ]
    assert len({(int(s.num_off), int(s.num_diagonal)) for s in splits}) == 1
    found = np.mean([is_off(s) for s in splits], axis=0)
    np.testing.assert_allclose(found, portion, atol=0.026)
    off, diagonal = np.mean(
        [[host(a) for a in s.shares("float32")] for s in splits], axis=0
    )
    np.testing.assert_allclose(off * portion, found, atol=1e-5)
    np.testing.assert_allclose(diagonal * (1 - portion), 1 - found, atol=1e-5)


@pytest.mark.parametrize("batch, count", [(2, 4), (3, 1)])
def test_copies_and_parts_are_inverses(batch, count):
    x = np.arange(2.0 * batch, dtype="float32").reshape(batch, 2)
    rows = {"x": ops.convert_to_tensor(x)}
    found = parts(copies(rows, count), count)
    assert len(found) == count
    for part in found:
        np.testing.assert_array_equal(ops.convert_to_numpy(part["x"]), x)
    assert parts(copies(None, count), count) == [None] * count
