"""The shape of a sampler: a float64 time grid and one pure step."""

import keras
from keras import ops

from keras_flows.ops import Config
from keras_flows.samplers.grids import time_grid


class Sampler(Config):
    """Walks a grid of times from `t_noise` to `t_data`, one step at a time.

    Attributes:
        order: global order of convergence in the step size (for a solver of
            an ODE; weak order for one of an SDE), None where it has none.
        stochastic: whether `step` takes noise.
        grid: name of the time grid, or a sequence of times.
        shift: time shift of the grid, 1.0 for none.
        calls: at which times `step` calls the model: "start" (t), "ends" (t
            and r) or "between" (anywhere from t to r). Steps that call it
            outside a guidance interval only cost no second network call.
    """

    order = None
    stochastic = False
    grid = "uniform"
    shift = 1.0
    calls = "between"

    def times(self, interpolant, num_steps):
        """The float64 NumPy grid of num_steps + 1 times."""
        return time_grid(interpolant, num_steps, self.grid, self.shift)

    def step(self, model, x, t, r, noise, last):
        """The state at r from the state x at t.

        Args:
            model: a `Predictor` (or an interface).
            x: state, (B, ...).
            t: times of x, (B,).
            r: times to go to, (B,), nearer to the data.
            noise: standard normal like x, or None if not `stochastic`.
            last: Python bool, whether r is the end of the grid.
        """
        raise NotImplementedError

    def walk(self, step, interpolant, x, noises, num_steps, progress=None):
        """Run `step(x, t, r, noise, last)` over the grid.

        `step` may be compiled: times enter as tensors, so one trace serves
        every step of every grid.
        """
        times = self.times(interpolant, num_steps).astype(
            keras.backend.standardize_dtype(x.dtype)
        )
        pairs = zip(times[:-1], times[1:], strict=True)
        for i, (t, r) in enumerate(pairs):
            noise = noises[i] if self.stochastic else None
            x = step(x, t, r, noise, i == len(times) - 2)
            if progress is not None:
                progress()
        return x


def batch_of(time, x):
    """A scalar time as a (B,) tensor in the dtype of x."""
    return ops.full(ops.shape(x)[:1], 1.0, dtype=x.dtype) * ops.cast(
        time, x.dtype
    )
