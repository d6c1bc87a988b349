"""The layers of EDM's U-Nets: convolutions, resampling, residual blocks."""

import math

import numpy as np
from keras import initializers
from keras import layers
from keras import ops

from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import GroupNormalization
from keras_flows.ops import register

# As EDM names them: Song's Xavier, Dhariwal's PyTorch default.
SONG = {
    "init": {"scale": 1.0, "mode": "fan_avg"},
    "zero": {"scale": 1e-10, "mode": "fan_avg"},
    "attention": {"scale": 0.2, "mode": "fan_avg"},
    "bias": False,
}
DHARIWAL = {
    "init": {"scale": 1.0 / 3.0, "mode": "fan_in"},
    "zero": None,
    "attention": {"scale": 1.0 / 3.0, "mode": "fan_in"},
    "bias": True,
}


def kernel_initializer_of(init):
    if init is None:
        return initializers.Zeros()
    return initializers.VarianceScaling(distribution="uniform", **init)


def bias_initializer_of(style, fan_in):
    if not style["bias"]:
        return initializers.Zeros()
    limit = 1.0 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def convolution(style, channels, out_channels, size, init, dtype, name):
    bias = style if style[init] is not None else SONG
    return layers.Conv2D(
        out_channels,
        size,
        padding="same",
        kernel_initializer=kernel_initializer_of(style[init]),
        bias_initializer=bias_initializer_of(bias, channels * size * size),
        dtype=dtype,
        name=name,
    )


def group_norm(channels, epsilon, dtype, name):
    # At least four channels in a group.
    groups = min(32, channels // 4)
    if not groups or channels % groups:
        raise ValueError(
            "`channels` times each of `channel_mult`, and the sums of two "
            "levels that meet in the decoder, must be at least 4 and a "
            "multiple of their min(32, width // 4) groups: take a multiple "
            f"of 4, above 128 one of 32. Received a width of {channels}."
        )
    return GroupNormalization(groups, epsilon, dtype=dtype, name=name)


def _fir(taps, channels, dtype):
    """Depthwise kernel (k, k, C, 1) of a separable filter of unit sum."""
    taps = np.asarray(taps, dtype="float64")
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    kernel = np.tile(kernel[:, :, None, None], (1, 1, channels, 1))
    return ops.convert_to_tensor(kernel, dtype=dtype)


def _pad(x, before, after):
    if before == after == 0:
        return x
    return ops.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])


def downsample(x, taps, pad=None):
    """Filter and keep every other pixel: (B, H, W, C) -> (B, H/2, W/2, C)."""
    pad = (len(taps) - 1) // 2 if pad is None else pad
    return ops.depthwise_conv(
        _pad(x, pad, pad),
        _fir(taps, x.shape[-1], x.dtype),
        strides=2,
        padding="valid",
        data_format="channels_last",
    )


def upsample(x, taps):
    """Insert zeros and filter: (B, H, W, C) -> (B, 2H, 2W, C)."""
    _, height, width, channels = x.shape
    size = len(taps)
    x = ops.reshape(x, (-1, height, 1, width, 1, channels))
    x = ops.pad(x, [[0, 0], [0, 0], [0, 1], [0, 0], [0, 1], [0, 0]])
    x = ops.reshape(x, (-1, 2 * height, 2 * width, channels))
    before = size - 1 - (size - 1) // 2
    return ops.depthwise_conv(
        _pad(x, before, before - 1),
        4.0 * _fir(taps, channels, x.dtype),
        strides=1,
        padding="valid",
        data_format="channels_last",
    )


