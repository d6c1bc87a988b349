"""Normalisers of actions and observations."""

import keras
import numpy as np
import pytest

from keras_flows.networks import normalizers


@pytest.mark.parametrize("name", ["min_max", "mean_std", "quantile"])
def test_normalizers_and_their_streams(name):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((500, 3)) * [1.0, 1e-3, 0.0] + [5.0, 0.0, 7.0]
    whole, stream = normalizers.get(name), normalizers.get(name)
    whole.adapt(data)
    stream.adapt(part for part in np.array_split(data.reshape(-1, 5, 3), 7))
    for a, b in zip(whole.variables, stream.variables):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-9)
    y = keras.ops.convert_to_numpy(whole(data.astype("float32")))
    expected = {
        "min_max": (y[:, :2].min(0), y[:, :2].max(0), -1.0, 1.0),
        "mean_std": (y[:, :2].mean(0), y[:, :2].std(0), 0.0, 1.0),
        "quantile": (*np.quantile(y[:, :2], [0.01, 0.99], axis=0), -1.0, 1.0),
    }[name]
    np.testing.assert_allclose(expected[0], expected[2], atol=2e-3)
    np.testing.assert_allclose(expected[1], expected[3], atol=2e-3)
    # A constant stays put, whatever comes.
    other = np.array([[5.0, 0.0, 70.0]], "float32")
    assert keras.ops.convert_to_numpy(whole(other))[0, 2] == 0.0
    back = keras.ops.convert_to_numpy(whole.inverse(y + 0.0))
    np.testing.assert_allclose(back, data, rtol=1e-5, atol=1e-6)
    wild = keras.ops.convert_to_numpy(whole.inverse(np.full((1, 3), 9.0)))
    assert wild[0, 2] == 7.0


@pytest.mark.once
def test_normalizers_refuse():
    with pytest.raises(ValueError, match="Did you mean 'min_max'"):
        normalizers.get("minmax")
    normalizer = normalizers.get("mean_std")
    with pytest.raises(ValueError, match="empty"):
        normalizer.adapt([])
    with pytest.raises(ValueError, match="feature 1 first"):
        normalizer.adapt(np.array([[0.0, np.inf]]))
    normalizer.adapt(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="built for 2"):
        normalizer.adapt(np.zeros((3, 4)))


@pytest.mark.once
def test_quantile_keeps_a_fair_sample():
    """Of a long stream with a drift, not its beginning or end."""
    quantile = normalizers.Quantile(0.05, 0.95, most=2_000)
    quantile.adapt(
        np.arange(k, k + 1_000.0)[:, None] for k in range(0, 40_000, 1_000)
    )
    low = float(quantile.offset[0] - quantile.scale[0])
    high = float(quantile.offset[0] + quantile.scale[0])
    # Standard error of such a quantile: 40,000 sqrt(.05 .95 / 2,000) = 195.
    assert abs(low - 2_000) < 4 * 195 and abs(high - 38_000) < 4 * 195
