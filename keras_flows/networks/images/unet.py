"""EDM's U-Nets (arXiv 2206.00364): DDPM++, NCSN++ and ADM.

One residual block, with what distinguishes the three as arguments. The
networks take EDM's c_noise as `t`; `kf.EDMInterface` gives it.
"""

from __future__ import annotations

import math
import typing

from keras import initializers
from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.images.transformer import class_counts
from keras_flows.networks.images.transformer import embedded_labels
from keras_flows.networks.images.transformer import image_inputs
from keras_flows.networks.images.unet_layers import DHARIWAL
from keras_flows.networks.images.unet_layers import SONG
from keras_flows.networks.images.unet_layers import ResidualDown
from keras_flows.networks.images.unet_layers import UNetBlock
from keras_flows.networks.images.unet_layers import bias_initializer_of
from keras_flows.networks.images.unet_layers import convolution
from keras_flows.networks.images.unet_layers import group_norm
from keras_flows.networks.images.unet_layers import kernel_initializer_of
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import LabelProjection
from keras_flows.networks.layers.embeddings import NoiseEmbedding
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import PAIRS
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Number
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape


def _inputs(image_shape, levels, two_times, num_classes):
    factor = 2 ** (levels - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise ValueError(
            f"`image_shape` must be a multiple of {factor} pixels for "
            f"{levels} levels of `channel_mult`. Received: {image_shape!r}."
        )
    return image_inputs(image_shape, two_times, num_classes)


# Of the random frequencies of "ncsn++": as published, where there is one time.
# The loss of a flow map has derivatives by its times, which multiply by 2 pi
# times them.
_SCALE, _SCALE_OF_MAPS = 16.0, 0.5


def _embedded_times(inputs, dim, kind, scale=None):
    """c_noise's features; with `r`, those of t - r through a projection."""
    if scale is None:
        scale = _SCALE_OF_MAPS if "r" in inputs else _SCALE
    emb = NoiseEmbedding(dim, kind, scale, name="map_noise")(inputs["t"])
    if "r" not in inputs:
        return emb
    interval = NoiseEmbedding(dim, kind, scale, name="map_interval_noise")(
        inputs["t"] - inputs["r"]
    )
    return emb + Dense(dim, dtype=float_dtype(), name="map_interval")(interval)


def _mapping(style, units, activation, name, fan_in):
    return Dense(
        units,
        activation=activation,
        kernel_initializer=kernel_initializer_of(style["init"]),
        bias_initializer=bias_initializer_of(style, fan_in),
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
            x = convolution(
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
        noise_scale: standard deviation of the random frequencies of "ncsn++",
            in turns per unit of c_noise; by default 16, as published, and
            0.5 with `two_times`: flow maps learn badly from fast ones.
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: as in `DiT`.
        dtype: dtype policy; times are embedded in float32.
        name: model name.
    """

    @checked(
        image_shape=given.IMAGE_SHAPE,
        channel_mult=given.SIZES,
        attn_resolutions=given.SIZES,
        channels=PAIRS,
        num_blocks=SIZE,
        dropout=Number(0, below=1),
        two_times=FLAG,
        num_classes=class_counts,
        noise_scale=Optional(POSITIVE),
    )
    def __init__(
        self,
        image_shape: Shape,
        channels: int = 128,
        channel_mult: Shape = (1, 2, 2, 2),
        num_blocks: int = 4,
        attn_resolutions: Shape = (16,),
        dropout: float = 0.1,
        architecture: str = "ddpm++",
        two_times: bool = False,
        num_classes: int | dict[str, int] | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "song_unet",
        noise_scale: float | None = None,
    ) -> None:
        given.choice("architecture", architecture, ("ddpm++", "ncsn++"))
        ncsn = architecture == "ncsn++"
        taps = (1, 3, 3, 1) if ncsn else (1, 1)
        inputs = _inputs(image_shape, len(channel_mult), two_times, num_classes)
        noise = channels * (2 if ncsn else 1)
        emb = _embedded_times(inputs, noise, architecture, noise_scale)
        if num_classes is not None:
            emb = emb + embedded_labels(
                inputs,
                num_classes,
                lambda count, name: LabelProjection(
                    count,
                    noise,
                    use_bias=True,
                    scale=math.sqrt(count),
                    name=name,
                ),
                "map_label",
            )
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
        x = ops.silu(group_norm(x.shape[-1], 1e-6, dtype, f"{head}_norm")(x))
        y = convolution(
            SONG, x.shape[-1], out, 3, "zero", dtype, f"{head}_conv"
        )(x)
        super().__init__(inputs, y, name=name)
        self.null_label = num_classes


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
        num_classes: as in `DiT`.
        dtype: dtype policy; times are embedded in float32.
        name: model name.
    """

    @checked(
        image_shape=given.IMAGE_SHAPE,
        channel_mult=given.SIZES,
        attn_resolutions=given.SIZES,
        channels=PAIRS,
        num_blocks=SIZE,
        dropout=Number(0, below=1),
        two_times=FLAG,
        num_classes=class_counts,
    )
    def __init__(
        self,
        image_shape: Shape,
        channels: int = 192,
        channel_mult: Shape = (1, 2, 3, 4),
        num_blocks: int = 3,
        attn_resolutions: Shape = (32, 16, 8),
        dropout: float = 0.1,
        two_times: bool = False,
        num_classes: int | dict[str, int] | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "dhariwal_unet",
    ) -> None:
        inputs = _inputs(image_shape, len(channel_mult), two_times, num_classes)
        units = 4 * channels
        emb = _embedded_times(inputs, channels, "adm")
        emb = _mapping(DHARIWAL, units, "silu", "map_layer0", channels)(emb)
        emb = _mapping(DHARIWAL, units, None, "map_layer1", units)(emb)
        if num_classes is not None:
            emb = emb + embedded_labels(
                inputs,
                num_classes,
                lambda count, name: LabelProjection(
                    count,
                    units,
                    use_bias=False,
                    # Kaiming's sqrt(1 / n) times sqrt(n): unit variance.
                    initializer=initializers.RandomNormal(stddev=1.0),
                    name=name,
                ),
                "map_label",
            )
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
        x = ops.silu(group_norm(x.shape[-1], 1e-5, dtype, "out_norm")(x))
        y = convolution(
            DHARIWAL, x.shape[-1], image_shape[-1], 3, "zero", dtype, "out_conv"
        )(x)
        super().__init__(inputs, y, name=name)
        self.null_label = num_classes
