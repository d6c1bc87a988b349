"""Time grids, in float64 NumPy, from `t_noise` to `t_data`."""

import numpy as np

from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.ops import eager_float64
from keras_flows.samplers.exponential import starts_without_signal

GRIDS = ("uniform", "karras", "log_snr", "cosine")
# Where sigma / alpha is 0 or infinite at an end of the path, grids in it run
# to this noise fraction, and from 1 minus it.
_EDGE = 1e-3


def time_grid(interpolant, num_steps, grid=None, shift=1.0, rho=7.0):
    """num_steps + 1 decreasing noise levels, as times.

    - "uniform": uniform in t, on `DiscreteVariancePreserving` rounded to
      whole timesteps.
    - "cosine": noise fraction cos(pi u / 2), u uniform: dense near the
      noise, as for flow matching (arXiv 2407.05407).
    - "karras": uniform in (sigma / alpha)^(1/rho) (arXiv 2206.00364).
    - "log_snr": uniform in log(alpha / sigma) (arXiv 2206.00927).

    The last two run over all sigma / alpha of the path. Where it has no
    largest (`Linear`, `Trigonometric`, `TrigFlow`) they start from `t_noise`
    as if from the noise fraction 0.999, and where it has no least the step
    before the last ends at 0.001. Their times are not whole timesteps.

    A grid that would end where the interpolant is singular stops at
    `t_last`, and the last step goes from there to `t_data`, so no network is
    called beyond `t_last`.

    Args:
        interpolant: an `Interpolant`.
        num_steps: int, at least 1.
        grid: one of the above, or the times themselves: from `t_noise` to
            `t_data`, or to a time from `t_last` on. None for
            `interpolant.default_grid`: "karras" on `VarianceExploding`,
            whose time is the noise level, "uniform" on the others.
            Solvers in log(alpha / sigma) take its `log_snr_grid`.
        shift: time shift f -> shift f / (1 + (shift - 1) f).
        rho: exponent of the "karras" grid.

    Raises:
        ValueError: on an unknown grid, a grid that does not run from noise
            to data, or num_steps < 1.
    """
    if (
        isinstance(num_steps, bool)
        or not isinstance(num_steps, (int, np.integer))
        or num_steps < 1
    ):
        raise ValueError(
            "`num_steps` must be an int of at least 1. "
            f"Received: {num_steps!r}."
        )
    if grid is None:
        grid = interpolant.default_grid
    if not isinstance(grid, str):
        return _given(interpolant, num_steps, grid)
    if grid not in GRIDS:
        raise ValueError(
            f"Unknown `grid`: {grid!r}. Known: {', '.join(GRIDS)}, or a "
            "sequence of times."
        )
    if not shift > 0:
        raise ValueError(f"`shift` must be positive. Received: {shift!r}.")
    discrete = isinstance(interpolant, DiscreteVariancePreserving)
    if discrete and grid == "uniform":
        k = interpolant.timesteps(num_steps, shift)[::-1]
        return np.append((k + 1) / interpolant.num_timesteps, 0.0)
    by_ratio = grid in ("karras", "log_snr")
    stops = by_ratio or interpolant.t_last != interpolant.t_data
    points = num_steps if stops else num_steps + 1
    fraction = np.linspace(1.0, 0.0, points) if points > 1 else np.ones(1)
    if grid == "cosine":
        fraction = np.sin(0.5 * np.pi * fraction)
    elif by_ratio:
        fraction = _by_ratio(interpolant, fraction, grid, rho)
    fraction = shift * fraction / (1.0 + (shift - 1.0) * fraction)
    times = interpolant.time_from_fraction(fraction)
    # Exact ends: the affine map rounds.
    times[0] = interpolant.t_noise
    if stops:
        return np.append(times, interpolant.t_data)
    times[-1] = interpolant.t_data
    return times


def _by_ratio(interpolant, u, grid, rho):
    """Noise fractions whose sigma / alpha is spaced as `grid` says."""
    path = interpolant
    low = 0.0 if path.t_last != path.t_data else _EDGE
    high = 1.0 - _EDGE if starts_without_signal(path) else 1.0
    ends = path.time_from_fraction(np.array([low, high]))
    with eager_float64() as number:
        ratios = number(lambda t: path.sigma(t) / path.alpha(t), ends)
        if grid == "karras":
            low, high = ratios ** (1.0 / rho)
            levels = (low + u * (high - low)) ** rho
        else:
            low, high = np.log(ratios)
            levels = np.exp(low + u * (high - low))
        return path.noise_fraction(number(path.time_from_ratio, levels))


def _given(interpolant, num_steps, grid):
    times = np.asarray(grid, dtype="float64")
    if times.ndim != 1 or len(times) != num_steps + 1:
        raise ValueError(
            "`grid` must hold num_steps + 1 times. Received "
            f"{times.shape} times for num_steps={num_steps}."
        )
    path = interpolant
    # Times may come rounded to float32.
    first = np.isclose(times[0], path.t_noise, rtol=1e-6, atol=0.0)
    last = np.isclose(times[-1], path.t_last, rtol=1e-6, atol=0.0) or (
        path.toward_data(path.t_last, times[-1])
        and path.toward_data(times[-1], path.t_data)
    )
    onward = np.all(path.toward_data(times[:-1], times[1:]))
    if not (first and last and onward and np.all(np.diff(times) != 0)):
        end = "" if path.t_last == path.t_data else f" (or t={path.t_last})"
        raise ValueError(
            "`grid` must run from noise to data without standing still: "
            f"from t={path.t_noise} to t={path.t_data}{end}. "
            f"Received: {times.tolist()}."
        )
    return times
