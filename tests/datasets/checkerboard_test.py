"""Checkerboard and rings: their densities, batches, the TFDS builder."""

import numpy as np
import pytest

import keras_flows as kf


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
