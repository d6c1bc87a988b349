"""The shape of a sampler: a float64 time grid and one pure step.

A one-step sampler gives `step`. A multistep solver, which looks back at
predictions of earlier steps, gives `advance`, whose `state` holds them.
"""

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
        adaptive: whether the steps depend on the data.
        grid: name of the time grid, or a sequence of times; None for the
            interpolant's own, `default_grid`.
        in_log_snr: whether it solves in log(alpha / sigma): its default grid
            is then the interpolant's `log_snr_grid`.
        shift: time shift of the grid, 1.0 for none.
        calls: at which times `step` calls the model: "start" (t), "ends" (t
            and r), "between" (anywhere from t to r) or "anywhere". Steps
            that call it outside a guidance interval only cost no second
            network call.
        history: of how many earlier steps `advance` looks at predictions.
    """

    order = None
    stochastic = False
    adaptive = False
    grid = None
    in_log_snr = False
    shift = 1.0
    calls = "between"
    history = 0

    def times(self, interpolant, num_steps):
        """The float64 NumPy grid of num_steps + 1 times."""
        grid = self.grid
        if grid is None and self.in_log_snr:
            grid = interpolant.log_snr_grid
        return time_grid(interpolant, num_steps, grid, self.shift)

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

    def advance(self, model, x, t, r, noise, state, left):
        """`step` with a memory: (the state at r, what later steps need).

        Args:
            model, x, t, r, noise: as in `step`.
            state: tuple of tensors, of equal shapes from step to step once
                `history` steps are done; that of `begin` at the start.
            left: Python int, how many steps follow, counted up to
                max(1, `history`); 0 in the last one.
        """
        return self.step(model, x, t, r, noise, left == 0), state

    def begin(self, interpolant, num_steps):
        """The `state` of the first step; a tuple of NumPy numbers."""
        return ()

    def walk(self, advance, interpolant, x, noises, num_steps, progress=None):
        """Run `advance(x, t, r, noise, state, left)` over the grid.

        It may be compiled: times enter as tensors, so one trace serves
        every step of every grid.
        """
        times = self.times(interpolant, num_steps).astype(
            keras.backend.standardize_dtype(x.dtype)
        )
        pairs = zip(times[:-1], times[1:], strict=True)
        state = self.begin(interpolant, num_steps)
        for i, (t, r) in enumerate(pairs):
            noise = noises[i] if self.stochastic else None
            left = min(len(times) - 2 - i, max(1, self.history))
            x, state = advance(x, t, r, noise, state, left)
            if progress is not None:
                progress()
        return x

    def unrolled(self, model, x, num_steps):
        """All steps in one graph, for export: the samples from x at t_noise.

        Only for samplers that are not `stochastic`.
        """

        def advance(x, t, r, noise, state, left):
            t, r = batch_of(float(t), x), batch_of(float(r), x)
            return self.advance(model, x, t, r, noise, state, left)

        return self.walk(advance, model.interpolant, x, None, num_steps)


def batch_of(time, x):
    """A scalar time as a (B,) tensor in the dtype of x."""
    # `ops.cast` would round a Python number to float32 on its way.
    return ops.full(ops.shape(x)[:1], 1.0, dtype=x.dtype) * (
        ops.convert_to_tensor(time, dtype=x.dtype)
    )
