"""Time grids, in float64 NumPy, from `t_noise` to `t_data`."""

import numpy as np

from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.ops import eager_float64
from keras_flows.samplers.exponential import starts_without_signal

GRIDS = ("uniform", "karras", "log_snr", "cosine")
# Where sigma / alpha is 0 or infinite at an end of the path, grids in it run
# to this noise level, and from 1 minus it.
_EDGE = 1e-3


def time_grid(
    interpolant, num_steps, grid=None, shift=1.0, rho=7.0, start=None
):
    """num_steps + 1 times, with falling noise levels, of a solver.

    - "uniform": even in the noise level (`Interpolant.level`): in t on most
      paths, Karras's levels on `VarianceExploding`.
    - "cosine": level cos(pi u / 2), u even: dense near the noise, as for
      flow matching (arXiv 2407.05407).
    - "karras": even in (sigma / alpha)^(1/rho) (arXiv 2206.00364).
    - "log_snr": even in log(alpha / sigma) (arXiv 2206.00927).

    The last two run over all sigma / alpha of the path. Where it has no
    largest (`Linear`, `Trigonometric`, `TrigFlow`) they start from `t_noise`
    as if from the level 0.999, and where it has no least the step before
    the last ends at 0.001.

    On `DiscreteVariancePreserving` all are whole timesteps, no two the same,
    from T - 1 to 0: "uniform" those of `timesteps`, the others as evenly as
    whole timesteps allow. Near the data these lie far apart in log-SNR: there
    one after the other is taken, and what is left is spread over the others.

    Where `t_last` is not `t_data`, num_steps times run from `t_noise` to
    `t_last`, and the last step goes from there to `t_data`, so no network is
    called beyond `t_last`.

    Args:
        interpolant: an `Interpolant`.
        num_steps: int, at least 1.
        grid: one of the above, None for "uniform", or the times themselves:
            from `t_noise` to `t_data`, or to a time from `t_last` on. They may
            start after `t_noise`, where there is more noise than data: x is
            then taken to be that noise, as DDIM's "leading" timesteps do.
            Solvers in log(alpha / sigma) that are given none take the
            path's `log_snr_grid`.
        shift: time shift of the noise levels, l -> shift l / (1 + (shift -
            1) l). On the chain it acts on k / (T - 1), k the timestep.
        rho: exponent of the "karras" grid.
        start: the first time, None for `t_noise`. What a grid is even in runs
            from there; `shift` is that of the whole path.

    Raises:
        ValueError: on an unknown grid, a grid that does not run from noise
            to data, more steps than there are timesteps, or num_steps < 1.
    """
    grid = _checked(interpolant, num_steps, grid, shift, start)
    if not isinstance(grid, str):
        return grid
    path = interpolant
    if isinstance(path, DiscreteVariancePreserving):
        if grid == "uniform" and start is None:
            index = path.timesteps(num_steps, shift)[::-1] + 1
        else:
            known = np.arange(1, path.num_timesteps + 1)
            index = _spread(path, known, num_steps, grid, shift, rho, start)
        return np.append(index / path.num_timesteps, path.t_data)
    stops = path.t_last != path.t_data or grid in ("karras", "log_snr")
    points = num_steps if stops else num_steps + 1
    times = _times(path, points, grid, shift, rho, start)
    if stops:
        return np.append(times, path.t_data)
    times[-1] = path.t_data
    return times


def jump_grid(
    interpolant, num_steps, grid=None, shift=1.0, rho=7.0, start=None
):
    """num_steps + 1 times of a model that jumps: N calls are N jumps.

    The grids of `time_grid`, but each ends where the path does: the last
    jump goes from a time at which there is noise to level 0, which such a
    model holds to be the data (`t_last`; `t_data` on the chain, whose
    `t_last` is still a timestep). A call at `t_last` would change nothing.
    On the chain "uniform" are the timesteps nearest to the levels i / N.

    Args:
        interpolant, num_steps, shift, rho, start: as in `time_grid`.
        grid: as in `time_grid`; times that are given may end at `t_last` or
            at `t_data`.

    Raises:
        ValueError: as `time_grid`.
    """
    grid = _checked(interpolant, num_steps, grid, shift, start)
    if not isinstance(grid, str):
        return grid
    path = interpolant
    if not isinstance(path, DiscreteVariancePreserving):
        times = _times(path, num_steps + 1, grid, shift, rho, start)
        times[-1] = path.t_last
        return times
    known = np.arange(path.num_timesteps + 1)
    index = _spread(path, known, num_steps + 1, grid, shift, rho, start)
    return index / path.num_timesteps


def _times(path, points, grid, shift, rho, start):
    """`points` times from `start`, the last at level 0."""
    start = path.t_noise if start is None else start
    top = path.level(start)
    # The level before the shift.
    top = top / (shift - (shift - 1.0) * top)
    u = np.linspace(1.0, 0.0, points) if points > 1 else np.ones(1)
    if grid == "uniform":
        levels = top * u
    elif grid == "cosine":
        levels = np.sin(np.arcsin(top) * u)
    else:
        levels = _by_ratio(path, u, grid, rho, top)
    levels = shift * levels / (1.0 + (shift - 1.0) * levels)
    times = path.time_of_level(levels)
    times[0] = start
    return times


def _by_ratio(path, u, grid, rho, top):
    """Noise levels whose sigma / alpha is spaced as `grid` says, from `top`."""
    low = 0.0 if path.t_last != path.t_data else min(_EDGE, 0.5 * top)
    ends = path.time_of_level(np.array([low, min(top, _highest(path))]))
    with eager_float64() as number:
        ratios = number(lambda t: path.sigma(t) / path.alpha(t), ends)
        if grid == "karras":
            low, high = ratios ** (1.0 / rho)
            ratios = (low + u * (high - low)) ** rho
        else:
            low, high = np.log(ratios)
            ratios = np.exp(low + u * (high - low))
        return path.level(number(path.time_from_ratio, ratios))


