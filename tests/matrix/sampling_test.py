"""Exact models sampled at their defaults: samples, times and calls."""

import dataclasses
import functools

import exact
import laws
import numpy as np
import pytest
from keras import ops
from laws import PATHS
from rows import ROWS
from rows import cells
from rows import trained_for
from rows import trained_times
from rows import training_calls

FEW = 64
# Of the deviation of the data.
TOL = 0.02
CASES = [
    pytest.param(name, path, must, id=f"{name}-{path}")
    for name, path, must in cells()
]


@functools.lru_cache(maxsize=None)
def _build(name, path, must, trained):
    row = ROWS[name]
    try:
        return row.build(path, **dict(trained))
    except ValueError as error:
        if must or "interpolant" not in str(error):
            raise
        return None


def build(name, path, must, steps):
    """The model; skips where the construction refuses the path."""
    trained = trained_for(ROWS[name], steps)
    model = _build(name, path, must, tuple(trained.items()))
    if model is None:
        pytest.skip("refused at construction")
    return model


@dataclasses.dataclass
class Run:
    z: np.ndarray
    x: np.ndarray
    calls: list


@functools.lru_cache(maxsize=None)
def run(name, path, must, steps):
    """Samples from even noise, and the calls of the network."""
    model, row = build(name, path, must, steps), ROWS[name]
    z = laws.even_noise(count(row, steps))
    noise = z
    if row.kind == "bridge":
        noise = np.array(laws.START_MEAN) + np.array(laws.START_STD) * z
    with exact.recording() as calls:
        x = model.generate(
            noise=noise.astype("float32"), num_steps=steps, seed=0
        )
    layer = exact.exact_layer(model.network)
    x = ops.convert_to_numpy(x).astype("float64")
    return Run(z, x, [call for call in calls if call.layer is layer])


def expected(name, z):
    """Where the exact model leads from the noise z."""
    mean, std = np.array(laws.MEAN), np.array(laws.STD)
    if ROWS[name].kind != "policy":
        return mean + std * z
    if name != "tsd":
        return mean + 0.0 * z
    # E[a | 0.9 m + 0.1 z] at t = 0.9.
    var = (0.9 * std) ** 2 + 0.1**2
    return mean + 0.9 * std**2 / var * 0.1 * z


def count(row, steps):
    """How many samples: many where noise is drawn."""
    if not row.random or steps == 1:
        return FEW
    return 20_000 if steps <= 4 else 5_000


def tolerance(row, path, steps):
    """2 % and what is no fault of the model.

    What the path leaves of the noise at its end; an ODE solver's error with
    few steps; four standard errors of the moments of many samples.
    """
    tol = TOL + (PATHS[path].end_ratio if path in PATHS else 0.0)
    if row.kind in ("flow", "bridge") and not row.random:
        tol = max(tol, 3.0 / steps if row.order == 1 else 20.0 / steps**2)
    if row.random and steps > 1:
        tol = tol + 4 / (2 * count(row, steps)) ** 0.5
    return tol


def text(x):
    return np.array2string(np.asarray(x), precision=4)


@pytest.mark.parametrize("name, path, must", CASES)
def test_samples_are_the_closed_form(name, path, must):
    """Mean and deviation, and where no noise is drawn each sample."""
    row, wrong = ROWS[name], []
    for steps in row.steps:
        found, tol = run(name, path, must, steps), tolerance(row, path, steps)
        std, want = np.array(laws.STD), expected(name, found.z)
        error = np.array(
            [found.x.mean(0) - want.mean(0), found.x.std(0) - want.std(0)]
        )
        bad = not np.all(np.abs(error) < tol * std)
        if not row.random or steps == 1:
            each = np.sqrt(np.mean((found.x - want) ** 2, axis=0))
            bad = bad or not np.all(each < 2.0 * tol * std)
        if bad:
            wrong.append(
                f"{steps} steps: mean {text(found.x.mean(0))} std "
                f"{text(found.x.std(0))}, not {text(want.mean(0))} and "
                f"{text(want.std(0))}"
            )
    assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("name, path, must", CASES)
def test_calls_are_as_many_as_promised(name, path, must):
    row = ROWS[name]
    found = [len(run(name, path, must, n).calls) for n in row.steps]
    assert found == [row.calls(n) for n in row.steps]


@pytest.mark.parametrize("name, path, must", CASES)
def test_sampled_times_are_trained(name, path, must):
    """Among those of the training, or between the ends of the path."""
    row, wrong = ROWS[name], []
    for steps in row.steps:
        calls = run(name, path, must, steps).calls
        low, high = ends(row, path)
        times = np.array([call.t[0] for call in calls])
        assert all(np.ptp(call.t) == 0.0 for call in calls)
        ahead = [call.r[0] for call in calls if call.r is not None]
        for label, seen in (("t", times), ("r", np.array(ahead))):
            out = (seen < low * (1 - 1e-5)) | (seen > high * (1 + 1e-5))
            if out.any():
                wrong.append(f"{steps} steps: {label} {text(seen[out])}")
        if row.kind in ("map", "end", "step"):
            # There is nothing left to do at the last level.
            if np.any(np.abs(times - PATHS[path].t_last) < 1e-6):
                wrong.append(f"{steps} steps: a call at the end {text(times)}")
        if row.fixed and row.kind == "flow":
            whole = times * PATHS[path].chain
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-2)
        elif row.fixed:
            known = trained_times(build(name, path, must, steps))
            gap = np.abs(known[None] - times[:, None]).min(axis=1)
            if np.any(gap > 1e-4 * np.abs(times) + 1e-6):
                wrong.append(
                    f"{steps} steps: {text(times)}, trained {text(known)}"
                )
    assert not wrong, "; ".join(wrong)


def ends(row, path):
    """(lowest, highest) time of a network."""
    if row.kind == "bridge":
        return 1e-3, 1.0 - 1e-3
    return sorted((PATHS[path].t_noise, PATHS[path].t_last))


@pytest.mark.parametrize("name, path, must", CASES)
def test_trained_times_are_on_the_path(name, path, must):
    """The law of times at its defaults, and levels where there are such."""
    row = ROWS[name]
    steps = row.steps[-1]
    model = build(name, path, must, steps)
    low, high = ends(row, path)
    calls = training_calls(model)
    times = [v for c in calls for v in (c.t, c.r) if v is not None]
    if not times:
        # All calls are inside a derivative: the law itself.
        drawn = ops.convert_to_numpy(model.sample_t((1024,)))
        times = [drawn.astype("float64")]
    for time in times:
        assert time.min() >= low * (1 - 1e-4), (time.min(), low)
        assert time.max() <= high * (1 + 1e-4), (time.max(), high)
    if row.fixed and row.kind in ("step", "end"):
        levels, known = PATHS[path].levels(steps)[:-1], trained_times(model)
        # Of a chain, the nearest timesteps.
        tol = {"rtol": 1e-4}
        if PATHS[path].chain:
            tol = {"atol": 2.0 / PATHS[path].chain}
            whole = known * PATHS[path].chain
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-2)
        np.testing.assert_allclose(known, np.sort(levels), **tol)
