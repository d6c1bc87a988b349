"""The shape of a sampler: a float64 time grid and one pure step.

A one-step sampler gives `step`. A multistep solver, which looks back at
predictions of earlier steps, gives `advance`, whose `state` holds them.
"""

import dataclasses
import itertools

from keras import ops

from keras_flows.ops import Config
from keras_flows.ops import on_state
from keras_flows.samplers.grids import time_grid


class Sampler(Config):
    """Walks a grid of times from `t_noise` to `t_data`, one step at a time.

    Attributes:
        needs: what the model must predict: "velocity", "score", "data" (the
            mean E[x | x_t] of a path from Gaussian noise), "map" (the flow
            map), "end" (where the flow ends) or "action".
        order: global order of convergence in the step size (for a solver of
            an ODE; weak order for one of an SDE), None where it has none.
        stochastic: whether `step` takes noise.
        adaptive: whether the steps depend on the data.
        reversible: whether `step` leads from data to noise as well, as
            `Generator.encode` needs.
        grid: name of the time grid, or a sequence of times; None for the
            interpolant's own.
        in_log_snr: whether it solves in log(alpha / sigma): its default grid
            is then the interpolant's `log_snr_grid`.
        shift: time shift of the grid, 1.0 for none.
        calls: at which times `step` calls the model: "start" (t), "ends" (t
            and r), "between" (anywhere from t to r) or "anywhere". Steps
            that call it outside a guidance interval only cost no second
            network call.
        history: of how many earlier steps `advance` looks at predictions.
        last_differs: whether `step` looks at `last`. Where it does not, one
            compiled step serves for all.
    """

    needs = ("velocity",)
    order = None
    stochastic = False
    adaptive = False
    reversible = False
    grid = None
    in_log_snr = False
    shift = 1.0
    calls = "between"
    history = 0
    last_differs = True

    def times(self, interpolant, num_steps, start=None):
        """The float64 NumPy grid of num_steps + 1 times.

        `start`: the first of them; None for `t_noise`, or what `grid` says.
        """
        grid = self.grid
        if grid is None and self.in_log_snr:
            grid = interpolant.log_snr_grid
        return time_grid(interpolant, num_steps, grid, self.shift, start=start)

    def draws(self, num_steps):
        """Whether so many steps take any noise."""
        return self.stochastic

    def step(self, model, x, t, r, noise, last):
        """The state at r from the state x at t.

        Args:
            model: a predictor, such as `samplers.Bound`.
            x: state, (B, ...).
            t: times of x, (B,); `on_step` takes a number as well.
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

    def steps(self, times):
        """(t, r, left) of each step on a grid; see `advance`."""
        for i, (t, r) in enumerate(itertools.pairwise(times)):
            yield t, r, min(len(times) - 2 - i, max(1, self.history))

    def step_key(self):
        """What one step depends on: all options but those of the grid."""
        return (type(self).__name__,) + tuple(
            (field.name, repr(getattr(self, field.name)))
            for field in dataclasses.fields(self)
            if field.name not in ("grid", "shift")
        )

    def unrolled(self, model, x, num_steps):
        """All steps in one graph: the samples from x at t_noise.

        Only for samplers that are not `stochastic`.
        """
        times = self.times(model.interpolant, num_steps)
        return self.unrolled_on(times, lambda t, r: model, x, num_steps)

    def unrolled_on(self, times, model_at, x, num_steps, noises=None):
        """`unrolled` on given times.

        Args:
            times: a grid of `times`.
            model_at: function of the numbers t and r to the predictor of that
                step.
            x: state at times[0], (B, ...).
            num_steps: int.
            noises: standard normal tensors like x, one for each step, for a
                stochastic sampler.
        """
        state = None
        for i, (t, r, left) in enumerate(self.steps(times)):
            model = model_at(float(t), float(r))
            if state is None:
                state = self.begin(model.interpolant, num_steps)
            ends = batch_of(float(t), x), batch_of(float(r), x)
            noise = None if noises is None else noises[i]
            x, state = self.advance(model, x, *ends, noise, state, left)
        return x


def on_step(x, t, r, noise):
    """What a step is given, as tensors; numbers are times of all examples."""
    x, t, r = on_state(x, t, r)
    if noise is not None:
        noise = ops.convert_to_tensor(noise, dtype=x.dtype)
    return x, t, r, noise


def batch_of(time, x):
    """A scalar time as a (B,) tensor in the dtype of x."""
    # `ops.cast` would round a Python number to float32 on its way.
    return ops.full(ops.shape(x)[:1], 1.0, dtype=x.dtype) * (
        ops.convert_to_tensor(time, dtype=x.dtype)
    )
