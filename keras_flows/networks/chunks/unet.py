"""A U-Net over the time of a chunk of actions (arXiv 2303.04137).

Convolutions along the horizon; each residual block is scaled and shifted by
the embedding of the times and of the observation (FiLM, arXiv 1709.07871).
"""

from __future__ import annotations

import typing

import numpy as np
from keras import layers
from keras import ops

from keras_flows.networks.chunks.inputs import chunk_inputs
from keras_flows.networks.chunks.inputs import embedded_times
from keras_flows.networks.chunks.inputs import flat_condition
from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import GroupNormalization
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import FOURFOLD
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape


def _groups(channels):
    # At least four channels in a group.
    return max(min(8, channels // 4), 1)


@register
class FiLMBlock(layers.Layer):
    """Residual block along time: (B, T, C), (B, D) -> (B, T, out).

    gelu(norm(conv(scale * gelu(norm(conv(x))) + shift))) + skip, with scale
    and shift Dense(gelu(emb)); the scale is not 1 + Dense, as published.

    Args:
        out_channels: channels of the output.
        kernel_size: width of the convolutions, odd.
        scale: whether there is a scale; the shift always is.
    """

    def __init__(self, out_channels, kernel_size=5, scale=True, **kwargs):
        super().__init__(**kwargs)
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.scale = scale

    def build(self, x_shape, emb_shape):
        if self.built:
            return
        out, dtype = self.out_channels, self.dtype_policy
        inner = (*x_shape[:-1], out)

        def conv(size, name):
            return layers.Conv1D(
                out, size, padding="same", dtype=dtype, name=name
            )

        def norm(name):
            return GroupNormalization(
                _groups(out), 1e-5, dtype=dtype, name=name
            )

        self.conv_1, self.norm_1 = (
            conv(self.kernel_size, "conv_1"),
            norm("norm_1"),
        )
        self.conv_2, self.norm_2 = (
            conv(self.kernel_size, "conv_2"),
            norm("norm_2"),
        )
        self.film = Dense(
            2 * out if self.scale else out, dtype=dtype, name="film"
        )
        self.conv_1.build(x_shape)
        self.norm_1.build(inner)
        self.conv_2.build(inner)
        self.norm_2.build(inner)
        self.film.build(emb_shape)
        self.skip = None
        if x_shape[-1] != out:
            self.skip = conv(1, "skip")
            self.skip.build(x_shape)
        self.built = True

    def call(self, x, emb):
        h = ops.gelu(self.norm_1(self.conv_1(x)), approximate=False)
        shift = self.film(ops.gelu(emb, approximate=False))[:, None]
        if self.scale:
            scale, shift = ops.split(shift, 2, axis=-1)
            h = scale * h
        h = self.norm_2(self.conv_2(h + shift))
        skip = x if self.skip is None else self.skip(x)
        return ops.gelu(h, approximate=False) + skip

    def get_config(self):
        return {
            **super().get_config(),
            "out_channels": self.out_channels,
            "kernel_size": self.kernel_size,
            "scale": self.scale,
        }


def _embedding(inputs, width):
    """[MLP of both times, Dense of the condition]: (B, 2 width), float32."""
    emb = embedded_times(inputs, width)
    hidden = Dense(4 * width, dtype=float_dtype(), name="time_hidden")(emb)
    emb = Dense(width, dtype=float_dtype(), name="time_out")(
        ops.gelu(hidden, approximate=False)
    )
    condition = Dense(width, dtype=float_dtype(), name="condition_embedding")(
        flat_condition(inputs)
    )
    return layers.Concatenate(dtype=float_dtype(), name="embedding")(
        [emb, condition]
    )


@register
class TemporalUNet(DescribedModel):
    """The conditional U-Net of Diffusion Policy.

    A functional model with inputs `x` (B, horizon, action_dim), `t` (B,),
    where asked for `r` (B,), and `condition` (B, *condition_shape), one
    vector for all blocks; the output has the shape of x. Without `r` the
    embedding of t enters twice, and the network is the published one at
    s = t. Source: arXiv 2303.04137 in the form of arXiv 2512.01809 (two
    times, GELU for Mish); its scalar output and its conditioning step by
    step are left out.

    Args:
        action_dim: number of coordinates of an action.
        horizon: number of actions of a chunk; each level but the last halves
            it.
        condition_shape: (obs_steps, channels) or (channels,) of one
            observation.
        two_times: whether the network takes `r`, as flow maps need.
        width: channels before `width_mult`.
        width_mult: factor of the channels at each level over those at the
            level above: the factors multiply up.
        embedding_width: size of the times' and of the condition's embedding.
        kernel_size: width of the convolutions, odd.
        scale: whether blocks are scaled by the embedding, not only shifted.
        dropout: rate, before the last but one convolution; the published
            network has none.
        dtype: dtype policy of the blocks; times and condition are embedded
            in float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.TemporalUNet(4, 16, condition_shape=(2, 39))
    ```
    """

    @checked(
        width_mult=given.factors,
        condition_shape=given.SIZES,
        action_dim=SIZE,
        horizon=SIZE,
        two_times=FLAG,
        width=SIZE,
        embedding_width=FOURFOLD,
        kernel_size=SIZE,
        scale=FLAG,
        dropout=Number(0, below=1),
    )
    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_shape: Shape,
        two_times: bool = False,
        width: int = 128,
        width_mult: Shape = (1, 2, 2),
        embedding_width: int = 256,
        kernel_size: int = 5,
        scale: float = True,
        dropout: float = 0.0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "temporal_unet",
    ) -> None:
        widths = [int(width * m) for m in np.cumprod(width_mult)]
        factor = 2 ** (len(widths) - 1)
        if not widths or horizon % factor:
            raise ValueError(
                f"`horizon` must be a multiple of {factor} for the "
                f"{len(widths)} levels of `width_mult`. Received: {horizon!r}."
            )
        if kernel_size % 2 == 0:
            raise ValueError(
                f"`kernel_size` must be odd. Received: {kernel_size!r}."
            )
        for channels in (width, *widths):
            if channels % _groups(channels):
                raise ValueError(
                    "The channels of each level must be a multiple of their "
                    f"{_groups(channels)} groups. Received: width={width}, "
                    f"width_mult={tuple(width_mult)}, which gives {channels}."
                )
        inputs = chunk_inputs(action_dim, horizon, condition_shape, two_times)
        emb = _embedding(inputs, embedding_width)

        def block(out, name):
            return FiLMBlock(out, kernel_size, scale, dtype=dtype, name=name)

        x, skips = inputs["x"], []
        for i, out in enumerate(widths):
            x = block(out, f"down_{i}_block_0")(x, emb)
            x = block(out, f"down_{i}_block_1")(x, emb)
            skips.append(x)
            if i < len(widths) - 1:
                # Padded by one on either side; "same" pads the end only.
                x = layers.ZeroPadding1D(1, dtype=dtype, name=f"pad_{i}")(x)
                x = layers.Conv1D(
                    out, 3, strides=2, dtype=dtype, name=f"down_{i}_sample"
                )(x)
        for i in range(2):
            x = block(widths[-1], f"middle_block_{i}")(x, emb)
        # The first level's skip is not used, as published: there is one less
        # step up than there are levels.
        for i in reversed(range(1, len(widths))):
            x = layers.Concatenate(dtype=dtype, name=f"join_{i}")(
                [x, skips.pop()]
            )
            x = block(widths[i - 1], f"up_{i}_block_0")(x, emb)
            x = block(widths[i - 1], f"up_{i}_block_1")(x, emb)
            x = layers.Conv1DTranspose(
                widths[i - 1],
                4,
                strides=2,
                padding="same",
                dtype=dtype,
                name=f"up_{i}_sample",
            )(x)
        x = layers.Dropout(dropout, dtype=dtype, name="dropout")(x)
        x = layers.Conv1D(
            width, kernel_size, padding="same", dtype=dtype, name="final_conv"
        )(x)
        x = GroupNormalization(
            _groups(width), 1e-5, dtype=dtype, name="final_norm"
        )(x)
        y = Dense(action_dim, dtype=dtype, name="output")(
            ops.gelu(x, approximate=False)
        )
        super().__init__(inputs, y, name=name)