def _highest(path):
    """The level from which grids in sigma / alpha start."""
    return 1.0 - _EDGE if starts_without_signal(path) else 1.0


def _spread(path, known, points, grid, shift, rho, start):
    """`points` of the whole indices `known` of a chain, falling from `start`.

    An index is T times its time. From the data on, the next one is that
    nearest to an even share of what is left, and never the same twice.
    """
    place = _places(path, known, grid, shift, rho)
    if start is not None:
        kept = known <= round(start * path.num_timesteps)
        known, place = known[kept], place[kept]
    if points > len(known):
        ends = int(known[0] == 0)
        raise ValueError(
            "`num_steps` must leave a timestep of its own to each step: "
            f"there are {len(known) - ends} (`num_timesteps`). "
            f"Received: num_steps={points - ends}."
        )
    chosen = [0] if points > 1 else []
    for left in range(points - 1, 1, -1):
        now = chosen[-1]
        ideal = place[now] + (place[-1] - place[now]) / left
        nearest = int(np.abs(place - ideal).argmin())
        chosen.append(min(max(nearest, now + 1), len(known) - left))
    return known[[len(known) - 1, *chosen[::-1]]]


def _places(path, known, grid, shift, rho):
    """What `grid` is even in, rising, at the indices `known` of a chain."""
    first, last = known[0], known[-1]
    share = (known - first) / (last - first)
    # The levels before the shift.
    share = share / (shift - (shift - 1.0) * share)
    if grid == "uniform":
        return share
    if grid == "cosine":
        return np.arcsin(share)
    count = path.num_timesteps
    # Log-SNR is infinite at the data itself: it counts as half a step away.
    index = np.maximum(first + share * (last - first), 0.5)
    times = np.minimum(index / count, _highest(path))
    with eager_float64() as number:
        ratios = number(lambda t: path.sigma(t) / path.alpha(t), times)
    return ratios ** (1.0 / rho) if grid == "karras" else np.log(ratios)


def _checked(path, num_steps, grid, shift, start):
    """The name of a grid, or times that were given, checked."""
    if (
        isinstance(num_steps, bool)
        or not isinstance(num_steps, (int, np.integer))
        or num_steps < 1
    ):
        raise ValueError(
            "`num_steps` must be an int of at least 1. "
            f"Received: {num_steps!r}."
        )
    if not shift > 0:
        raise ValueError(f"`shift` must be positive. Received: {shift!r}.")
    if grid is None:
        return "uniform"
    if not isinstance(grid, str):
        return _given(path, num_steps, grid, start)
    if grid not in GRIDS:
        raise ValueError(
            f"Unknown `grid`: {grid!r}. Known: {', '.join(GRIDS)}, or a "
            "sequence of times."
        )
    return grid


def refuse_start(start, what):
    """Refuse a start where a model knows the times of its training only."""
    if start is not None:
        raise ValueError(
            f"`start` is not defined for {what}, which is trained to start "
            f"from noise alone. Received: t={start}."
        )


def _given(path, num_steps, grid, start):
    try:
        times = np.asarray(grid, dtype="float64")
    except (TypeError, ValueError):
        times = np.empty((0, 0))
    if times.ndim != 1 or len(times) != num_steps + 1:
        raise ValueError(
            "`grid` must be a name, or a sequence of num_steps + 1 times; for "
            f"num_steps={num_steps} give {num_steps + 1}, or leave `grid` "
            f"out. Received: {grid!r}."
        )
    ends = f"{path.t_noise} to {path.t_data}"
    if path.t_last != path.t_data:
        ends += f" (or {path.t_last})"
    remedy = (
        f"Give times that run from noise to data, from t={ends}, each nearer "
        f"to the data than the one before, or a name: {', '.join(GRIDS)}."
    )
    moves = path.toward_data(times[:-1], times[1:]) & (np.diff(times) != 0)
    if not np.all(moves):
        at = int(np.argmin(moves))
        raise ValueError(
            "`grid` must not stand still or go back towards the noise. "
            f"Received: {times[at]} followed by {times[at + 1]} in "
            f"{times.tolist()}. {remedy}"
        )
    # Times may come rounded to float32.
    begin = path.t_noise if start is None else start
    first = np.isclose(times[0], begin, rtol=1e-6, atol=1e-12)
    if start is None and not first:
        first = _mostly_noise(path, times[0])
    last = np.isclose(times[-1], path.t_last, rtol=1e-6, atol=0.0) or (
        path.toward_data(path.t_last, times[-1])
        and path.toward_data(times[-1], path.t_data)
    )
    if not (first and last):
        what = (
            "The last time of `grid` is not an end of the path"
            if first
            else "The first time of `grid` is one where x is mostly data; to "
            "start from data with noise on it, pass `start=(x, t)`"
            if start is None
            else f"The first time of `grid` is not that of `start`, {start}"
        )
        raise ValueError(
            f"{what}. Received: {times[-1 if first else 0]} in "
            f"{times.tolist()}. {remedy}"
        )
    return times


def _mostly_noise(path, t):
    """Whether noise, started from at t, is near enough to x_t."""
    if not path.gaussian or not path.toward_data(path.t_noise, t):
        return False
    with eager_float64() as number:
        alpha, sigma = (float(number(f, t)) for f in (path.alpha, path.sigma))
    return alpha <= sigma
