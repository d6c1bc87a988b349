"""What an exported file computes, and what it must agree with."""

import dataclasses
import typing

import keras
from keras import ops

from keras_flows import samplers
from keras_flows.export.endpoint import Endpoint
from keras_flows.networks import Labels
from keras_flows.networks import input_specs
from keras_flows.networks.contract import fits
from keras_flows.ops import arguments
from keras_flows.ops import bcast_right
from keras_flows.ops import compiled
from keras_flows.ops import given
from keras_flows.ops.scalars import GUIDANCE
from keras_flows.samplers import guidance
from keras_flows.samplers import request

# What `generate` does where it is told nothing.
UNGUIDED = {
    "sampler": None,
    "num_steps": None,
    "guidance_scale": 1.0,
    "guidance_interval": None,
    "guidance_channels": None,
}


@dataclasses.dataclass(frozen=True)
class Served:
    """What a user asks of `export`.

    Attributes:
        options: dict of the arguments of sampling that are fixed in the file.
        decoder: `keras.Model` from samples to what is served, or None.
        output_range: (low, high) of the served values, or None.
        use_ema: whether the first average's weights are exported.
    """

    options: dict
    decoder: object = None
    output_range: tuple | None = None
    use_ema: bool = True


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a file holds, and what this backend's own model gives.

    Attributes:
        endpoints: {name: Endpoint}, "serve" among them.
        expected: {name: function of a dict of arrays} to what each must give.
        layers: whose weights the file holds.
        example: function (name, shape, dtype, rng) to an input to compare by.
        settings: dict for signature.json.
        compared_with: name of the method that "serve" agrees with.
    """

    endpoints: dict
    expected: dict
    layers: list
    example: typing.Callable
    settings: dict
    compared_with: str = "generate"

    @property
    def variables(self):
        """The `keras.Variable`s that the endpoints read."""
        return [v for layer in self.layers for v in layer.variables]


def sampling_plan(model, served):
    """The `Plan` of a model's `generate`.

    Args:
        model: a `Generator`.
        served: the `Served`; its options are those of `generate`.
    """
    options = {**UNGUIDED, **served.options}
    sampler, num_steps, times = fixed_steps(
        model, options["sampler"], options["num_steps"]
    )
    if model.sample_shape is None:
        raise ValueError(
            "`network` is not built yet, so the shape of a sample is not "
            "known: `fit`, or generate(noise=...), before `export`."
        )
    scale = GUIDANCE("guidance_scale", options["guidance_scale"])
    interval = guidance.interval_of(options["guidance_interval"])
    channels = guidance.channels_of(
        options["guidance_channels"], model.sample_shape
    )
    output_range = checked_range(served.output_range)
    check_decoder(served.decoder, model.sample_shape)
    network = model.inference_network(served.use_ema)

    def conditioned(inputs, rows):
        return model.absorb_guidance(
            condition_of(inputs), scale, rows, interval
        )

    def sample(inputs):
        noise = inputs["noise"]
        condition, left = conditioned(inputs, ops.shape(noise)[0])
        plain = model.bind(network, condition)
        negative = request.negative_of(model, condition, None, left, None)
        guided = plain
        if negative is not None:
            guided = samplers.Guided(
                plain, model.bind(network, negative), left, interval, channels
            )

        # Known before the trace, so that steps outside the interval have one
        # network call, not two.
        def model_at(t, r):
            path, calls = model.interpolant, sampler.calls
            inside = guidance.acts(interval, calls, path, t, r)
            return guided if inside else plain

        return sampler.unrolled_on(
            times.astype("float32"),
            model_at,
            model.start(noise, float(times[0])),
            num_steps,
        )

    labels = model.labels()

    def velocity(inputs):
        condition, _ = conditioned(inputs, ops.shape(inputs["x"])[0])
        v = model.pred(
            inputs["x"],
            inputs["t"],
            inputs.get("r"),
            condition=condition,
            network=network,
        )
        return unless_known(labels, inputs, v)

    others = condition_inputs(model.network)
    shape = (None, *model.sample_shape)
    endpoints = {
        "serve": Endpoint(
            lambda inputs: unless_known(
                labels,
                inputs,
                finished(sample(inputs), served.decoder, output_range),
            ),
            {"noise": (shape, "float32"), **others},
            "samples",
            shape
            if served.decoder is None
            else tuple(served.decoder.output_shape),
        )
    }

    def finish(x):
        return finished(x, served.decoder, output_range)

    if served.decoder is not None:
        finish = compiled(finish, served.decoder.variables)

    def expected(inputs):
        return finish(
            model.generate(
                noise=inputs["noise"],
                condition=condition_of(inputs),
                use_ema=served.use_ema,
                sampler=sampler,
                num_steps=num_steps,
                guidance_scale=scale,
                guidance_interval=interval,
                guidance_channels=channels,
            )
        )

    layers = list(model.sampling_layers(served.use_ema))
    if served.decoder is not None:
        layers.append(served.decoder)
    checks = {"serve": expected}
    if "velocity" in model.provides:
        endpoints["velocity"] = velocity_endpoint(model, velocity, others)
        checks["velocity"] = compiled_check(velocity, layers)
    settings = {
        "guidance_scale": float(scale),
        "guidance_interval": interval,
        "guidance_channels": channels,
        "output_range": output_range,
    }
    return Plan(
        endpoints,
        checks,
        layers,
        example_of(model),
        settings | described(model, served, sampler, num_steps, times),
    )


def fixed_steps(model, sampler, num_steps):
    """(sampler, num_steps, times) that one graph can hold.

    Raises:
        ValueError: if the sampler draws noise, or chooses its steps.
    """
    sampler, num_steps, times = model.sampling_times(sampler, num_steps)
    if sampler.draws(num_steps):
        raise ValueError(
            "`sampler` draws noise in every step, which the exported "
            f"signature has no input for. Received: {sampler}; use an "
            "ODE sampler or a flow-map jump."
        )
    if sampler.adaptive:
        raise ValueError(
            "`sampler` chooses its steps by the data, which a graph "
            f"cannot. Received: {sampler}; use one with fixed steps."
        )
    return sampler, num_steps, times


def described(model, served, sampler, num_steps, times):
    """What signature.json tells of any model's sampling."""
    average = model.emas[0] if served.use_ema and model.emas else None
    return {
        "num_steps": num_steps,
        "sampler": repr(sampler),
        "time_grid": [float(t) for t in times],
        "interpolant": repr(model.interpolant),
        "null_label": model.null_label,
        "highest_label": getattr(model.labels(), "highest", None),
        "decoder": None if served.decoder is None else served.decoder.name,
        "weights": "trained"
        if average is None
        else {"ema": {"decay": average.decay, "std": average.std}},
    }


