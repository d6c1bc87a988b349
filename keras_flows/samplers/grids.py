"""Time grids, in float64 NumPy, from `t_noise` to `t_data`."""

import numpy as np

from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.interpolants import VarianceExploding

GRIDS = ("uniform", "karras")


def time_grid(interpolant, num_steps, grid="uniform", shift=1.0, rho=7.0):
    """num_steps + 1 decreasing noise levels, as times.

    "uniform" is uniform in t, on `DiscreteVariancePreserving` rounded to
    whole timesteps. "karras" is uniform in sigma^(1/rho) on
    `VarianceExploding` (arXiv 2206.00364). Where the interpolant is singular
    at its data end, the grid stops at `t_last` and the last step goes from
    there to `t_data`, so no network is called beyond `t_last`.

    Args:
        interpolant: an `Interpolant`.
        num_steps: int, at least 1.
        grid: "uniform", "karras", or the times themselves.
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
    if not isinstance(grid, str):
        return _given(interpolant, num_steps, grid)
    if grid not in GRIDS:
        raise ValueError(
            f"Unknown `grid`: {grid!r}. Known: {', '.join(GRIDS)}, or a "
            "sequence of times."
        )
    discrete = isinstance(interpolant, DiscreteVariancePreserving)
    if discrete and grid == "uniform":
        k = interpolant.timesteps(num_steps, shift)[::-1]
        return np.append((k + 1) / interpolant.num_timesteps, 0.0)
    singular = interpolant.t_last != interpolant.t_data
    points = num_steps if singular else num_steps + 1
    fraction = np.linspace(1.0, 0.0, points) if points > 1 else np.ones(1)
    if grid == "karras":
        if not isinstance(interpolant, VarianceExploding):
            raise ValueError(
                "The 'karras' grid is defined on VarianceExploding. "
                f"Received: {interpolant}."
            )
        low, high = (
            s ** (1 / rho)
            for s in (interpolant.sigma_min, interpolant.sigma_max)
        )
        fraction = interpolant.noise_fraction(
            (low + fraction * (high - low)) ** rho
        )
    fraction = shift * fraction / (1.0 + (shift - 1.0) * fraction)
    times = interpolant.time_from_fraction(fraction)
    # Exact ends: the affine map rounds.
    times[0] = interpolant.t_noise
    if singular:
        return np.append(times, interpolant.t_data)
    times[-1] = interpolant.t_data
    return times


def _given(interpolant, num_steps, grid):
    times = np.asarray(grid, dtype="float64")
    if times.ndim != 1 or len(times) != num_steps + 1:
        raise ValueError(
            "`grid` must hold num_steps + 1 times. Received "
            f"{times.shape} times for num_steps={num_steps}."
        )
    onward = interpolant.toward_data(times[:-1], times[1:])
    if not np.all(onward) or np.any(np.diff(times) == 0):
        raise ValueError(
            "`grid` must run from noise to data without standing still: "
            f"from t={interpolant.t_noise} to t={interpolant.t_data}. "
            f"Received: {times.tolist()}."
        )
    return times
