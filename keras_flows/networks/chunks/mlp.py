"""A residual multilayer perceptron over chunks of actions."""

from __future__ import annotations

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
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import EVEN
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape


@register
class ResidualMLPBlock(layers.Layer):
    """x + Dense(norm(gelu(Dense(norm(x))))): (B, C) -> (B, C).

    Args:
        expansion: width of the hidden layer over C.
        dropout: rate, after either half.
    """

    def __init__(self, expansion=4, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.expansion = expansion
        self.dropout = dropout

    def build(self, input_shape):
        if self.built:
            return
        width, dtype = input_shape[-1], self.dtype_policy
        hidden = self.expansion * width

        def part(kind, *args, **kwargs):
            return kind(*args, dtype=dtype, **kwargs)

        self.norm_1 = part(LayerNormalization, 1e-5, name="norm_1")
        self.dense_1 = part(
            Dense, hidden, kernel_initializer="orthogonal", name="dense_1"
        )
        self.norm_2 = part(LayerNormalization, 1e-5, name="norm_2")
        self.dense_2 = part(
            Dense, width, kernel_initializer="orthogonal", name="dense_2"
        )
        self.drop_1 = part(layers.Dropout, self.dropout, name="drop_1")
        self.drop_2 = part(layers.Dropout, self.dropout, name="drop_2")
        self.norm_1.build(input_shape)
        self.dense_1.build(input_shape)
        self.norm_2.build((None, hidden))
        self.dense_2.build((None, hidden))
        self.built = True

    def call(self, x, training=None):
        h = ops.gelu(self.dense_1(self.norm_1(x)), approximate=False)
        h = self.norm_2(self.drop_1(h, training=training))
        return x + self.drop_2(self.dense_2(h), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "expansion": self.expansion,
            "dropout": self.dropout,
        }


@register
class ChunkMLP(DescribedModel):
    """Residual MLP of a chunk of actions, of times and of an observation.

    A functional model with inputs `x` (B, horizon, action_dim), `t` (B,),
    where asked for `r` (B,), and `condition` (B, *condition_shape); the
    output has the shape of x. The chunk, the features of both times and the
    observation are one vector, which passes a dense layer, `depth` residual
    blocks and a dense layer. Without `r` the features of t enter twice, and
    the network is the published one at s = t.
    Source: arXiv 2512.01809; its second output, a scalar, is left out.

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk.
        condition_shape: (obs_steps, channels) or (channels,) of one
            observation.
        two_times: whether the network takes `r`, as flow maps need.
        width: units of the residual stream.
        depth: number of residual blocks.
        expansion: width of a block's hidden layer over `width`.
        time_features: number of sines and cosines of each time, even; 0 for
            the times themselves.
        max_frequency: the largest frequency of these, in radians per unit of
            time. The published network has 100, which flow maps learn badly
            from; converted ones keep it.
        dropout: rate, inside the blocks.
        dtype: dtype policy of the dense layers; times are embedded in
            float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.ChunkMLP(4, 16, condition_shape=(2, 39))
    ```
    """

    @checked(
        condition_shape=given.SIZES,
        action_dim=SIZE,
        horizon=SIZE,
        two_times=FLAG,
        width=SIZE,
        depth=COUNT,
        expansion=SIZE,
        time_features=EVEN,
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
        expansion: int = 4,
        time_features: int = 128,
        max_frequency: float = 2.0,
        dropout: float = 0.1,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "chunk_mlp",
    ) -> None:
        if width < 1 or depth < 0 or expansion < 1:
            raise ValueError(
                "`width` and `expansion` must be at least 1 and `depth` not "
                f"negative. Received: width={width}, depth={depth}, "
                f"expansion={expansion}."
            )
        inputs = chunk_inputs(action_dim, horizon, condition_shape, two_times)
        embedding = (
            LinearTimeFeatures(
                time_features, max_frequency, name="time_features"
            )
            if time_features
            else layers.Reshape((1,), dtype=float_dtype(), name="times")
        )
        h = layers.Concatenate(dtype=float_dtype(), name="features")(
            [
                layers.Flatten(dtype=float_dtype(), name="flat_x")(inputs["x"]),
                *both_times(inputs, embedding),
                flat_condition(inputs),
            ]
        )
        h = Dense(
            width, kernel_initializer="orthogonal", dtype=dtype, name="input"
        )(h)
        h = LayerNormalization(1e-5, dtype=dtype, name="input_norm")(h)
        h = ops.gelu(h, approximate=False)
        for i in range(depth):
            h = ResidualMLPBlock(
                expansion, dropout, dtype=dtype, name=f"block_{i}"
            )(h)
        h = LayerNormalization(1e-5, dtype=dtype, name="norm")(h)
        y = Dense(
            horizon * action_dim,
            kernel_initializer="orthogonal",
            dtype=dtype,
            name="output",
        )(h)
        y = layers.Reshape((horizon, action_dim), dtype=dtype, name="chunk")(y)
        super().__init__(inputs, y, name=name)
