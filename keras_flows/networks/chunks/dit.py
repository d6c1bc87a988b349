"""DiT-Policy: actions as tokens, everything else as modulation.

The diffusion transformer of arXiv 2410.10088 in the form that arXiv
2512.01809 gives it: times and observation are one token, which passes as many
encoder blocks as there are decoder blocks and modulates them one by one.
"""

from __future__ import annotations

import functools
import typing

from keras import layers
from keras import ops

from keras_flows.networks.chunks.inputs import chunk_inputs
from keras_flows.networks.chunks.inputs import embedded_times
from keras_flows.networks.chunks.inputs import flat_condition
from keras_flows.networks.chunks.transformer import LearnedPositions
from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import FOURFOLD
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape

_gelu = functools.partial(ops.gelu, approximate=True)


class _WithMLP(layers.Layer):
    """What both kinds of block have: two norms, an MLP, dropout."""

    def __init__(self, mlp_ratio=4, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.mlp_ratio = mlp_ratio
        self.dropout = dropout

    def _dense(self, units, shape, name, **kwargs):
        layer = Dense(units, dtype=self.dtype_policy, name=name, **kwargs)
        layer.build(shape)
        return layer

    def _build_mlp(self, x_shape):
        width, dtype = x_shape[-1], self.dtype_policy
        hidden = int(self.mlp_ratio * width)
        self.norm_1 = LayerNormalization(1e-5, dtype=dtype, name="norm_1")
        self.norm_2 = LayerNormalization(1e-5, dtype=dtype, name="norm_2")
        self.norm_1.build(x_shape)
        self.norm_2.build(x_shape)
        self.mlp_in = self._dense(hidden, x_shape, "mlp_in")
        self.mlp_out = self._dense(width, (*x_shape[:-1], hidden), "mlp_out")
        self.drops = [
            layers.Dropout(self.dropout, dtype=dtype, name=f"drop_{i}")
            for i in range(3)
        ]

    def _mlp(self, x, training):
        h = self.drops[1](_gelu(self.mlp_in(x)), training=training)
        return self.drops[2](self.mlp_out(h), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_ratio": self.mlp_ratio,
            "dropout": self.dropout,
        }


@register
class TokenBlock(_WithMLP):
    """Post-norm transformer block of a single token: (B, C) -> (B, C).

    c = norm(c + Dense(Dense(c))); c = norm(c + mlp(c)). A token that sees
    only itself takes its own value whatever query and key are: these, and
    the position that the published block adds to them, are left out.

    Args:
        mlp_ratio: width of the MLP over C.
        dropout: rate, after each of the parts and inside the MLP.
    """

    def build(self, input_shape):
        if self.built:
            return
        self._build_mlp(input_shape)
        self.value = self._dense(input_shape[-1], input_shape, "value")
        self.out = self._dense(input_shape[-1], input_shape, "out")
        self.built = True

    def call(self, c, training=None):
        h = self.drops[0](self.out(self.value(c)), training=training)
        c = self.norm_1(c + h)
        return self.norm_2(c + self._mlp(c, training))


@register
class ModulatedBlock(_WithMLP):
    """Transformer block with modulation: (B, T, C), c (B, C) -> (B, T, C).

    x += g1 attention(a1 norm(x) + b1); x += g2 mlp(a2 norm(x) + b2), each of
    a, b, g a Dense(silu(c)), the gates g zero at first. The scale is a, not
    1 + a, as published.

    Args:
        num_heads: number of heads; must divide C.
        mlp_ratio: width of the MLP over C.
        dropout: rate, after each of the parts and inside the MLP.
    """

    def __init__(self, num_heads, mlp_ratio=4, dropout=0.0, **kwargs):
        super().__init__(mlp_ratio, dropout, **kwargs)
        self.num_heads = num_heads

    def build(self, x_shape, c_shape):
        if self.built:
            return
        width = x_shape[-1]
        self._build_mlp(x_shape)
        self.attention = SelfAttention(
            self.num_heads, dtype=self.dtype_policy, name="attention"
        )
        self.attention.build(x_shape)
        self.modulation = self._dense(4 * width, c_shape, "modulation")
        self.gates = self._dense(
            2 * width, c_shape, "gates", kernel_initializer="zeros"
        )
        self.built = True

    def call(self, x, c, training=None):
        c = ops.silu(c)[:, None]
        scale1, shift1, scale2, shift2 = ops.split(
            self.modulation(c), 4, axis=-1
        )
        gate1, gate2 = ops.split(self.gates(c), 2, axis=-1)
        h = self.attention(scale1 * self.norm_1(x) + shift1)
        x = x + gate1 * self.drops[0](h, training=training)
        h = self._mlp(scale2 * self.norm_2(x) + shift2, training)
        return x + gate2 * h

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}


