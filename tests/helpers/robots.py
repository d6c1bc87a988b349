"""Episodes of random numbers."""

import numpy as np


def episode(steps, seed=0, image=False):
    """An episode in the common format."""
    rng = np.random.default_rng(seed)
    observation = {
        "eef_pos": rng.normal(size=(steps, 3)).astype("float32"),
        "object": rng.normal(size=(steps, 2, 2)).astype("float32"),
    }
    if image:
        observation["view"] = rng.integers(0, 256, (steps, 8, 8, 3), "uint8")
    return {
        "observation": observation,
        "action": rng.normal(size=(steps, 7)).astype("float32"),
        "reward": rng.normal(size=steps).astype("float32"),
    }


def assert_same(ours, expected):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected):
        assert set(b) <= set(a)
        for key, value in b.items():
            if key == "observation" and isinstance(value, dict):
                assert list(a[key]) == list(value)
                pairs = [(a[key][k], v) for k, v in value.items()]
            else:
                pairs = [(a[key], value)]
            for x, y in pairs:
                np.testing.assert_array_equal(x, y)
                assert np.asarray(x).dtype == np.asarray(y).dtype
