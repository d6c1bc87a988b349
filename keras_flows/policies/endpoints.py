"""How a policy acts: observation (and noise) in, chunk out, in one graph."""

import dataclasses
import typing

import numpy as np
from keras import ops
from keras import tree

from keras_flows.export import Endpoint
from keras_flows.export import Plan
from keras_flows.export import compiled_check
from keras_flows.export import described
from keras_flows.export import example_of
from keras_flows.export import fixed_steps
from keras_flows.export import velocity_endpoint
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SEED
from keras_flows.samplers import Reads

STARTS = ("noise", "zero")


@dataclasses.dataclass(frozen=True)
class Acting:
    """act(inputs) -> chunks, with all sampling steps in it.

    Attributes:
        policy: the `Policy`.
        sampler, num_steps, times: how it samples.
        start: "noise" or "zero", what it starts from.
        use_ema: whether by the first average of the weights.
    """

    policy: object
    sampler: object
    num_steps: int
    times: object
    start: str
    use_ema: bool

    def function(self):
        """Function of "observation" and, from noise, "noise" to chunks."""
        policy = self.policy
        encoder, network = policy.sampling_layers(self.use_ema)[:2]

        def act(inputs):
            condition = policy.encode(inputs["observation"], encoder)
            rows = ops.shape(tree.flatten(inputs["observation"])[0])[0]
            shape = (rows, *policy.sample_shape)
            if self.start == "noise":
                noise = inputs["noise"]
            else:
                noise = ops.zeros(shape, dtype=float_dtype())
            if self.start == policy.objective.start:
                x = policy.start(noise, float(self.times[0]))
            else:
                x = policy.interpolant.initial(
                    policy.n_mu + policy.n_sigma * noise, float(self.times[0])
                )
            model = policy.interface.bind(network, condition)
            x = self.sampler.unrolled_on(
                self.times, lambda t, r: model, x, self.num_steps
            )
            return policy.action_normalizer.inverse(x)

        return act

    def compiled(self) -> typing.Callable:
        """`function`, compiled once for equal settings."""
        return self.policy.loop.function(
            (
                "act", self.sampler.step_key(), tuple(self.times.tolist()),
                self.start,
            ),
            self.function,
            Reads(self.policy.sampling_layers(self.use_ema)),
        )  # fmt: skip


def acting(policy, num_steps, start, sampler, use_ema):
    """The checked `Acting` of `predict_chunk`'s arguments.

    Raises:
        ValueError: where an argument does not fit; the message says how.
    """
    sampler, num_steps, times = policy.sampling_times(sampler, num_steps)
    if sampler.draws(num_steps) or sampler.adaptive:
        raise ValueError(
            "`sampler` of a policy must not draw noise in its steps, nor "
            f"choose them. Received: {sampler}; use an ODE sampler or a jump."
        )
    start = policy.objective.start if start is None else start
    if not isinstance(start, str) or start not in STARTS:
        raise ValueError(
            f"`start` must be one of {STARTS}. Received: {start!r}."
        )
    return Acting(
        policy, sampler, num_steps, times, start, FLAG("use_ema", use_ema)
    )


def noise_of(policy, batch, seed, noise):
    """Standard normal (batch, horizon, action_dim), given or from a seed."""
    shape = (batch, *policy.sample_shape)
    if noise is None:
        rng = np.random.Generator(np.random.Philox(SEED("seed", seed)))
        return rng.standard_normal(shape, dtype=float_dtype())
    noise = given.array("noise", noise)
    if noise.shape != shape:
        raise ValueError(
            f"`noise` must have shape {shape}. Received: {noise.shape}."
        )
    return noise.astype(float_dtype())


def policy_plan(policy, served):
    """The `Plan` of a policy's `predict_chunk`, for `keras_flows.export`."""
    if policy.representation.needs_pose:
        raise ValueError(
            "A policy of relative actions cannot be exported: the pose is "
            "put back by NumPy. Train it with representation='absolute', "
            "or serve it by `predict_chunk`."
        )
    options, use_ema = served.options, served.use_ema
    sampler, num_steps, _ = fixed_steps(
        policy, options.get("sampler"), options.get("num_steps")
    )
    plan = acting(policy, num_steps, options.get("start"), sampler, use_ema)
    act = plan.function()
    encoder, network = policy.sampling_layers(use_ema)[:2]
    spec = policy.observation_spec
    names = spec if isinstance(spec, dict) else {"observation": spec}
    inputs = {key: ((None, *s), "float32") for key, s in names.items()}

    def observation_of(given):
        observation = {key: given[key] for key in names}
        return observation if isinstance(spec, dict) else given["observation"]

    def serve(given):
        observation = observation_of(given)
        chunk = act({"observation": observation, "noise": given["noise"]})
        # Keeps "noise" among the inputs of those that start from zero.
        chunk = chunk + 0.0 * given["noise"]
        if policy.action_low is not None:
            chunk = ops.maximum(chunk, policy.action_low)
        if policy.action_high is not None:
            chunk = ops.minimum(chunk, policy.action_high)
        return chunk

    def velocity(given):
        return policy.interface.pred(
            given["x"],
            given["t"],
            given.get("r"),
            condition=policy.encode(observation_of(given), encoder),
            network=network,
        )

    def expected(given):
        return policy.predict_chunk(
            observation_of(given),
            noise=None if plan.start == "zero" else given["noise"],
            num_steps=num_steps,
            sampler=sampler,
            start=plan.start,
            use_ema=use_ema,
        )

    shape = (None, *policy.sample_shape)
    endpoints = {
        "serve": Endpoint(
            serve, {"noise": (shape, "float32"), **inputs}, "actions", shape
        )
    }
    checks = {"serve": expected}
    layers = policy.sampling_layers(use_ema)
    if "velocity" in policy.provides:
        endpoints["velocity"] = velocity_endpoint(policy, velocity, inputs)
        checks["velocity"] = compiled_check(velocity, layers)
    settings = described(policy, served, sampler, num_steps, plan.times)
    settings |= {
        "start": plan.start,
        "output_range": None,
        # What a control loop around the file has to know.
        "obs_steps": policy.obs_steps,
        "act_steps": policy.act_steps,
    }
    return Plan(
        endpoints, checks, layers, example_of(policy), settings,
        "predict_chunk",
    )  # fmt: skip
