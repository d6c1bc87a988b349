"""Exact models sampled at their defaults: samples, times and calls."""

import dataclasses
import functools

import exact
import numpy as np
import pytest
from exact import PATHS
from keras import ops
from rows import ROWS
from rows import cells
from rows import trained_for
from rows import trained_times
from rows import training_calls

ROWS_FIXED, ROWS_RANDOM = 64, 20_000
# Of the deviation of the data.
TOL = 0.02
CASES = [
    pytest.param(name, path, must, steps, id=f"{name}-{path}-{steps}")
    for name, path, must in cells()
    for steps in ROWS[name].steps
]
ONCE = [
    pytest.param(name, path, must, id=f"{name}-{path}")
    for name, path, must in cells()
]


@functools.lru_cache(maxsize=None)
def build(name, path, must, steps):
    """The model, or None where the construction refuses the path."""
    row = ROWS[name]
    try:
        return row.build(path, **trained_for(row, steps))
    except ValueError as error:
        if must or "interpolant" not in str(error):
            raise
        return None


@dataclasses.dataclass
class Run:
    z: np.ndarray
    x: np.ndarray
    calls: list


@functools.lru_cache(maxsize=None)
def run(name, path, must, steps):
    """Samples from even noise; skips where the path is refused."""
    model, row = build(name, path, must, steps), ROWS[name]
    if model is None:
        pytest.skip("refused at construction")
    random = row.random and steps > 1
    z = exact.even_noise(ROWS_RANDOM if random else ROWS_FIXED)
    noise = z
    if row.kind == "bridge":
        noise = np.array(exact.START_MEAN) + np.array(exact.START_STD) * z
    with exact.recording() as calls:
        x = model.generate(
            noise=noise.astype("float32"), num_steps=steps, seed=0
        )
    layer = exact.exact_layer(model.network)
    return Run(
        z,
        ops.convert_to_numpy(x).astype("float64"),
        [call for call in calls if call.layer is layer],
    )


def expected(name, path, z):
    """Where the exact model leads from the noise z."""
    mean, std = np.array(exact.MEAN), np.array(exact.STD)
    if ROWS[name].kind != "policy":
        return mean + std * z
    if name != "tsd":
        return mean + 0.0 * z
    # E[a | 0.9 m + 0.1 z] at t = 0.9.
    var = (0.9 * std) ** 2 + 0.1**2
    return mean + 0.9 * std**2 / var * 0.1 * z


def moments(x):
    return np.stack([x.mean(0), x.std(0)])


@pytest.mark.parametrize("name, path, must, steps", CASES)
def test_samples_are_the_closed_form(name, path, must, steps):
    """Moments within 2 % of the data's deviation, and each sample from its z.

    Euler's error falls as 1 / steps. Samplers that draw noise have that of
    20,000 samples, 0.5 %. What a path leaves of the noise at its end is no
    fault of the model.
    """
    row = ROWS[name]
    found = run(name, path, must, steps)
    std = np.array(exact.STD)
    tol = TOL
    if path in PATHS:
        tol = tol + PATHS[path].end_ratio
    if row.kind in ("flow", "bridge") and row.order == 1 and not row.random:
        tol = max(tol, 3.0 / steps)
    if row.random and steps > 1:
        tol = tol + 4 / (2 * ROWS_RANDOM) ** 0.5
    want = expected(name, path, found.z)
    error = (moments(found.x) - moments(want)) / std
    assert np.abs(error).max() < tol, (moments(found.x), moments(want))
    if not row.random or steps == 1:
        each = np.sqrt(np.mean((found.x - want) ** 2, axis=0)) / std
        assert each.max() < 2.0 * tol, each


@pytest.mark.parametrize("name, path, must, steps", CASES)
def test_calls_are_as_many_as_promised(name, path, must, steps):
    calls = run(name, path, must, steps).calls
    assert len(calls) == ROWS[name].calls(steps)


@pytest.mark.parametrize("name, path, must, steps", CASES)
def test_sampled_times_are_trained(name, path, must, steps):
    """Among those of the training, or between the ends of the path."""
    row = ROWS[name]
    calls = run(name, path, must, steps).calls
    if row.kind == "bridge":
        low, high = 1e-3, 1.0 - 1e-3
    else:
        ends = PATHS[path].t_noise, PATHS[path].t_last
        low, high = min(ends), max(ends)
    for call in calls:
        # One time for the whole batch.
        assert np.ptp(call.t) == 0.0
        for time in (call.t, call.r):
            if time is not None:
                at = time[0]
                assert low * (1 - 1e-5) <= at <= high * (1 + 1e-5), at
    times = np.array([call.t[0] for call in calls])
    if row.kind in ("map", "end", "step"):
        # There is nothing left to do at the last level.
        last = PATHS[path].t_last
        assert np.all(np.abs(times - last) > 1e-6), times
    if row.fixed:
        known = trained_times(build(name, path, must, steps))
        gap = np.abs(known[None] - times[:, None]).min(axis=1)
        assert np.all(gap <= 1e-4 * np.abs(times) + 1e-6), (times, known)


@pytest.mark.parametrize("name, path, must", ONCE)
def test_trained_times_are_on_the_path(name, path, must):
    """The law of times at its defaults, and levels where there are such."""
    row = ROWS[name]
    steps = row.steps[-1]
    model = build(name, path, must, steps)
    if model is None:
        pytest.skip("refused at construction")
    if row.kind == "bridge":
        pytest.skip("a batch has two ends; see test_bridge_times")
    calls = training_calls(model)
    assert calls
    ends = PATHS[path].t_noise, PATHS[path].t_last
    low, high = min(ends), max(ends)
    for call in calls:
        for time in (call.t, call.r):
            if time is not None:
                assert time.min() >= low * (1 - 1e-4), time.min()
                assert time.max() <= high * (1 + 1e-4), time.max()
    if row.kind == "step":
        levels = np.sort(PATHS[path].levels(steps)[:-1])
        np.testing.assert_allclose(trained_times(model), levels, rtol=1e-4)