@register
class ModulatedOutput(layers.Layer):
    """Dense(scale x + shift): (B, T, C), c (B, C) -> (B, T, units).

    Without the normalisation that DiT has there: the published layer holds
    one and never calls it.

    Args:
        units: number of outputs of a token.
    """

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, x_shape, c_shape):
        if self.built:
            return
        dtype = self.dtype_policy
        self.modulation = Dense(2 * x_shape[-1], dtype=dtype, name="modulation")
        self.modulation.build(c_shape)
        self.out = Dense(self.units, dtype=dtype, name="out")
        self.out.build(x_shape)
        self.built = True

    def call(self, x, c):
        shift, scale = ops.split(
            self.modulation(ops.silu(c))[:, None], 2, axis=-1
        )
        return self.out(scale * x + shift)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class PolicyDiT(DescribedModel):
    """DiT-Policy, as "Much Ado About Noising" has it ("Sudeep-DiT").

    A functional model with inputs `x` (B, horizon, action_dim), `t` (B,),
    where asked for `r` (B,), and `condition` (B, *condition_shape), one
    vector; the output has the shape of x. Without `r` the embedding of t
    enters twice, and the network is the published one at s = t. Sources:
    arXiv 2410.10088, arXiv 2512.01809; the scalar output and the dropping of
    attention weights are left out, and so is what cannot matter to an
    encoder of one token (`TokenBlock`).

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk.
        condition_shape: (obs_steps, channels) or (channels,) of one
            observation.
        two_times: whether the network takes `r`, as flow maps need.
        width: channels of a token; a multiple of 4 and of `num_heads`.
        depth: number of encoder and of decoder blocks.
        num_heads: number of attention heads.
        mlp_ratio: width of a block's MLP over `width`.
        dropout: rate, inside the blocks.
        dtype: dtype policy of the blocks; times and condition are embedded
            in float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.PolicyDiT(4, 16, condition_shape=(2, 39))
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
        mlp_ratio=POSITIVE,
        dropout=Number(0, below=1),
    )
    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_shape: Shape,
        two_times: bool = False,
        width: int = 256,
        depth: int = 8,
        num_heads: int = 4,
        mlp_ratio: float = 4,
        dropout: float = 0.1,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "policy_dit",
    ) -> None:
        if depth < 1 or width % num_heads:
            raise ValueError(
                "`depth` must be at least 1 and `width` a multiple of "
                f"`num_heads`. Received: depth={depth}, width={width}, "
                f"num_heads={num_heads}."
            )
        inputs = chunk_inputs(action_dim, horizon, condition_shape, two_times)
        c = Dense(width, dtype=float_dtype(), name="condition_in")(
            flat_condition(inputs)
        )
        c = Dense(width, dtype=float_dtype(), name="condition_out")(_gelu(c))
        c = c + embedded_times(inputs, width)
        x = Dense(action_dim, dtype=dtype, name="action_in")(inputs["x"])
        x = Dense(width, dtype=dtype, name="action_out")(_gelu(x))
        x = LearnedPositions("glorot_uniform", dtype=dtype, name="positions")(x)
        encoded = c
        for i in range(depth):
            encoded = TokenBlock(
                mlp_ratio, dropout, dtype=dtype, name=f"encoder_{i}"
            )(encoded)
            x = ModulatedBlock(
                num_heads, mlp_ratio, dropout, dtype=dtype, name=f"decoder_{i}"
            )(x, c + ops.cast(encoded, c.dtype))
        y = ModulatedOutput(action_dim, dtype=dtype, name="final")(
            x, c + ops.cast(encoded, c.dtype)
        )
        super().__init__(inputs, y, name=name)