def compiled_check(function, layers):
    """A function of a dict of arrays, compiled to compare by."""
    run = compiled(function, [v for layer in layers for v in layer.variables])
    return lambda inputs: run(arguments(inputs))


def velocity_endpoint(model, velocity, others):
    """The endpoint of a function of x, t[, r] and `others` to velocities."""
    shape = (None, *model.sample_shape)
    times = {"t": ((None,), "float32")}
    if "r" in input_specs(model.network):
        times["r"] = ((None,), "float32")
    return Endpoint(
        velocity, {"x": (shape, "float32"), **times, **others}, "velocity",
        shape,
    )  # fmt: skip


def example_of(model):
    """Function (name, shape, dtype, rng) to an input to compare by."""

    def example(name, shape, dtype, rng):
        if name in ("t", "r"):
            ends = model.interpolant.t_noise, model.interpolant.t_last
            return rng.uniform(min(ends), max(ends), shape).astype(dtype)
        if "float" in dtype:
            return rng.standard_normal(shape, dtype="float32").astype(dtype)
        null = model.null_label
        classes = null if isinstance(null, int) and null > 0 else 1
        return rng.integers(0, classes, shape, dtype=dtype)

    return example


def unless_known(labels, inputs, output):
    """`output`, NaN in the rows of labels that the network does not have.

    A graph cannot raise on every runtime, and a lookup beyond an embedding
    gives another label's row on some.
    """
    parts = labels if isinstance(labels, dict) else {None: labels}
    for key, part in parts.items():
        if isinstance(part, Labels) and part.highest is not None:
            name = "condition" if key is None else f"condition_{key}"
            output = _unless_known(part.highest, inputs[name], output)
    return output


def _unless_known(highest, given, output):
    inside = ops.logical_and(given >= 0, given <= highest)
    if len(given.shape) > 1:
        inside = ops.all(inside, axis=tuple(range(1, len(given.shape))))
    nothing = ops.cast(float("nan"), output.dtype)
    return ops.where(bcast_right(inside, output), output, nothing)


def condition_inputs(network):
    """{name: (shape, dtype)} of a network's condition as flat inputs."""
    condition = input_specs(network).get("condition")
    if condition is None:
        return {}
    if not isinstance(condition, dict):
        return {"condition": _spec(condition)}
    return {f"condition_{k}": _spec(v) for k, v in condition.items()}


def condition_of(inputs):
    """The condition among the inputs of an endpoint, or None."""
    if "condition" in inputs:
        return inputs["condition"]
    parts = {
        name.removeprefix("condition_"): value
        for name, value in inputs.items()
        if name.startswith("condition_")
    }
    return parts or None


def _spec(spec):
    return (None, *spec.shape), spec.dtype or "float32"


def finished(x, decoder, output_range):
    """What is served of samples x: decoded, and mapped to the range."""
    if decoder is not None:
        x = decoder(x, training=False)
    if output_range is None:
        return x
    low, high = output_range
    return low + (ops.clip(x, -1.0, 1.0) + 1.0) * (0.5 * (high - low))


def checked_range(output_range):
    if output_range is None:
        return None
    return given.pair("output_range", output_range)


def check_decoder(decoder, shape):
    if decoder is None:
        return
    if not isinstance(decoder, keras.Model):
        raise ValueError(
            "`decoder` must be a keras.Model of samples, such as the "
            f"`decoder` of a networks.AutoencoderKL. Received: {decoder!r}."
        )
    taken = getattr(decoder, "input_shape", None)
    if taken is not None and (
        not isinstance(taken, tuple) or not fits(taken[1:], shape)
    ):
        raise ValueError(
            f"`decoder` must take samples, of shape {(None, *shape)}; an "
            "autoencoder has it as its attribute `decoder`. Received one "
            f"that takes {taken}."
        )
