"""Noise levels and time laws, on every path.

A level is 0 where the path ends and 1 at pure noise; laws, shifts and even
grids are meant in levels. Times that are drawn are times that are trained.
"""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

paths = kf.interpolants
PATHS = {
    "linear, noise at 0": paths.Linear(0.0),
    "linear, noise at 1": paths.Linear(1.0),
    "trigonometric, noise at 0": paths.Trigonometric(0.0),
    "trigonometric, noise at 1": paths.Trigonometric(1.0),
    "vp, linear": paths.VariancePreserving(),
    "vp, cosine": paths.VariancePreserving("cosine"),
    "ve": paths.VarianceExploding(),
    "ve, other ends": paths.VarianceExploding(0.01, 50.0),
    "trigflow": paths.TrigFlow(),
    "chain": paths.DiscreteVariancePreserving(),
    "short chain": paths.DiscreteVariancePreserving("cosine", 10),
    "bridge": paths.StochasticInterpolant(),
}
EXPLODING = ("ve", "ve, other ends")
CHAINS = ("chain", "short chain")
LEVELS = np.linspace(0.0, 1.0, 101)


@pytest.fixture(params=PATHS)
def case(request):
    return request.param


def end(case):
    """The time of level 0: on a chain the first timestep has noise."""
    path = PATHS[case]
    return path.t_data if case in CHAINS else path.t_last


def float32(x):
    return np.asarray(x, dtype="float32")


def array(x):
    return ops.convert_to_numpy(x)


# Levels.


def test_levels_in_float64(case):
    path = PATHS[case]
    t = path.time_of_level(LEVELS)
    assert t.dtype == path.level(t).dtype == np.float64
    np.testing.assert_allclose(path.level(t), LEVELS, atol=1e-12)
    assert np.all(np.diff(t) * (path.t_noise - path.t_data) > 0)
    # Exact, whatever the formula rounds.
    assert t[0] == end(case) and t[-1] == path.t_noise
    assert path.level(end(case)) == 0.0 and path.level(path.t_noise) == 1.0
    for f in (path.time_of_level, path.level, path.within, path.level_dot):
        assert f(float32(t)).dtype == np.float32
    # Any shape.
    both = path.level(path.time_of_level(np.stack([LEVELS, LEVELS[::-1]])))
    np.testing.assert_allclose(both[0], both[1][::-1], atol=1e-12)


def test_levels_of_tensors(case):
    path = PATHS[case]
    level = ops.convert_to_tensor(float32(LEVELS))
    t = path.time_of_level(level)
    assert keras.backend.standardize_dtype(t.dtype) == "float32"
    expected = path.time_of_level(LEVELS)
    np.testing.assert_allclose(array(t), expected, rtol=1e-5, atol=1e-6)
    back = array(path.level(t))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, LEVELS, atol=2e-6)
    assert np.all(np.diff(back) > 0)
    assert np.all(np.diff(array(t)) * (path.t_noise - path.t_data) > 0)
    ends = ops.convert_to_tensor(float32([end(case), path.t_noise]))
    np.testing.assert_array_equal(array(path.level(ends)), [0.0, 1.0])
    np.testing.assert_array_equal(array(t)[[0, -1]], array(ends))


@pytest.mark.once
def test_levels_keep_float64_of_tensors(case):
    path = PATHS[case]
    t = path.time_of_level(ops.convert_to_tensor(LEVELS, dtype="float64"))
    np.testing.assert_allclose(
        array(t), path.time_of_level(LEVELS), rtol=1e-13, atol=1e-15
    )
    for found in (path.level(t), path.within(t), path.level_dot(t)):
        assert keras.backend.standardize_dtype(found.dtype) == "float64"
    np.testing.assert_allclose(array(path.level(t)), LEVELS, atol=1e-13)


