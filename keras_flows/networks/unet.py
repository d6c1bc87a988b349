"""EDM's U-Nets (arXiv 2206.00364): DDPM++, NCSN++ and ADM.

One residual block, with what distinguishes the three as arguments. The
networks take EDM's c_noise as `t`; `kf.EDMInterface` gives it.
"""

import math

import keras
import numpy as np
from keras import initializers
from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers import Dense
from keras_flows.networks.layers import GroupNormalization
from keras_flows.networks.layers import SelfAttention
from keras_flows.ops import float_dtype
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


def _kernel(init):
    if init is None:
        return initializers.Zeros()
    return initializers.VarianceScaling(distribution="uniform", **init)


def _bias(style, fan_in):
    if not style["bias"]:
        return initializers.Zeros()
    limit = 1.0 / math.sqrt(fan_in)
    return initializers.RandomUniform(-limit, limit)


def _convolution(style, channels, out_channels, size, init, dtype, name):
    bias = style if style[init] is not None else SONG
    return layers.Conv2D(
        out_channels,
        size,
        padding="same",
        kernel_initializer=_kernel(style[init]),
        bias_initializer=_bias(bias, channels * size * size),
        dtype=dtype,
        name=name,
    )


def _norm(channels, epsilon, dtype, name):
    # At least four channels in a group.
    groups = min(32, channels // 4)
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
        self.norm0 = _norm(channels, self.epsilon, dtype, "norm0")
        self.conv0 = _convolution(
            style, channels, out, 3, "init", dtype, "conv0"
        )
        self.affine = Dense(
            out if song else 2 * out,
            kernel_initializer=_kernel(style["init"]),
            bias_initializer=_bias(style, emb_shape[-1]),
            dtype=dtype,
            name="affine",
        )
        self.norm1 = _norm(out, self.epsilon, dtype, "norm1")
        self.drop = layers.Dropout(self.dropout, dtype=dtype, name="dropout")
        self.conv1 = _convolution(style, out, out, 3, "zero", dtype, "conv1")
        space = x_shape[:-1]
        self.norm0.build(x_shape)
        self.conv0.build(x_shape)
        self.affine.build(emb_shape)
        self.norm1.build((*space, out))
        self.conv1.build((*space, out))
        self.skip = None
        if out != channels or (self.resample and song):
            self.skip = _convolution(
                style, channels, out, 1, "init", dtype, "skip"
            )
            self.skip.build(x_shape)
        if self.num_heads:
            self.norm2 = _norm(out, self.epsilon, dtype, "norm2")
            self.attention = SelfAttention(
                self.num_heads,
                qkv_initializer=_kernel(style["attention"]),
                out_initializer=_kernel(style["zero"]),
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
            initializer=_kernel(SONG["init"]),
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


@register
class NoiseEmbedding(layers.Layer):
    """Sines and cosines of c_noise: (B,) -> (B, dim), float32.

    Args:
        dim: number of features, even.
        kind: "ddpm++" (geometric frequencies to 1/10000, sines first),
            "adm" (short of 1/10000, cosines first) or "ncsn++" (random
            frequencies N(0, 16^2), kept with the weights, sines first).
    """

    def __init__(self, dim, kind, **kwargs):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.dim = dim
        self.kind = kind
        half = dim // 2
        last = half if kind == "adm" else half - 1
        self._frequencies = 10_000.0 ** (-np.arange(half) / last)

    def build(self, input_shape):
        if self.built:
            return
        if self.kind == "ncsn++":
            drawn = np.random.default_rng(0).normal(0.0, 16.0, self.dim // 2)
            self.freqs = self.add_weight(
                shape=drawn.shape,
                initializer=lambda shape, dtype: ops.convert_to_tensor(
                    drawn, dtype=dtype
                ),
                trainable=False,
                name="freqs",
            )
        self.built = True

    def call(self, t):
        if self.kind == "ncsn++":
            frequencies = 2.0 * math.pi * self.freqs
        else:
            frequencies = ops.convert_to_tensor(
                self._frequencies, dtype=t.dtype
            )
        angles = ops.expand_dims(t, -1) * frequencies
        features = [ops.sin(angles), ops.cos(angles)]
        if self.kind == "adm":
            features.reverse()
        return ops.concatenate(features, axis=-1)

    def get_config(self):
        return {**super().get_config(), "dim": self.dim, "kind": self.kind}


@register
class LabelProjection(layers.Layer):
    """Dense(scale one_hot(label)): (B,) -> (B, units); null label: no vector.

    Args:
        num_classes: number of labels; label `num_classes` is the null label.
        units: size of the embedding.
        use_bias: whether there is a bias.
        scale: factor of the one-hot vector.
        initializer: of the kernel.
    """

    def __init__(
        self,
        num_classes,
        units,
        use_bias,
        scale=1.0,
        initializer="glorot_uniform",
        **kwargs,
    ):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.units = units
        self.use_bias = use_bias
        self.scale = scale
        self.initializer = initializers.get(initializer)

    def build(self, input_shape):
        if self.built:
            return
        self.kernel = self.add_weight(
            shape=(self.num_classes, self.units),
            initializer=self.initializer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer="zeros", name="bias"
            )
        self.built = True

    def call(self, labels):
        one_hot = ops.one_hot(
            labels, self.num_classes + 1, dtype=self.compute_dtype
        )
        y = ops.matmul(self.scale * one_hot[:, :-1], self.kernel)
        return y if self.bias is None else y + self.bias

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "units": self.units,
            "use_bias": self.use_bias,
            "scale": self.scale,
            "initializer": initializers.serialize(self.initializer),
        }


def _inputs(image_shape, levels, two_times, num_classes):
    if len(image_shape) != 3:
        raise ValueError(
            "`image_shape` must be (height, width, channels). "
            f"Received: {image_shape!r}."
        )
    factor = 2 ** (levels - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise ValueError(
            f"`image_shape` must be a multiple of {factor} pixels for "
            f"{levels} levels of `channel_mult`. Received: {image_shape!r}."
        )
    inputs = {
        "x": keras.Input(tuple(image_shape), dtype=float_dtype(), name="x"),
        "t": keras.Input((), dtype=float_dtype(), name="t"),
    }
    if two_times:
        inputs["r"] = keras.Input((), dtype=float_dtype(), name="r")
    if num_classes is not None:
        inputs["condition"] = keras.Input((), dtype="int32", name="condition")
    return inputs


def _embedded_times(inputs, dim, kind):
    """c_noise's features; with `r`, those of t - r through a projection."""
    emb = NoiseEmbedding(dim, kind, name="map_noise")(inputs["t"])
    if "r" not in inputs:
        return emb
    interval = NoiseEmbedding(dim, kind, name="map_interval_noise")(
        inputs["t"] - inputs["r"]
    )
    return emb + Dense(dim, dtype=float_dtype(), name="map_interval")(interval)


def _mapping(style, units, activation, name, fan_in):
    return Dense(
        units,
        activation=activation,
        kernel_initializer=_kernel(style["init"]),
        bias_initializer=_bias(style, fan_in),
        dtype=float_dtype(),
        name=name,
    )


def _unet(x, emb, block, style, channels, mult, num_blocks, attends,
          decoder_attends, residual_taps, dtype):  # fmt: skip
    """Encoder and decoder around one kind of block; features before the head.

    Args:
        block: function (out_channels, name, resample, attention) -> layer.
        attends: function of the height: whether blocks attend there.
        decoder_attends: the same for a decoder block, with its index.
        residual_taps: filter of NCSN++'s progressive input, or None.
    """
    height = x.shape[1]
    aux = x
    skips = []
    for level, factor in enumerate(mult):
        res = height >> level
        name = f"enc_{res}x{res}"
        if level == 0:
            out = channels * (factor if style is DHARIWAL else 1)
            x = _convolution(
                style, x.shape[-1], out, 3, "init", dtype, f"{name}_conv"
            )(x)
            skips.append(x)
        else:
            x = block(x.shape[-1], f"{name}_down", "down", False)(x, emb)
            if residual_taps is not None:
                aux = ResidualDown(
                    x.shape[-1],
                    residual_taps,
                    dtype=dtype,
                    name=f"{name}_aux_residual",
                )(aux)
                x = aux = (x + aux) / math.sqrt(2.0)
            skips.append(x)
        for i in range(num_blocks):
            x = block(
                channels * factor, f"{name}_block{i}", None, attends(res)
            )(x, emb)
            skips.append(x)
    for level, factor in reversed(list(enumerate(mult))):
        res = height >> level
        name = f"dec_{res}x{res}"
        if level == len(mult) - 1:
            x = block(x.shape[-1], f"{name}_in0", None, True)(x, emb)
            x = block(x.shape[-1], f"{name}_in1", None, False)(x, emb)
        else:
            x = block(x.shape[-1], f"{name}_up", "up", False)(x, emb)
        for i in range(num_blocks + 1):
            x = layers.Concatenate(dtype=dtype, name=f"{name}_skip{i}")(
                [x, skips.pop()]
            )
            x = block(
                channels * factor,
                f"{name}_block{i}",
                None,
                decoder_attends(res, i),
            )(x, emb)
    return x


@register
class SongUNet(DescribedModel):
    """DDPM++ and NCSN++, as in EDM.

    Args:
        image_shape: (H, W, C).
        channels: base number of channels.
        channel_mult: their multiples, one for each resolution.
        num_blocks: residual blocks at each resolution.
        attn_resolutions: heights at which blocks attend.
        dropout: rate inside the blocks.
        architecture: "ddpm++" or "ncsn++".
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: where given, `condition` is a label below it; label
            `num_classes` is the null label, `null_label`.
        dtype: dtype policy; times are embedded in float32.
        name: model name.
    """

    def __init__(
        self,
        image_shape,
        channels=128,
        channel_mult=(1, 2, 2, 2),
        num_blocks=4,
        attn_resolutions=(16,),
        dropout=0.1,
        architecture="ddpm++",
        two_times=False,
        num_classes=None,
        dtype=None,
        name="song_unet",
    ):
        if architecture not in ("ddpm++", "ncsn++"):
            raise ValueError(
                "`architecture` must be 'ddpm++' or 'ncsn++'. "
                f"Received: {architecture!r}."
            )
        ncsn = architecture == "ncsn++"
        taps = (1, 3, 3, 1) if ncsn else (1, 1)
        inputs = _inputs(image_shape, len(channel_mult), two_times, num_classes)
        noise = channels * (2 if ncsn else 1)
        emb = _embedded_times(inputs, noise, architecture)
        if num_classes is not None:
            emb = emb + LabelProjection(
                num_classes,
                noise,
                use_bias=True,
                scale=math.sqrt(num_classes),
                name="map_label",
            )(inputs["condition"])
        emb = _mapping(SONG, 4 * channels, "silu", "map_layer0", noise)(emb)
        emb = _mapping(SONG, 4 * channels, "silu", "map_layer1", 4 * channels)(
            emb
        )

        def block(out, name, resample, attention):
            return UNetBlock(
                out,
                resample,
                num_heads=1 if attention else 0,
                dropout=dropout,
                skip_scale=math.sqrt(0.5),
                epsilon=1e-6,
                taps=taps,
                style="song",
                dtype=dtype,
                name=name,
            )

        height, out = image_shape[0], image_shape[-1]
        x = _unet(
            inputs["x"],
            emb,
            block,
            SONG,
            channels,
            channel_mult,
            num_blocks,
            lambda res: res in attn_resolutions,
            lambda res, i: i == num_blocks and res in attn_resolutions,
            taps if ncsn else None,
            dtype,
        )
        head = f"dec_{height}x{height}_aux"
        x = ops.silu(_norm(x.shape[-1], 1e-6, dtype, f"{head}_norm")(x))
        y = _convolution(
            SONG, x.shape[-1], out, 3, "zero", dtype, f"{head}_conv"
        )(x)
        super().__init__(inputs, y, name=name)
        self.null_label = num_classes
        self._arguments = {
            "image_shape": tuple(image_shape),
            "channels": channels,
            "channel_mult": tuple(channel_mult),
            "num_blocks": num_blocks,
            "attn_resolutions": tuple(attn_resolutions),
            "dropout": dropout,
            "architecture": architecture,
            "two_times": two_times,
            "num_classes": num_classes,
            "dtype": dtype,
            "name": name,
        }


@register
class DhariwalUNet(DescribedModel):
    """ADM (arXiv 2105.05233), as in EDM.

    Args:
        image_shape: (H, W, C).
        channels: base number of channels.
        channel_mult: their multiples, one for each resolution.
        num_blocks: residual blocks at each resolution.
        attn_resolutions: heights at which blocks attend, 64 channels a head.
        dropout: rate inside the blocks.
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: where given, `condition` is a label below it; label
            `num_classes` is the null label, `null_label`.
        dtype: dtype policy; times are embedded in float32.
        name: model name.
    """

    def __init__(
        self,
        image_shape,
        channels=192,
        channel_mult=(1, 2, 3, 4),
        num_blocks=3,
        attn_resolutions=(32, 16, 8),
        dropout=0.1,
        two_times=False,
        num_classes=None,
        dtype=None,
        name="dhariwal_unet",
    ):
        inputs = _inputs(image_shape, len(channel_mult), two_times, num_classes)
        units = 4 * channels
        emb = _embedded_times(inputs, channels, "adm")
        emb = _mapping(DHARIWAL, units, "silu", "map_layer0", channels)(emb)
        emb = _mapping(DHARIWAL, units, None, "map_layer1", units)(emb)
        if num_classes is not None:
            emb = emb + LabelProjection(
                num_classes,
                units,
                use_bias=False,
                # Kaiming's sqrt(1 / n) times sqrt(n): unit variance.
                initializer=initializers.RandomNormal(stddev=1.0),
                name="map_label",
            )(inputs["condition"])
        emb = ops.silu(emb)

        def block(out, name, resample, attention):
            return UNetBlock(
                out,
                resample,
                num_heads=max(out // 64, 1) if attention else 0,
                dropout=dropout,
                style="dhariwal",
                dtype=dtype,
                name=name,
            )

        x = _unet(
            inputs["x"],
            emb,
            block,
            DHARIWAL,
            channels,
            channel_mult,
            num_blocks,
            lambda res: res in attn_resolutions,
            lambda res, i: res in attn_resolutions,
            None,
            dtype,
        )
        x = ops.silu(_norm(x.shape[-1], 1e-5, dtype, "out_norm")(x))
        y = _convolution(
            DHARIWAL, x.shape[-1], image_shape[-1], 3, "zero", dtype, "out_conv"
        )(x)
        super().__init__(inputs, y, name=name)
        self.null_label = num_classes
        self._arguments = {
            "image_shape": tuple(image_shape),
            "channels": channels,
            "channel_mult": tuple(channel_mult),
            "num_blocks": num_blocks,
            "attn_resolutions": tuple(attn_resolutions),
            "dropout": dropout,
            "two_times": two_times,
            "num_classes": num_classes,
            "dtype": dtype,
            "name": name,
        }
