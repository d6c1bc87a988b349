"""What is asked of `generate`: its arguments, checked once, and frozen."""

import dataclasses
import functools
import operator

import numpy as np
from keras import ops
from keras import tree

from keras_flows.networks import contract
from keras_flows.networks import input_names
from keras_flows.networks import labels_of
from keras_flows.networks.labels import check_labels
from keras_flows.networks.null_labels import null_like
from keras_flows.ops import float_dtype
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.samplers.base import Sampler
from keras_flows.samplers.guidance import acts
from keras_flows.samplers.guidance import channels_of
from keras_flows.samplers.guidance import interval_of
from keras_flows.samplers.noise import Streams
from keras_flows.samplers.padding import with_rows
from keras_flows.samplers.start import checked_start


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """Samples to draw. `make_request` checks and completes the arguments.

    Attributes:
        sampler, num_steps, times: how, and on which grid of times.
        interpolant: the path that is walked.
        num_samples, shape: how many, and of which shape each.
        condition, negative: structures with one row per sample, or None.
        scale, interval, channels: of guidance; see `Guided`.
        guide: the weaker model of autoguidance, or None.
        noise: None, or standard normal (num_samples, *shape).
        seed: int or None.
        batch_size: how many are sampled at once.
        state: None, or (num_samples, *shape), the state at times[0].
        trajectory: whether the states at all times are asked for.
        inverse: whether `times` lead from data to noise.
    """

    sampler: Sampler
    num_steps: int
    times: np.ndarray
    interpolant: object
    num_samples: int
    shape: tuple
    condition: object = None
    negative: object = None
    scale: float = 1.0
    interval: tuple | None = None
    channels: int | None = None
    guide: object = None
    noise: object = None
    seed: int | None = None
    batch_size: int | None = None
    state: object = None
    trajectory: bool = False
    inverse: bool = False

    def with_trajectory(self):
        """The same, with the states at all times."""
        if self.sampler.adaptive:
            raise ValueError(
                "`return_trajectory=True` needs a sampler that walks a grid of "
                f"times. Received: {self.sampler}, which chooses its steps."
            )
        return dataclasses.replace(self, trajectory=True)

    def steps(self, dtype):
        """(t, r, left) of each step, see `Sampler.steps`."""
        for t, r, left in self.sampler.steps(self.times.astype(dtype)):
            # At the noise end there is no singular last step.
            yield t, r, max(left, 1) if self.inverse else left

    @property
    def guided(self):
        """Whether there is anything to lead away from."""
        return self.guide is not None or self.negative is not None

    def acts(self, t, r):
        """Whether the step from t to r needs the negative prediction."""
        return self.guided and acts(
            self.interval, self.sampler.calls, self.interpolant, t, r
        )

    def batches(self, rows_for=None):
        """(rows, noise, draw, inputs) of each batch; the `state` if given.

        `draw(k)` is the noise of step k = 1, 2, ..., see `Streams`;
        `inputs(guided)` the dict of tensors beside it.

        Args:
            rows_for: function of the rows of a batch and those of a full one
                to the rows that it is to have; more of them are the last one
                over again, and no samples. None for as they are.
        """
        streams = Streams(self.seed)
        size = min(self.batch_size or self.num_samples, self.num_samples)
        for first in range(0, self.num_samples, size):
            part = slice(first, min(first + size, self.num_samples))
            rows = part.stop - part.start
            whole = rows if rows_for is None else rows_for(rows, size)
            filled = functools.partial(with_rows, rows=whole)

            def draw(step, shape=(rows, *self.shape), filled=filled):
                return ops.convert_to_tensor(filled(streams.draw(step, shape)))

            given = self.noise if self.state is None else self.state
            if given is None:
                noise = draw(0)
            else:
                noise = ops.convert_to_tensor(
                    filled(given[part]), dtype=float_dtype()
                )
            yield rows, noise, draw, _once(self._inputs, part, filled)

    def _inputs(self, part, filled, guided):
        inputs = {"condition": self.condition}
        if guided:
            inputs["negative"] = self.negative
        whole = part == slice(0, self.num_samples)
        inputs = {
            name: tree.map_structure(
                lambda leaf: filled(leaf if whole else leaf[part]), value
            )
            for name, value in inputs.items()
            if value is not None
        }
        if guided:
            inputs["scale"] = ops.convert_to_tensor(
                self.scale, dtype=float_dtype()
            )
        return inputs


def _once(function, part, filled):
    """function(part, filled, guided) as new dicts, worked out once for each."""
    made = {}

    def inputs(guided):
        if guided not in made:
            made[guided] = function(part, filled, guided)
        return dict(made[guided])

    return inputs


