"""What the networks of a robot policy share: their inputs and their times.

Such a network denoises a chunk of actions, x (B, horizon, action_dim), given
an observation. The published ones (arXiv 2512.01809) embed two times always,
s where x is and t where to go, and give s = t for a velocity. Ours take `t`
and `r` for these; without `r` they embed t twice, so that the weights of a
velocity network are those of a flow map, too.
"""

import keras
from keras import layers

from keras_flows.networks.layers.embeddings import NoiseEmbedding
from keras_flows.ops import float_dtype


def chunk_inputs(action_dim, horizon, condition_shape, two_times):
    """The dict of inputs of a network for chunks of actions.

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk.
        condition_shape: (obs_steps, channels) or (channels,) of one
            observation.
        two_times: whether there is `r`.
    """
    if not 1 <= len(condition_shape) <= 2:
        raise ValueError(
            "`condition_shape` must be (obs_steps, channels) or (channels,). "
            f"Received: {condition_shape!r}."
        )
    dtype = float_dtype()
    inputs = {
        "x": keras.Input((horizon, action_dim), dtype=dtype, name="x"),
        "t": keras.Input((), dtype=dtype, name="t"),
    }
    if two_times:
        inputs["r"] = keras.Input((), dtype=dtype, name="r")
    inputs["condition"] = keras.Input(
        tuple(condition_shape), dtype=dtype, name="condition"
    )
    return inputs


def both_times(inputs, embedding):
    """[embedding(t), embedding(r)], the first twice where there is no `r`."""
    first = embedding(inputs["t"])
    return [first, embedding(inputs["r"]) if "r" in inputs else first]


def embedded_times(inputs, width):
    """Sinusoidal embeddings of both times, each of width / 2: (B, width).

    cos(w_k t), sin(w_k t), w_k = 10000^(-k / (width / 4)) for k < width / 4.
    """
    embedding = NoiseEmbedding(width // 2, "adm", name="time_features")
    return layers.Concatenate(dtype=float_dtype(), name="times")(
        both_times(inputs, embedding)
    )


def flat_condition(inputs):
    """The condition as one vector, (B, obs_steps * channels)."""
    condition = inputs["condition"]
    if len(condition.shape) == 2:
        return condition
    return layers.Flatten(dtype=float_dtype(), name="flat_condition")(condition)
