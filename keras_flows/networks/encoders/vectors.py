"""Encoders of observations: a policy's condition from what a robot sees.

An observation is an array (B, obs_steps, D), or a dict of these by name,
among which images (B, obs_steps, H, W, C). An encoder makes of it a condition
(B, obs_steps, width). As functional models they are copied, averaged and
saved like any network.
Source: arXiv 2512.01809 (MLPs, images), after arXiv 2303.04137.
"""

from __future__ import annotations

import typing

import keras
from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.dense import Dense
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Mapping

    from keras_flows.ops.types import Shape


def plain_shapes(observation_shape):
    """The shape, or the dict of shapes by sorted name, as tuples."""
    shape = observation_shape
    if not isinstance(shape, dict):
        return given.sizes("observation_shape", shape)
    return {
        k: given.sizes(f"observation_shape[{k!r}]", shape[k])
        for k in sorted(shape)
    }


def observation_inputs(observation_shape, ranks):
    """Inputs of an observation, checked: shapes of these ranks, same steps."""
    shapes = plain_shapes(observation_shape)
    by_name = shapes if isinstance(shapes, dict) else {"observation": shapes}
    if not by_name or len({shape[:1] for shape in by_name.values()}) > 1:
        raise ValueError(
            "`observation_shape` must give one or more shapes with the same "
            f"number of steps first. Received: {observation_shape!r}."
        )
    for name, shape in by_name.items():
        if len(shape) not in ranks:
            known = {2: "(obs_steps, D)", 4: "(obs_steps, H, W, C)"}
            raise ValueError(
                f"`observation_shape` of {name!r} must be "
                f"{' or '.join(known[rank] for rank in ranks)}; "
                f"`ImageEncoder` takes images. Received: {shape!r}."
            )
    inputs = {
        name: keras.Input(shape, dtype=float_dtype(), name=name)
        for name, shape in by_name.items()
    }
    return inputs if isinstance(shapes, dict) else inputs["observation"]


def parts_of(inputs):
    """The inputs as a list, by sorted name."""
    return list(inputs.values()) if isinstance(inputs, dict) else [inputs]


def joined(parts, name):
    """Parts joined along the last axis."""
    if len(parts) == 1:
        return parts[0]
    return layers.Concatenate(dtype=float_dtype(), name=name)(parts)


def mlp(x, width, hidden_width, depth, dtype):
    """`depth` hidden layers with leaky ReLU, then a dense layer."""
    for i in range(depth):
        x = Dense(hidden_width, dtype=dtype, name=f"hidden_{i}")(x)
        x = ops.leaky_relu(x, negative_slope=0.01)
    return Dense(width, dtype=dtype, name="output")(x)


class ObservationEncoder(DescribedModel):
    """Base of the encoders, whose first argument is `observation_shape`."""

    def get_config(self):
        config = super().get_config()
        shape = plain_shapes(config["observation_shape"])
        return {**config, "observation_shape": shape}


@register
class IdentityEncoder(ObservationEncoder):
    """The observation itself, parts of a dict side by side.

    (B, obs_steps, D), or several, to (B, obs_steps, sum of D), in the order
    of their names.

    Args:
        observation_shape: (obs_steps, D) or a dict of name to such shapes.
        name: model name.
    """

    def __init__(
        self,
        observation_shape: Mapping[str, Shape] | Shape,
        name: str = "identity_encoder",
    ) -> None:
        inputs = observation_inputs(observation_shape, (2,))
        y = layers.Identity(dtype=float_dtype(), name="condition")(
            joined(parts_of(inputs), "observations")
        )
        super().__init__(inputs, y, name=name)


@register
class MLPEncoder(ObservationEncoder):
    """An MLP of all steps of the observation at once.

    (B, obs_steps, D), or a dict of several, to (B, obs_steps, width).

    Args:
        observation_shape: (obs_steps, D) or a dict of name to such shapes.
        width: channels of a step of the condition.
        hidden_width: units of the hidden layers, by default `width`.
        depth: number of hidden layers.
        dtype: dtype policy of the dense layers.
        name: model name.
    """

    @checked(width=SIZE, hidden_width=Optional(SIZE), depth=COUNT)
    def __init__(
        self,
        observation_shape: Mapping[str, Shape] | Shape,
        width: int = 512,
        hidden_width: int | None = None,
        depth: int = 2,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "mlp_encoder",
    ) -> None:
        inputs = observation_inputs(observation_shape, (2,))
        parts = parts_of(inputs)
        steps = parts[0].shape[1]
        x = joined(
            [layers.Flatten(dtype=float_dtype())(part) for part in parts],
            "observations",
        )
        y = mlp(x, steps * width, hidden_width or width, depth, dtype)
        y = layers.Reshape((steps, width), dtype=dtype, name="condition")(y)
        super().__init__(inputs, y, name=name)


@register
class PerStepMLPEncoder(ObservationEncoder):
    """An MLP of each step of the observation on its own.

    (B, obs_steps, D), or a dict of several, to (B, obs_steps, width).

    Args:
        observation_shape: (obs_steps, D) or a dict of name to such shapes.
        width: channels of a step of the condition.
        hidden_width: units of the hidden layers, by default `width`.
        depth: number of hidden layers.
        dtype: dtype policy of the dense layers.
        name: model name.
    """

    @checked(width=SIZE, hidden_width=Optional(SIZE), depth=COUNT)
    def __init__(
        self,
        observation_shape: Mapping[str, Shape] | Shape,
        width: int = 512,
        hidden_width: int | None = None,
        depth: int = 2,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "per_step_mlp_encoder",
    ) -> None:
        inputs = observation_inputs(observation_shape, (2,))
        x = joined(parts_of(inputs), "observations")
        y = mlp(x, width, hidden_width or width, depth, dtype)
        super().__init__(inputs, y, name=name)
