"""The transformer of Diffusion Policy (arXiv 2303.04137).

Actions are tokens that see the actions before them and a memory of one token
for the times and one for each observation.
"""

from __future__ import annotations

import typing

from keras import initializers
from keras import layers
from keras import ops

from keras_flows.networks.chunks.inputs import chunk_inputs
from keras_flows.networks.chunks.inputs import embedded_times
from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.attention import CrossAttention
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import FOURFOLD
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape


def _normal():
    return initializers.RandomNormal(stddev=0.02)


@register
class LearnedPositions(layers.Layer):
    """Adds a learned vector to each token: (B, T, C) -> (B, T, C).

    Args:
        initializer: of the vectors.
    """

    def __init__(self, initializer=None, **kwargs):
        super().__init__(**kwargs)
        self.initializer = initializers.get(initializer or _normal())

    def build(self, input_shape):
        if self.built:
            return
        self.positions = self.add_weight(
            shape=input_shape[1:],
            initializer=self.initializer,
            name="positions",
        )
        self.built = True

    def call(self, x):
        return x + ops.cast(self.positions, x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "initializer": initializers.serialize(self.initializer),
        }


@register
class PreNormBlock(layers.Layer):
    """Transformer block: (B, T, C)[, memory (B, S, C)] -> (B, T, C).

    x += attention(norm(x)); where there is a memory,
    x += cross_attention(norm(x), memory); x += mlp(norm(x)), with GELU.

    Args:
        num_heads: number of heads; must divide C.
        mlp_ratio: width of the MLP over C.
        dropout: rate, after each of the parts and inside the MLP.
        causal: whether token t sees only the tokens s <= t and the memory's
            tokens s <= t + 1.
    """

    def __init__(
        self, num_heads, mlp_ratio=4, dropout=0.0, causal=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout
        self.causal = causal

    def build(self, x_shape, memory_shape=None):
        if self.built:
            return
        width, dtype = x_shape[-1], self.dtype_policy
        hidden = int(self.mlp_ratio * width)

        def norm(name):
            layer = LayerNormalization(1e-5, dtype=dtype, name=name)
            layer.build(x_shape)
            return layer

        self.attention_norm = norm("attention_norm")
        self.attention = SelfAttention(
            self.num_heads,
            qkv_initializer=_normal(),
            out_initializer=_normal(),
            causal=self.causal,
            dtype=dtype,
            name="attention",
        )
        self.attention.build(x_shape)
        if memory_shape is not None:
            self.memory_norm = norm("memory_norm")
            self.memory_attention = CrossAttention(
                self.num_heads,
                causal_offset=1 if self.causal else None,
                kernel_initializer=_normal(),
                dtype=dtype,
                name="memory_attention",
            )
            self.memory_attention.build(x_shape, memory_shape)
        self.mlp_norm = norm("mlp_norm")
        self.mlp_in = Dense(
            hidden, kernel_initializer=_normal(), dtype=dtype, name="mlp_in"
        )
        self.mlp_out = Dense(
            width, kernel_initializer=_normal(), dtype=dtype, name="mlp_out"
        )
        self.mlp_in.build(x_shape)
        self.mlp_out.build((*x_shape[:-1], hidden))
        self.drops = [
            layers.Dropout(self.dropout, dtype=dtype, name=f"drop_{i}")
            for i in range(3 if memory_shape is None else 4)
        ]
        self.built = True

    def call(self, x, memory=None, training=None):
        def dropped(h, i):
            return self.drops[i](h, training=training)

        x = x + dropped(self.attention(self.attention_norm(x)), 0)
        if memory is not None:
            h = self.memory_attention(self.memory_norm(x), memory)
            x = x + dropped(h, 3)
        h = ops.gelu(self.mlp_in(self.mlp_norm(x)), approximate=False)
        return x + dropped(self.mlp_out(dropped(h, 1)), 2)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "dropout": self.dropout,
            "causal": self.causal,
        }