@register
class UNetBlock(layers.Layer):
    """EDM's residual block: (B, H, W, C), (B, D) -> (B, H', W', out).

    Args:
        out_channels: channels of the output.
        resample: None, "up" or "down".
        num_heads: number of attention heads, 0 for none.
        dropout: rate.
        skip_scale: factor of the sum of branch and skip.
        epsilon: of the normalisations.
        taps: resampling filter.
        style: "song" (shift by the embedding, projected skips) or
            "dhariwal" (scale and shift).
    """

    def __init__(
        self,
        out_channels,
        resample=None,
        num_heads=0,
        dropout=0.0,
        skip_scale=1.0,
        epsilon=1e-5,
        taps=(1, 1),
        style="song",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.out_channels = out_channels
        self.resample = resample
        self.num_heads = num_heads
        self.dropout = dropout
        self.skip_scale = skip_scale
        self.epsilon = epsilon
        self.taps = tuple(taps)
        self.style = style

    def build(self, x_shape, emb_shape):
        if self.built:
            return
        channels, out, dtype = x_shape[-1], self.out_channels, self.dtype_policy
        song = self.style == "song"
        style = SONG if song else DHARIWAL
        self.norm0 = group_norm(channels, self.epsilon, dtype, "norm0")
        self.conv0 = convolution(
            style, channels, out, 3, "init", dtype, "conv0"
        )
        self.affine = Dense(
            out if song else 2 * out,
            kernel_initializer=kernel_initializer_of(style["init"]),
            bias_initializer=bias_initializer_of(style, emb_shape[-1]),
            dtype=dtype,
            name="affine",
        )
        self.norm1 = group_norm(out, self.epsilon, dtype, "norm1")
        self.drop = layers.Dropout(self.dropout, dtype=dtype, name="dropout")
        self.conv1 = convolution(style, out, out, 3, "zero", dtype, "conv1")
        space = x_shape[:-1]
        self.norm0.build(x_shape)
        self.conv0.build(x_shape)
        self.affine.build(emb_shape)
        self.norm1.build((*space, out))
        self.conv1.build((*space, out))
        self.skip = None
        if out != channels or (self.resample and song):
            self.skip = convolution(
                style, channels, out, 1, "init", dtype, "skip"
            )
            self.skip.build(x_shape)
        if self.num_heads:
            self.norm2 = group_norm(out, self.epsilon, dtype, "norm2")
            self.attention = SelfAttention(
                self.num_heads,
                qkv_initializer=kernel_initializer_of(style["attention"]),
                out_initializer=kernel_initializer_of(style["zero"]),
                dtype=dtype,
                name="attention",
            )
            self.norm2.build((*space, out))
            self.attention.build((None, None, out))
        self.built = True

    def _resampled(self, x):
        if self.resample == "up":
            return upsample(x, self.taps)
        if self.resample == "down":
            return downsample(x, self.taps)
        return x

    def call(self, x, emb, training=None):
        skip = self._resampled(x)
        if self.skip is not None:
            skip = self.skip(skip)
        x = self.conv0(self._resampled(ops.silu(self.norm0(x))))
        shift = self.affine(emb)[:, None, None]
        if self.style == "song":
            x = self.norm1(x + shift)
        else:
            scale, shift = ops.split(shift, 2, axis=-1)
            x = self.norm1(x) * (1.0 + scale) + shift
        x = self.conv1(self.drop(ops.silu(x), training=training))
        x = (x + skip) * self.skip_scale
        if self.num_heads:
            _, height, width, channels = x.shape
            tokens = ops.reshape(self.norm2(x), (-1, height * width, channels))
            y = self.attention(tokens)
            y = ops.reshape(y, (-1, height, width, channels))
            x = (x + y) * self.skip_scale
        return x

    def get_config(self):
        return {
            **super().get_config(),
            "out_channels": self.out_channels,
            "resample": self.resample,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "skip_scale": self.skip_scale,
            "epsilon": self.epsilon,
            "taps": self.taps,
            "style": self.style,
        }


@register
class ResidualDown(layers.Layer):
    """NCSN++'s progressive input: convolve, filter, halve the image.

    Args:
        channels: channels of the output.
        taps: resampling filter.
    """

    def __init__(self, channels, taps, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.taps = tuple(taps)

    def build(self, input_shape):
        if self.built:
            return
        # Not padded: the padding is that of convolution and filter together.
        self.kernel = self.add_weight(
            shape=(3, 3, input_shape[-1], self.channels),
            initializer=kernel_initializer_of(SONG["init"]),
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.channels,), initializer="zeros", name="bias"
        )
        self.built = True

    def call(self, x):
        pad = 1 + (len(self.taps) - 1) // 2
        x = ops.conv(
            _pad(x, pad, pad),
            ops.cast(self.kernel, x.dtype),
            padding="valid",
            data_format="channels_last",
        )
        return downsample(x, self.taps, pad=0) + ops.cast(self.bias, x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "taps": self.taps,
        }