def make_request(
    model,
    num_samples,
    condition,
    negative_condition,
    num_steps,
    guidance_scale,
    guidance_interval,
    guidance_channels,
    guidance_model,
    seed,
    noise,
    sampler,
    batch_size,
    start=None,
):
    """The `Request` of `generate`'s arguments.

    Args:
        model: what samples: `sampling_times`, `absorb_guidance`, `network`,
            `null_label`, `sample_shape`, `complete` and others are asked of it.

    Raises:
        ValueError: where an argument does not fit; the message says how.
    """
    _check_noise(model, noise)
    state, time = checked_start(model, start, noise)
    sampler, num_steps, times = model.sampling_times(
        sampler, num_steps, *(() if start is None else (time,))
    )
    labels = labels_of(model.network, model.null_label)
    condition = as_array(check_labels(labels, condition))
    count = _count(num_samples, condition, noise, state)
    condition = rows_of(condition, count, "condition", model.network)
    if noise is not None:
        model.complete(noise, condition)
    scale = GUIDANCE("guidance_scale", guidance_scale)
    interval = interval_of(guidance_interval)
    condition, scale = model.absorb_guidance(condition, scale, count, interval)
    guide = _guide(model, guidance_model, scale)
    negative = negative_of(
        model, condition, negative_condition, scale, count, guide
    )
    batch_size = Optional(SIZE)("batch_size", batch_size)
    return Request(
        sampler=sampler,
        num_steps=num_steps,
        times=times,
        interpolant=model.interpolant,
        num_samples=count,
        shape=_shape(model, noise) if start is None else state.shape[1:],
        condition=condition,
        negative=negative,
        scale=scale,
        interval=interval,
        channels=channels_of(guidance_channels, model.sample_shape),
        guide=guide,
        noise=noise,
        seed=SEED("seed", seed),
        batch_size=batch_size,
        state=state,
    )


def as_array(condition):
    """Lists and numbers as NumPy arrays; everything else as it is."""
    if isinstance(condition, (int, float, list, np.generic)):
        return np.asarray(condition)
    return condition


def _leading(structure):
    return tree.flatten(structure)[0].shape[0]


def _has_rows(condition):
    """Whether a condition is one row for each sample, not one label."""
    if condition is None:
        return False
    leaves = tree.flatten(condition)
    if not leaves:
        raise ValueError(f"`condition` is empty. Received: {condition!r}.")
    return bool(np.ndim(leaves[0]))


def _count(num_samples, condition, noise, state):
    counts = {}
    if num_samples is not None:
        counts["num_samples"] = SIZE("num_samples", num_samples)
    if noise is not None:
        counts["noise"] = _leading(noise)
    if state is not None:
        counts["start"] = _leading(state)
    if _has_rows(condition):
        counts["condition"] = _leading(condition)
    if not counts:
        raise ValueError(
            "Pass `num_samples`, or a `condition` or `noise` with one "
            "row per sample."
        )
    if len(set(counts.values())) > 1:
        raise ValueError(
            "`num_samples`, `condition` and `noise` disagree about the "
            f"number of samples: {counts}."
        )
    return next(iter(counts.values()))


def rows_of(condition, num_samples, argument, network):
    """A condition with one row per sample, in the network's dtype."""
    if condition is None:
        contract.check_condition(None, network)
        return None
    specs = contract.input_specs(network) or {}
    expected = getattr(specs.get("condition"), "dtype", None)

    def rows(leaf):
        if isinstance(leaf, np.ndarray) and leaf.ndim == 0:
            leaf = np.full((num_samples,), leaf)
        leaf = ops.convert_to_tensor(leaf)
        return leaf if expected is None else ops.cast(leaf, expected)

    condition = tree.map_structure(rows, condition)
    contract.check_condition(condition, network, num_samples, argument)
    return condition


def _guide(model, guide, scale):
    """The weaker model of autoguidance, or None where it is off."""
    if guide is None:
        return None
    if not hasattr(guide, "sampling_times"):
        raise ValueError(
            "`guidance_model` must be an Interface, a weaker one. "
            f"Received: {guide!r}."
        )
    for what in ("interpolant", "sample_shape", "n_mu", "n_sigma"):
        own, other = getattr(model, what), getattr(guide, what)
        same = contract.agree if what == "sample_shape" else operator.eq
        if not same(own, other):
            raise ValueError(
                f"`guidance_model` must have the same {what} as the "
                f"model it guides. Received: {other} beside {own}."
            )
    return None if scale == 1.0 else guide


def negative_of(model, condition, negative, scale, num_samples, guide=None):
    """The condition of the negative prediction, or None."""
    judge = model if guide is None else guide
    labels = labels_of(judge.network, judge.null_label)
    negative = as_array(check_labels(labels, negative, "negative_condition"))
    if scale == 1.0:
        return None
    if guide is not None:
        names = input_names(guide.network)
        if negative is None and (names is None or "condition" in names):
            negative = condition
        return rows_of(
            negative, num_samples, "negative_condition", guide.network
        )
    if condition is None:
        raise ValueError(
            "`guidance_scale` needs a `condition` to guide towards, or a "
            f"`guidance_model`. Received guidance_scale={scale} without."
        )
    if negative is None:
        if model.null_label is None:
            raise ValueError(
                "`guidance_scale` needs `negative_condition`: the network "
                "has no null label. Received guidance_scale="
                f"{scale} without one."
            )
        return null_like(condition, model.null_label)
    return rows_of(negative, num_samples, "negative_condition", model.network)


def _check_noise(model, noise):
    if noise is None:
        return
    contract.check_data(noise, model.data_shape, "noise")
    if not noise.shape or not noise.shape[0]:
        raise ValueError(
            "`noise` must hold at least one example, (batch, ...). Received "
            f"shape: {tuple(noise.shape)}."
        )
    if isinstance(noise, np.ndarray) and not np.isfinite(noise).all():
        raise ValueError("`noise` must be finite. Received NaN or infinity.")


def _shape(model, noise):
    if noise is not None:
        return tuple(noise.shape[1:])
    shape = model.sample_shape
    if shape is None or None in shape:
        told = (
            "the network is not built yet, so the shape of a sample is not "
            "known"
            if shape is None
            else f"samples have the shape {shape}, of free sizes"
        )
        raise ValueError(
            f"`noise` is needed: {told}. Pass standard normal noise of the "
            "shape to sample, generate(noise=...)"
            + (", or `fit` first." if shape is None else ".")
        )
    return shape