def mish(x):
    """x tanh(log(1 + exp(x))).

    Spelled out, since the gradient of a fused one through a JVP need not be
    right.
    """
    return x * ops.tanh(ops.softplus(x))


@register
class PolicyTransformer(DescribedModel):
    """The conditional transformer of Diffusion Policy.

    A functional model with inputs `x` (B, horizon, action_dim), `t` (B,),
    where asked for `r` (B,), and `condition` (B, *condition_shape); the
    output has the shape of x. The memory is one token of both times and one
    for each observation. Without `r` the embedding of t enters twice, and
    the network is the published one at s = t. Source: arXiv 2303.04137 in
    the form of arXiv 2512.01809 (two times); its scalar output and the
    dropping of attention weights are left out.

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk.
        condition_shape: (obs_steps, channels), a token for each step, or
            (channels,), one token.
        two_times: whether the network takes `r`, as flow maps need.
        width: channels of a token; a multiple of 4 and of `num_heads`.
        depth: number of blocks.
        num_heads: number of attention heads.
        condition_depth: number of blocks over the memory, 0 for an MLP.
        causal: whether action k sees only the actions up to k, the times
            and the observations up to step k.
        embedding_dropout: rate, on the embedded actions and the memory.
        dropout: rate, inside the blocks.
        dtype: dtype policy of the blocks; times are embedded in float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.PolicyTransformer(4, 16, condition_shape=(2, 39))
    ```
    """

    @checked(
        condition_shape=given.SIZES,
        action_dim=SIZE,
        horizon=SIZE,
        two_times=FLAG,
        width=FOURFOLD,
        depth=COUNT,
        num_heads=SIZE,
        condition_depth=COUNT,
        causal=FLAG,
        embedding_dropout=Number(0, below=1),
        dropout=Number(0, below=1),
    )
    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_shape: Shape,
        two_times: bool = False,
        width: int = 384,
        depth: int = 8,
        num_heads: int = 6,
        condition_depth: int = 0,
        causal: bool = True,
        embedding_dropout: float = 0.0,
        dropout: float = 0.1,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "policy_transformer",
    ) -> None:
        if width % num_heads:
            raise ValueError(
                "`width` must be a multiple of `num_heads`. Received: "
                f"width={width}, num_heads={num_heads}."
            )
        inputs = chunk_inputs(action_dim, horizon, condition_shape, two_times)

        def dense(units, name):
            return Dense(
                units, kernel_initializer=_normal(), dtype=dtype, name=name
            )

        def embedded(x, name):
            x = LearnedPositions(dtype=dtype, name=f"{name}_positions")(x)
            return layers.Dropout(
                embedding_dropout, dtype=dtype, name=f"{name}_dropout"
            )(x)

        def token(x, name):
            return layers.Reshape((1, -1), dtype=dtype, name=name)(x)

        observation = inputs["condition"]
        if len(observation.shape) == 2:
            observation = token(observation, "observation")
        memory = layers.Concatenate(axis=1, dtype=dtype, name="memory")(
            [
                token(embedded_times(inputs, width), "time"),
                dense(width, "condition_embedding")(observation),
            ]
        )
        memory = embedded(memory, "memory")
        for i in range(condition_depth):
            memory = PreNormBlock(
                num_heads,
                dropout=dropout,
                dtype=dtype,
                name=f"condition_block_{i}",
            )(memory)
        if not condition_depth:
            memory = mish(dense(4 * width, "memory_in")(memory))
            memory = dense(width, "memory_out")(memory)
        x = embedded(dense(width, "action_embedding")(inputs["x"]), "action")
        for i in range(depth):
            x = PreNormBlock(
                num_heads,
                dropout=dropout,
                causal=causal,
                dtype=dtype,
                name=f"block_{i}",
            )(x, memory)
        x = LayerNormalization(1e-5, dtype=dtype, name="norm")(x)
        super().__init__(inputs, dense(action_dim, "output")(x), name=name)