def test_levels_are_affine_but_on_the_exploding_path(case):
    path = PATHS[case]
    if case in EXPLODING:
        # Equation 5 of arXiv 2206.00364.
        low, high = path.sigma_min ** (1 / 7), path.sigma_max ** (1 / 7)
        expected = (low + LEVELS * (high - low)) ** 7
    else:
        expected = end(case) + LEVELS * (path.t_noise - end(case))
    found = path.time_of_level(LEVELS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_levels_stop_at_the_ends(case):
    path = PATHS[case]
    away = 0.1 * (path.t_noise - path.t_data)
    outside = np.array([end(case) - away, path.t_noise + away])
    for level in (
        path.level(outside),
        array(path.level(ops.convert_to_tensor(float32(outside)))),
    ):
        np.testing.assert_array_equal(level, [0.0, 1.0])
    np.testing.assert_array_equal(
        path.time_of_level(np.array([-0.1, 1.1])), [end(case), path.t_noise]
    )


def test_level_dot_is_the_slope(case):
    path = PATHS[case]
    t = path.time_of_level(np.linspace(0.05, 0.95, 19))
    h = 1e-6 * np.abs(t)
    slope = (path.level(t + h) - path.level(t - h)) / (2 * h)
    np.testing.assert_allclose(path.level_dot(t), slope, rtol=1e-6)
    found = array(path.level_dot(ops.convert_to_tensor(float32(t))))
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def test_within(case):
    """t as it is, or the nearest time that is trained."""
    path = PATHS[case]
    inside = path.within(path.time_of_level(LEVELS))
    away = 0.1 * (path.t_noise - path.t_data)
    t = np.concatenate(
        [[path.t_last - away], inside, [path.t_noise + away, path.t_data]]
    )
    expected = [path.t_last, *inside, path.t_noise, path.t_last]
    np.testing.assert_array_equal(path.within(t), expected)
    found = array(path.within(ops.convert_to_tensor(float32(t))))
    np.testing.assert_array_equal(found, float32(expected))


@pytest.mark.parametrize("name", CHAINS)
def test_levels_of_a_chain_are_shares_of_its_timesteps(name):
    path = PATHS[name]
    for steps in (1, 2, 5, 10):
        t = path.time_of_level(np.arange(1, steps + 1) / steps)
        k = array(path.timestep(ops.convert_to_tensor(float32(t))))
        count = path.num_timesteps
        expected = np.arange(1, steps + 1) * count // steps - 1
        np.testing.assert_array_equal(k, expected)


# Time laws. With 40000 draws a quantile is off by less than 0.5 / 200, four
# times that asked.

DRAWS = 40_000
LAWS = {
    "uniform": paths.Uniform(),
    "part": paths.Uniform(0.2, 0.6),
    "logit-normal": paths.LogitNormal(0.0, 1.0),
    "EDM": paths.LogNormal(-1.2, 1.2),
    "wide": paths.LogNormal(0.0, 3.0),
    "beta": paths.Beta(1.5, 1.0),
}


def draws(law, path):
    return array(law(path, (DRAWS,), 0))


@pytest.mark.parametrize("law", LAWS)
def test_laws_draw_trained_times(case, law):
    path = PATHS[case]
    if case == "bridge" and law in ("EDM", "wide"):
        pytest.skip("a bridge has no ratio of noise to data")
    t = draws(LAWS[law], path)
    low, high = sorted(float32([path.t_last, path.t_noise]))
    assert low <= t.min() and t.max() <= high
    # A law of all levels reaches near both ends.
    if law == "uniform":
        assert path.level(t).min() < 1e-3 + path.level(path.t_last)
        assert path.level(t).max() > 0.999


def test_any_law_is_held_within_the_range(case):
    path = PATHS[case]
    away = path.t_noise + 0.1 * (path.t_noise - path.t_data)

    class Beyond(paths.TimeLaw):
        def draw(self, interpolant, shape, seed):
            return ops.full(shape, away)

    assert np.all(draws(Beyond(), path) == float32(path.t_noise))


def test_the_uniform_law_is_even_in_levels(case):
    path = PATHS[case]
    u = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    for law, expected in (("uniform", u), ("part", 0.2 + 0.4 * u)):
        level = path.level(draws(LAWS[law], path).astype("float64"))
        found = np.quantile(level, u)
        # The first timestep of a chain has what lies below it.
        np.testing.assert_allclose(found, expected, atol=0.01)


def test_laws_of_levels_are_the_same_on_every_path(case):
    path, plain = PATHS[case], paths.Linear(1.0)
    for name in ("part", "logit-normal", "beta"):
        level = draws(LAWS[name], plain)
        if case in CHAINS:
            level = np.maximum(level, path.t_last)
        # Float32 of a level, back from a time.
        np.testing.assert_allclose(
            path.level(draws(LAWS[name], path)), level, atol=5e-6
        )


def test_noise_of_uniform_times_on_the_exploding_path():
    """Even in sigma, 98 % were above 1.6 and 1.3 % below 1."""
    t = draws(LAWS["uniform"], PATHS["ve"])
    level = (np.array([1.0, 1.6]) ** (1 / 7) - 0.002 ** (1 / 7)) / (
        80.0 ** (1 / 7) - 0.002 ** (1 / 7)
    )
    np.testing.assert_allclose(level, [0.403, 0.451], atol=1e-3)
    assert abs(np.mean(t < 1.0) - level[0]) < 0.01
    assert abs(np.mean(t > 1.6) - (1.0 - level[1])) < 0.01
