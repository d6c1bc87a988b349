"""Norms of residuals against their formulas, under masks too."""

import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf
from keras_flows.objectives import norms

RNG = np.random.default_rng(0)


def numpy(x):
    return ops.convert_to_numpy(x).astype("float64")


def huber(e, count):
    """The published norm of the rows e (B, D), in float64."""
    c = 0.00054 * np.sqrt(count)
    return np.sqrt(np.sum(e.astype("float64") ** 2, 1) + c**2) - c


@pytest.mark.parametrize("shape", [(2,), (6, 3), (32, 32, 3)])
def test_pseudo_huber_is_of_the_whole_example(shape):
    """As arXiv 2310.14189 has it: 10.5 for ten times the error of an image.

    Of single elements it would be 38.
    """
    e = RNG.standard_normal((3, *shape)).astype("float32")
    flat = e.reshape(3, -1)
    flat /= np.sqrt(np.mean(flat**2, 1, keepdims=True))
    found = {}
    for rms in (1e-5, 0.01, 0.1):
        given = ops.convert_to_tensor(rms * flat.reshape(3, *shape))
        found[rms] = numpy(norms.get("pseudo_huber")(given))
        expected = huber(rms * flat, flat.shape[1])
        np.testing.assert_allclose(found[rms], expected, rtol=1e-5)
    np.testing.assert_allclose(found[0.1] / found[0.01], 10.5, atol=0.05)


def test_pseudo_huber_counts_what_the_mask_keeps():
    """c, and the length, are those of the shorter example."""
    e = RNG.standard_normal((5, 6, 2)).astype("float32")
    mask = np.tri(5, 6, dtype="float32")
    mask[0] = 0.0
    batch = kf.objectives.Batch(
        ops.convert_to_tensor(e),
        mask=ops.convert_to_tensor(mask),
        residual_norm=norms.pseudo_huber,
    )
    found = numpy(batch.norm(ops.convert_to_tensor(e)))
    expected = [0.0]
    for row, length in zip(e[1:], (2, 3, 4, 5)):
        short = row[:length].reshape(1, -1)
        # A mean over the four examples that have anything.
        expected.append(5 / 4 * huber(short, short.size)[0])
    close(found, np.array(expected), 5)


def test_improved_consistency_trains_on_the_published_norm():
    network = kf.networks.MLP(2, 8, 1)
    model = kf.ConsistencyInterface(network, ema=None, seed=0)
    seen = []

    def noted(residual):
        seen.append(residual)
        return norms.get(model.norm_name)(residual)

    x = ops.convert_to_tensor(RNG.standard_normal((4, 2)).astype("float32"))
    batch = kf.objectives.Batch(x, residual_norm=noted)
    terms = model.objective(model, batch)
    expected = huber(numpy(seen[0]), 2)
    np.testing.assert_allclose(numpy(terms["distance"]), expected, rtol=1e-4)
