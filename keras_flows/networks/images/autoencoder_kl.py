"""The autoencoder of latent diffusion (arXiv 2112.10752), Stable Diffusion's.

An encoder gives the mean and log variance of a latent of an eighth of the
image's side, a decoder the image of a latent. Diffusion models take latents
of about unit variance, (z - shift) * scale of the z that the networks inside
work with; this class scales where its encoder ends and unscales where its
decoder begins, so that no latent outside it has another scale.
"""

from __future__ import annotations

import math
import typing

import keras
from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.normalization import GroupNormalization
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops import sum_flat
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import Shape


def _convolution(channels, size, dtype, name, **kwargs):
    return layers.Conv2D(
        channels,
        size,
        **({"padding": "same"} | kwargs),
        data_format="channels_last",
        dtype=dtype,
        name=name,
    )


def _norm(groups, dtype, name):
    return GroupNormalization(groups, epsilon=1e-6, dtype=dtype, name=name)


@register
class ResidualBlock(layers.Layer):
    """x + conv(silu(norm(conv(silu(norm(x)))))): (B, H, W, C) -> (.., out).

    Args:
        channels: channels of the output; x goes through a 1 x 1 convolution
            where it has others.
        groups: number of groups of the normalisations.
    """

    def __init__(self, channels, groups=32, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.groups = groups

    def build(self, input_shape):
        if self.built:
            return
        *space, channels = input_shape
        out, dtype = self.channels, self.dtype_policy
        self.norm1 = _norm(self.groups, dtype, "norm1")
        self.conv1 = _convolution(out, 3, dtype, "conv1")
        self.norm2 = _norm(self.groups, dtype, "norm2")
        self.conv2 = _convolution(out, 3, dtype, "conv2")
        self.norm1.build(input_shape)
        self.conv1.build(input_shape)
        self.norm2.build((*space, out))
        self.conv2.build((*space, out))
        self.shortcut = None
        if out != channels:
            self.shortcut = _convolution(out, 1, dtype, "shortcut")
            self.shortcut.build(input_shape)
        self.built = True

    def call(self, x):
        skip = x if self.shortcut is None else self.shortcut(x)
        x = self.conv1(ops.silu(self.norm1(x)))
        return skip + self.conv2(ops.silu(self.norm2(x)))

    def get_config(self):
        return {
            **super().get_config(),
            "channels": self.channels,
            "groups": self.groups,
        }


@register
class AttentionBlock(layers.Layer):
    """x + attention(norm(x)) of one head over pixels, (B, H, W, C).

    Args:
        groups: number of groups of the normalisation.
    """

    def __init__(self, groups=32, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups

    def build(self, input_shape):
        if self.built:
            return
        dtype = self.dtype_policy
        self.norm = _norm(self.groups, dtype, "norm")
        self.attention = SelfAttention(1, dtype=dtype, name="attention")
        self.norm.build(input_shape)
        self.attention.build((None, None, input_shape[-1]))
        self.built = True

    def call(self, x):
        _, height, width, channels = x.shape
        tokens = ops.reshape(self.norm(x), (-1, height * width, channels))
        y = self.attention(tokens)
        return x + ops.reshape(y, (-1, height, width, channels))

    def get_config(self):
        return {**super().get_config(), "groups": self.groups}


def _middle(x, groups, dtype, name):
    channels = x.shape[-1]
    x = ResidualBlock(channels, groups, dtype=dtype, name=f"{name}_block0")(x)
    x = AttentionBlock(groups, dtype=dtype, name=f"{name}_attention")(x)
    return ResidualBlock(channels, groups, dtype=dtype, name=f"{name}_block1")(
        x
    )


def _encoder(
    image_shape, latent_channels, channels, depth, groups, scale, shift, dtype
):
    """A model (B, H, W, C) -> mean and log variance of scaled latents."""
    image = keras.Input(image_shape, dtype=float_dtype(), name="image")
    x = _convolution(channels[0], 3, dtype, "encoder_in")(image)
    for level, out in enumerate(channels):
        name = f"encoder_{level}"
        for i in range(depth):
            x = ResidualBlock(
                out, groups, dtype=dtype, name=f"{name}_block{i}"
            )(x)
        if level < len(channels) - 1:
            # Padded on one side, unlike "same" of PyTorch.
            x = layers.ZeroPadding2D(
                ((0, 1), (0, 1)),
                data_format="channels_last",
                dtype=dtype,
                name=f"{name}_pad",
            )(x)
            x = _convolution(
                out, 3, dtype, f"{name}_down", strides=2, padding="valid"
            )(x)
    x = _middle(x, groups, dtype, "encoder_middle")
    x = ops.silu(_norm(groups, dtype, "encoder_out_norm")(x))
    x = _convolution(2 * latent_channels, 3, dtype, "encoder_out")(x)
    x = _convolution(2 * latent_channels, 1, dtype, "quantize")(x)
    mean, logvar = ops.split(ops.cast(x, float_dtype()), 2, axis=-1)
    logvar = ops.clip(logvar, -30.0, 20.0) + 2.0 * math.log(scale)
    return keras.Model(image, ((mean - shift) * scale, logvar), name="encoder")


def _decoder(
    latent_shape, out_channels, channels, depth, groups, scale, shift, dtype
):
    """A model of scaled latents (B, h, w, c) -> (B, H, W, C)."""
    latents = keras.Input(latent_shape, dtype=float_dtype(), name="latents")
    x = latents / scale + shift
    x = _convolution(latent_shape[-1], 1, dtype, "unquantize")(x)
    x = _convolution(channels[-1], 3, dtype, "decoder_in")(x)
    x = _middle(x, groups, dtype, "decoder_middle")
    for level, out in reversed(list(enumerate(channels))):
        name = f"decoder_{level}"
        for i in range(depth + 1):
            x = ResidualBlock(
                out, groups, dtype=dtype, name=f"{name}_block{i}"
            )(x)
        if level > 0:
            x = layers.UpSampling2D(
                2,
                data_format="channels_last",
                interpolation="nearest",
                dtype=dtype,
                name=f"{name}_double",
            )(x)
            x = _convolution(out, 3, dtype, f"{name}_up")(x)
    x = ops.silu(_norm(groups, dtype, "decoder_out_norm")(x))
    x = _convolution(out_channels, 3, dtype, "decoder_out")(x)
    return keras.Model(latents, ops.cast(x, float_dtype()), name="decoder")


def _check_arguments(image_shape, channels, groups, scale):
    if not channels:
        raise ValueError(
            "`block_out_channels` must name the channels of one resolution "
            f"at least. Received: {channels!r}."
        )
    factor = 2 ** (len(channels) - 1)
    if image_shape[0] % factor or image_shape[1] % factor:
        raise ValueError(
            f"`image_shape` must be a multiple of {factor} pixels for "
            f"{len(channels)} resolutions of `block_out_channels`; pad or "
            f"resize the images. Received: {image_shape!r}."
        )
    if groups < 1 or any(c % groups for c in channels):
        raise ValueError(
            f"`norm_groups` ({groups!r}) must divide each of "
            f"`block_out_channels` {channels!r}; choose a common divisor."
        )
    if not scale > 0:
        raise ValueError(
            "`scaling_factor` must be positive: one over the standard "
            f"deviation of the latents, or 1. Received: {scale!r}."
        )


def _check_input(argument, x, shape, what):
    if tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"`{argument}` must be a batch of {what}, channels last, of shape "
            f"{('batch', *shape)}. Received: {tuple(x.shape)}. Transpose or "
            "resize it, or build the autoencoder for its size; weights fit "
            "any size."
        )


@register
class AutoencoderKL(DescribedModel):
    """Variational autoencoder between images and latents, Stable Diffusion's.

    Every latent that this model returns or takes is scaled,
    (z - shift_factor) * scaling_factor: `encode` (and so `sample` and
    `latents`) applies it, `decode` undoes it, and the raw z of the published
    code stays inside. Latents stored raw by other code become ours by that
    formula. Calling the model gives the reconstruction decode(mean) of an
    image (B, H, W, C). Images are in [-1, 1].

    The defaults are Stable Diffusion 1's (`stabilityai/sd-vae-ft-ema`, in
    diffusers' `AutoencoderKL`); `kf.presets.convert` reads their weights.

    Args:
        image_shape: (H, W, C) of one image; H and W must be multiples of
            2^(len(block_out_channels) - 1), the downsampling factor f.
        latent_channels: c of the latents (B, H / f, W / f, c).
        block_out_channels: channels at each resolution, the finest first.
        layers_per_block: residual blocks at each resolution of the encoder;
            the decoder has one more.
        norm_groups: groups of the normalisations; must divide each of
            `block_out_channels`.
        scaling_factor: one over the raw latents' standard deviation.
        shift_factor: their mean.
        dtype: dtype policy of the layers; latents and images are float32.
        name: model name.

    Attributes:
        encoder: model of images to (mean, logvar) as `encode`.
        decoder: model of latents to images as `decode`.
        latent_shape: (H / f, W / f, c), a network's `image_shape`.

    Example:

    ```python
    vae = kf.networks.AutoencoderKL((256, 256, 3))
    latents = vae.latents(images, seed=0)
    network = kf.networks.DiT.from_size("XL/2", vae.latent_shape)
    images = vae.decode(latents)
    ```
    """

    @checked(
        image_shape=given.IMAGE_SHAPE,
        block_out_channels=given.SIZES,
        latent_channels=SIZE,
        layers_per_block=SIZE,
        norm_groups=SIZE,
        scaling_factor=POSITIVE,
        shift_factor=REAL,
    )
    def __init__(
        self,
        image_shape: Shape = (256, 256, 3),
        latent_channels: int = 4,
        block_out_channels: Shape = (128, 256, 512, 512),
        layers_per_block: int = 2,
        norm_groups: int = 32,
        scaling_factor: float = 0.18215,
        shift_factor: float = 0.0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "autoencoder_kl",
    ) -> None:
        channels = block_out_channels
        _check_arguments(image_shape, channels, norm_groups, scaling_factor)
        factor = 2 ** (len(channels) - 1)
        height, width, image_channels = image_shape
        latent_shape = height // factor, width // factor, latent_channels
        shared = (
            channels,
            layers_per_block,
            norm_groups,
            scaling_factor,
            shift_factor,
            dtype,
        )
        encoder = _encoder(image_shape, latent_channels, *shared)
        decoder = _decoder(latent_shape, image_channels, *shared)
        image = keras.Input(image_shape, dtype=float_dtype(), name="image")
        super().__init__(image, decoder(encoder(image)[0]), name=name)
        self.encoder = encoder
        self.decoder = decoder
        self.latent_shape = latent_shape
        self._image_shape = image_shape
        self._scaling = scaling_factor, shift_factor

    def encode(self, x):
        """Mean and log variance of the scaled latents of images.

        The raw log variance is clipped to [-30, 20] first; scaled, it has
        2 log(scaling_factor) more.

        Args:
            x: (B, H, W, C) images in [-1, 1].

        Returns:
            (mean, logvar), each (B, H / f, W / f, c).
        """
        x = ops.convert_to_tensor(x, dtype=float_dtype())
        _check_input("x", x, self._image_shape, "images")
        return self.encoder(x)

    def sample(self, mean, logvar, seed=None):
        """Scaled latents mean + exp(logvar / 2) n with n ~ N(0, 1).

        Args:
            mean: (B, h, w, c), of `encode`.
            logvar: (B, h, w, c), of `encode`.
            seed: int or `keras.random.SeedGenerator`.
        """
        mean, logvar = map(ops.convert_to_tensor, (mean, logvar))
        noise = keras.random.normal(
            ops.shape(mean), dtype=mean.dtype, seed=seed
        )
        return mean + ops.exp(0.5 * logvar) * noise

    def latents(self, x, seed=None):
        """Scaled latents of images: `sample` of what `encode` gives."""
        return self.sample(*self.encode(x), seed=seed)

    def decode(self, latents):
        """Images of scaled latents, which it unscales.

        Args:
            latents: (B, h, w, c), of `encode`, `sample`, `latents` or of a
                model trained on them.

        Returns:
            (B, H, W, C) images, in [-1, 1] but for errors of the decoder.
        """
        latents = ops.convert_to_tensor(latents, dtype=float_dtype())
        _check_input("latents", latents, self.latent_shape, "latents")
        return self.decoder(latents)

    def kl_divergence(self, mean, logvar):
        """KL(N(raw mean, raw variance) || N(0, 1)) of each example: (B,).

        Args:
            mean: (B, h, w, c), of `encode`.
            logvar: (B, h, w, c), of `encode`.
        """
        scale, shift = self._scaling
        mean = mean / scale + shift
        logvar = logvar - 2.0 * math.log(scale)
        return 0.5 * sum_flat(mean * mean + ops.exp(logvar) - 1.0 - logvar)
