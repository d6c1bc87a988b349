"""The checkerboard, its builder, and the histogram KL with its floor."""

import numpy as np
import pytest

import keras_flows as kf
from keras_flows.ops import RowSplit
from keras_flows.ops import copies
from keras_flows.ops import parts


def test_samples_follow_the_density(rng):
    board = kf.datasets.Checkerboard()
    x, label = board.sample_labelled(80_000, 0)
    assert (board.density(x) == 1 / 8).all()
    counts = np.bincount(label, minlength=8)
    # Eight equal cells: standard deviation 94.
    assert np.abs(counts - 10_000).max() < 450
    # Uniform within the cells: mean 1/2 and variance 1/12 of a side.
    inside = np.mod(x, 1.0)
    np.testing.assert_allclose(inside.mean(axis=0), 0.5, atol=0.005)
    np.testing.assert_allclose(inside.var(axis=0), 1 / 12, atol=0.002)
    grid = rng.uniform(-3, 3, (200_000, 2))
    np.testing.assert_allclose(board.density(grid).mean() * 36, 1.0, atol=0.02)


@pytest.mark.once
def test_rings_follow_their_density():
    """Shares of the mass in cells, by quadrature of the exact density."""
    rings = kf.datasets.Rings((0.8, 1.6), width=0.1)
    x = rings.sample(200_000, 0)
    edges = np.linspace(-2.2, 2.2, 12)
    found = np.histogram2d(*x.T, bins=[edges, edges])[0] / len(x)
    fine = (np.arange(220) + 0.5) / 220 * 4.4 - 2.2
    grid = np.stack(np.meshgrid(fine, fine, indexing="ij"), axis=-1)
    mass = rings.density(grid) * (4.4 / 220) ** 2
    expected = mass.reshape(11, 20, 11, 20).sum(axis=(1, 3))
    assert abs(expected.sum() - 1) < 1e-3
    # Sampling error of a cell of mass 0.05: 0.0005.
    np.testing.assert_allclose(found, expected, atol=0.003)


def test_endless_batches_are_a_function_of_seed_and_index():
    data = kf.datasets.Endless(kf.datasets.Checkerboard(), 16, seed=1)
    np.testing.assert_array_equal(data[5][0], data[5][0])
    assert np.abs(data[5][0] - data[6][0]).max() > 0
    other = kf.datasets.Endless(kf.datasets.Checkerboard(), 16, seed=2)
    assert np.abs(data[5][0] - other[5][0]).max() > 0
    assert data.num_batches is None


def test_builder_loads_by_name_without_network(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    import keras_flows.datasets.checkerboard_builder  # noqa: F401

    source = tfds.data_source(
        "checkerboard",
        split="train",
        data_dir=str(tmp_path),
        builder_kwargs={"file_format": "array_record"},
    )
    assert len(source) == 20_000
    rows = [source[i] for i in range(200)]
    x = np.stack([row["x"] for row in rows])
    assert (kf.datasets.Checkerboard().density(x) > 0).all()
    assert {int(row["label"]) for row in rows} == set(range(8))


def test_kl_floors_are_the_published_ones():
    """Perfect samples: 0.0117 on 60 bins, 0.0656 on 50 bins over [-1, 1]."""
    toy = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    assert toy.floor(100_000) == pytest.approx(0.0117, abs=0.0012)
    paper = kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(extent=1.0),
        bins=50,
        extent=1.0,
        reference="density",
    )
    assert paper.floor(64_000) == pytest.approx(0.0656, abs=0.004)
    aligned = kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(extent=1.0),
        bins=48,
        extent=1.0,
        reference="density",
    )
    assert aligned.floor(64_000) == pytest.approx(0.0090, abs=0.001)
    text = toy.report(kf.datasets.Checkerboard().sample(100_000, 2))
    assert text.startswith("0.01") and "(floor 0.01" in text


def test_kl_of_half_the_cells_is_log_two():
    board = kf.datasets.Checkerboard()
    x, label = board.sample_labelled(200_000, 3)
    metric = kf.metrics.HistogramKL(board, bins=4, extent=2.0)
    tilted = np.concatenate([x[label < 4]] * 3 + [x[label >= 4]])
    # q = 3/4 and 1/4 on the two halves, p = 1/2: KL = log(2 / sqrt(3)).
    assert metric(tilted) == pytest.approx(np.log(2 / np.sqrt(3)), abs=0.01)


def test_kl_refuses_what_is_not_finite():
    metric = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    with pytest.raises(ValueError, match="2 rows, 1 of them"):
        metric(np.array([[0.0, np.nan], [1.0, 1.0]]))


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
