"""A recurrent network over the time of a chunk of actions."""

from __future__ import annotations

import functools
import typing

from keras import layers
from keras import ops

from keras_flows.networks.chunks.inputs import both_times
from keras_flows.networks.chunks.inputs import chunk_inputs
from keras_flows.networks.chunks.inputs import flat_condition
from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import LinearTimeFeatures
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import PAIRS
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape

CELLS = {"lstm": layers.LSTM, "gru": layers.GRU}


def _recurrent(cell, width, dtype, name):
    options = {"unit_forget_bias": False} if cell == "lstm" else {}
    # Unrolled: a loop cannot be differentiated through a JVP on TensorFlow,
    # and cuDNN's kernels have no forward derivative.
    return CELLS[cell](
        width,
        return_sequences=True,
        kernel_initializer="orthogonal",
        unroll=True,
        use_cudnn=False,
        dtype=dtype,
        name=name,
        **options,
    )


@register
class PolicyRNN(DescribedModel):
    """LSTM or GRU along a chunk of actions.

    A functional model with inputs `x` (B, horizon, action_dim), `t` (B,),
    where asked for `r` (B,), and `condition` (B, *condition_shape); the
    output has the shape of x. At each step the recurrent layers see the
    action, the features of both times and the whole observation; two hidden
    layers and a dense one follow. An action's output depends on the actions
    up to it only. Without `r` the features of t enter twice, and the network
    is the published one at s = t.
    Source: arXiv 2512.01809; its scalar output is left out.

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk.
        condition_shape: (obs_steps, channels) or (channels,) of one
            observation.
        two_times: whether the network takes `r`, as flow maps need.
        width: units of each recurrent layer; the hidden layers have `width`
            and `width // 2`.
        depth: number of recurrent layers.
        cell: "lstm" or "gru".
        time_features: number of sines and cosines of each time, even.
        max_frequency: the largest frequency of these, in radians per unit of
            time. The published network has 100, which flow maps learn badly
            from; converted ones keep it.
        dropout: rate, between the recurrent and after the hidden layers.
        dtype: dtype policy of the layers; times are embedded in float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.PolicyRNN(4, 16, condition_shape=(2, 39))
    ```
    """

    @checked(
        condition_shape=given.SIZES,
        action_dim=SIZE,
        horizon=SIZE,
        two_times=FLAG,
        width=SIZE,
        depth=SIZE,
        time_features=PAIRS,
        max_frequency=POSITIVE,
        dropout=Number(0, below=1),
    )
    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_shape: Shape,
        two_times: bool = False,
        width: int = 512,
        depth: int = 8,
        cell: str = "lstm",
        time_features: int = 128,
        max_frequency: float = 2.0,
        dropout: float = 0.1,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "policy_rnn",
    ) -> None:
        given.choice("cell", cell, CELLS)
        if depth < 1 or width < 2:
            raise ValueError(
                "`depth` must be at least 1 and `width` at least 2. "
                f"Received: depth={depth}, width={width}."
            )
        inputs = chunk_inputs(action_dim, horizon, condition_shape, two_times)
        embedding = LinearTimeFeatures(
            time_features, max_frequency, name="time_features"
        )
        context = layers.Concatenate(dtype=float_dtype(), name="context")(
            [*both_times(inputs, embedding), flat_condition(inputs)]
        )
        context = layers.RepeatVector(
            horizon, dtype=float_dtype(), name="contexts"
        )(context)
        h = layers.Concatenate(dtype=float_dtype(), name="steps")(
            [inputs["x"], context]
        )
        for i in range(depth):
            if i:
                h = layers.Dropout(dropout, dtype=dtype, name=f"drop_{i}")(h)
            h = _recurrent(cell, width, dtype, f"{cell}_{i}")(h)
        gelu = functools.partial(ops.gelu, approximate=True)
        for i, units in enumerate((width, width // 2)):
            h = Dense(
                units,
                kernel_initializer="orthogonal",
                dtype=dtype,
                name=f"hidden_{i}",
            )(h)
            h = LayerNormalization(1e-5, dtype=dtype, name=f"norm_{i}")(h)
            h = layers.Dropout(dropout, dtype=dtype, name=f"hidden_drop_{i}")(
                gelu(h)
            )
        y = Dense(
            action_dim,
            kernel_initializer="orthogonal",
            dtype=dtype,
            name="output",
        )(h)
        super().__init__(inputs, y, name=name)
