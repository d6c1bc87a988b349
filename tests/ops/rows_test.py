"""Splits, copies and parts of a batch."""

import numpy as np
import pytest

from keras_flows.ops import RowSplit
from keras_flows.ops import copies
from keras_flows.ops import parts


@pytest.mark.parametrize("batch", [1, 7, 16, 100])
@pytest.mark.parametrize("portion", [0.0, 0.25, 0.3, 1.0])
def test_row_split_is_even_and_reversible(batch, portion):
    from keras import ops

    rows = RowSplit(batch, portion)
    x = np.arange(batch, dtype="float32")
    off, diagonal = (
        ops.convert_to_numpy(part)
        for part in rows.split(ops.convert_to_tensor(x))
    )
    assert len(off) == rows.num_off and len(diagonal) == rows.num_diagonal
    assert abs(rows.num_off - batch * portion) < 1
    assert rows.num_off >= (portion > 0)
    back = rows.merge(*rows.split(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(ops.convert_to_numpy(back), x)
    if rows.num_off > 1:
        assert np.ptp(np.diff(off)) <= 1
    dynamic = RowSplit(ops.convert_to_tensor(batch), portion)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(dynamic.split(ops.convert_to_tensor(x))[0]), off
    )


@pytest.mark.parametrize("batch, count", [(2, 4), (3, 1)])
def test_copies_and_parts_are_inverses(batch, count):
    from keras import ops

    x = np.arange(2.0 * batch, dtype="float32").reshape(batch, 2)
    rows = {"x": ops.convert_to_tensor(x)}
    found = parts(copies(rows, count), count)
    assert len(found) == count
    for part in found:
        np.testing.assert_array_equal(ops.convert_to_numpy(part["x"]), x)
    assert parts(copies(None, count), count) == [None] * count
