"""The loop over a sampler's steps: compiled, and kept for the next call."""

import collections
import functools

import keras
from keras import ops

from keras_flows.ops import compiled
from keras_flows.ops.bars import Bar
from keras_flows.ops.replicas import check_whole
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.base import batch_of


class Loop:
    """Compiled functions of networks, the latest `size` of them.

    It is handed predictors and layers and knows no model. A function is found
    again by its key and by the very variables that it reads: where layers have
    others since (LoRA, quantisation, another average), it is compiled anew.

    Args:
        size: how many compiled functions are kept.
    """

    @checked(size=SIZE)
    def __init__(self, size=32):
        self.size = size
        self._kept = collections.OrderedDict()
        self._sizes = {}

    def __len__(self):
        return len(self._kept)

    def function(self, key, build, reads):
        """The compiled `build()`.

        Args:
            key: hashable, all that is static in the function beside `reads`.
            build: function without arguments to the function of tensors.
            reads: the `Reads` of what it calls.
        """
        key = key, reads.key
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        # The layers are kept too, so that no other one gets their `id`.
        self._kept[key] = compiled(build(), reads.variables), reads
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)
        return self._kept[key][0]

    def run(self, request, bind, layers, guide_layers, start, progress=False):
        """Samples of a `Request`, (B, ...).

        Args:
            request: the `Request`.
            bind: function (inputs, guided) to the predictor, inputs being the
                dict of "condition", "negative" and "scale" as far as given.
            layers: whose variables the model's own predictor reads.
            guide_layers: and what a guide's reads.
            start: function of standard normal noise and a time to the state.
            progress: whether to show a bar.

        With `request.trajectory` the states at all times, (steps + 1, B, ...).
        """
        sampler = request.sampler
        reads = Reads(layers), Reads([*layers, *guide_layers])
        one_step = type(sampler).advance is Sampler.advance
        options = sampler.step_key()

        def compiled_step(left, guided, inputs, state):
            if one_step and not sampler.last_differs:
                left = 1

            def step(x, t, r, state, inputs):
                t, r = batch_of(t, x), batch_of(r, x)
                model, noise = bind(inputs, guided), inputs.get("noise")
                if one_step:
                    return sampler.step(model, x, t, r, noise, left == 0), state
                return sampler.advance(model, x, t, r, noise, state, left)

            guidance = (request.interval, request.channels) if guided else ()
            key = options, left, tuple(sorted(inputs)), len(state), guidance
            return self.function(key, lambda: step, reads[guided])

        asked = reads[request.guided].key, options, request.shape
        batches, bar = [], Bar(request.num_samples, "sample", progress)
        for rows, noise, draw, inputs in request.batches(
            self._rows_for(asked, sampler)
        ):
            x = noise
            if request.state is None:
                x = start(noise, float(request.times[0]))
            dtype = keras.backend.standardize_dtype(x.dtype)
            state = sampler.begin(request.interpolant, request.num_steps)
            walk = request.steps(dtype)
            states = [x]
            if sampler.adaptive:
                given = inputs(request.guided)
                moves = [
                    compiled_step(left, request.guided, given, state)
                    for left in (0, 1)
                ]
                x = sampler.solve_path(
                    functools.partial(_move, moves, given),
                    request.interpolant,
                    x,
                    float(request.times[0]),
                    request.inverse,
                )
                walk = ()
            for step, (t, r, left) in enumerate(walk, 1):
                guided = request.acts(t, r)
                given = inputs(guided)
                if sampler.stochastic:
                    given["noise"] = draw(step)
                run = compiled_step(left, guided, given, state)
                x, state = run(x, t, r, state, given)
                if request.trajectory:
                    states.append(x)
            if noise.shape[0] > rows:
                states, x = [_first(s, rows) for s in states], _first(x, rows)
            batches.append(ops.stack(states) if request.trajectory else x)
            bar.advance(len(x))
        if len(batches) == 1:
            return batches[0]
        return ops.concatenate(batches, axis=1 if request.trajectory else 0)

    def _rows_for(self, asked, sampler):
        """How many rows are sampled where some are asked for, or None.

        A number that was compiled for serves for the last batch of a call,
        and for half of it and more: a row is the same in either. Not where
        the steps depend on the whole batch.
        """
        if keras.backend.backend() == "torch" or sampler.adaptive:
            return None
        while len(self._sizes) > self.size:
            del self._sizes[next(iter(self._sizes))]
        known = self._sizes.setdefault(asked, set())

        def rows_for(rows, full):
            enough = [n for n in known if rows <= n <= max(2 * rows, full)]
            known.add(min(enough, default=rows))
            return min(enough, default=rows)

        return rows_for


def _first(x, rows):
    """The first rows; by NumPy, for which JAX would compile a program."""
    if keras.backend.backend() != "jax":
        return x[:rows]
    return ops.convert_to_tensor(ops.convert_to_numpy(x)[:rows])


class Reads:
    """The layers that a compiled function calls, and their variables now."""

    def __init__(self, layers):
        self.layers = list(layers)
        check_whole(self.layers)
        self.variables = [v for layer in self.layers for v in layer.variables]
        self.key = (
            tuple(map(id, self.layers)), tuple(map(id, self.variables))
        )  # fmt: skip


def _move(moves, given, x, t, r, left):
    """One compiled step of an adaptive solver, which has no memory."""
    return moves[left](x, t, r, (), given)[0]
