"""DiT, the diffusion transformer (arXiv 2212.09748), as in SiT and MeanFlow.

Patches of an image are tokens; each block's normalisations are scaled,
shifted and gated by the embedding of time and label, with gates that start
at zero (AdaLN-Zero), so that the network starts as the zero velocity.
"""

import functools

import keras
from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.embeddings import TimestepEmbedding
from keras_flows.networks.embeddings import sincos_positions
from keras_flows.networks.layers import Dense
from keras_flows.networks.layers import LayerNormalization
from keras_flows.networks.layers import SelfAttention
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.ops import remat


@register
class Patchify(layers.Layer):
    """Image to tokens: (B, H, W, C) -> (B, H W / p^2, p^2 C)."""

    def __init__(self, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size

    def call(self, x):
        _, height, width, channels = x.shape
        p = self.patch_size
        rows, columns = height // p, width // p
        x = ops.reshape(x, (-1, rows, p, columns, p, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, rows * columns, p * p * channels))

    def get_config(self):
        return {**super().get_config(), "patch_size": self.patch_size}


@register
class Unpatchify(layers.Layer):
    """Tokens to image: (B, H W / p^2, p^2 C) -> (B, H, W, C)."""

    def __init__(self, patch_size, image_shape, **kwargs):
        super().__init__(**kwargs)
        self.patch_size = patch_size
        self.image_shape = tuple(image_shape)

    def call(self, x):
        height, width, channels = self.image_shape
        p = self.patch_size
        x = ops.reshape(x, (-1, height // p, width // p, p, p, channels))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, height, width, channels))

    def get_config(self):
        return {
            **super().get_config(),
            "patch_size": self.patch_size,
            "image_shape": self.image_shape,
        }


@register
class SinCosPositions(layers.Layer):
    """Adds the fixed sine-cosine embedding of a grid of patches."""

    def __init__(self, rows, columns, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows
        self.columns = columns

    def call(self, x):
        table = sincos_positions(self.rows, self.columns, x.shape[-1])
        return x + ops.convert_to_tensor(table, dtype=x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "rows": self.rows,
            "columns": self.columns,
        }


def modulate(x, shift, scale):
    """x (1 + scale) + shift, tokens (B, T, C) by (B, 1, C) or (B, T, C)."""
    return x * (1.0 + scale) + shift


class Modulated(layers.Layer):
    """A layer with `chunks` vectors of modulation from c, zero at first.

    c is (B, D), one condition for all tokens, or (B, T, D), one for each.
    """

    def __init__(self, chunks, **kwargs):
        super().__init__(**kwargs)
        self.chunks = chunks

    def _build_modulation(self, width, condition_width):
        self.modulation = Dense(
            self.chunks * width,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="modulation",
        )
        self.modulation.build((None, condition_width))

    def _modulations(self, c):
        y = self.modulation(ops.silu(c))
        if len(y.shape) == 2:
            y = y[:, None]
        return ops.split(y, self.chunks, axis=-1)


@register
class DiTBlock(Modulated):
    """AdaLN-Zero transformer block: (B, T, C), c -> (B, T, C).

    x += g1 attention(modulate(norm(x))); x += g2 mlp(modulate(norm(x))),
    with shifts, scales and gates Dense(silu(c)), zero at first.

    Args:
        num_heads: number of heads; must divide C.
        mlp_ratio: width of the MLP over C.
        remat: whether the backward pass computes activations again, which
            saves memory for a third more time (`keras_flows.ops.remat`).
    """

    def __init__(self, num_heads, mlp_ratio=4.0, remat=False, **kwargs):
        super().__init__(chunks=6, **kwargs)
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.remat = remat

    def build(self, x_shape, c_shape):
        if self.built:
            return
        width, dtype = x_shape[-1], self.dtype_policy
        self._build_modulation(width, c_shape[-1])
        hidden = int(width * self.mlp_ratio)
        self.norm = LayerNormalization(affine=False, dtype=dtype, name="norm")
        self.attention = SelfAttention(
            self.num_heads, dtype=dtype, name="attention"
        )
        self.mlp_in = Dense(
            hidden,
            activation=functools.partial(ops.gelu, approximate=True),
            dtype=dtype,
            name="mlp_in",
        )
        self.mlp_out = Dense(width, dtype=dtype, name="mlp_out")
        self.norm.build(x_shape)
        self.attention.build(x_shape)
        self.mlp_in.build(x_shape)
        self.mlp_out.build((*x_shape[:-1], hidden))
        self.built = True

    def call(self, x, c):
        return (remat(self._block) if self.remat else self._block)(x, c)

    def _block(self, x, c):
        shift1, scale1, gate1, shift2, scale2, gate2 = self._modulations(c)
        h = self.attention(modulate(self.norm(x), shift1, scale1))
        x = x + gate1 * h
        h = self.mlp_out(self.mlp_in(modulate(self.norm(x), shift2, scale2)))
        return x + gate2 * h

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "remat": self.remat,
        }


@register
class FinalLayer(Modulated):
    """Dense(modulate(norm(x))), zero at first: (B, T, C) -> (B, T, units).

    Args:
        units: number of outputs of a token.
    """

    def __init__(self, units, **kwargs):
        super().__init__(chunks=2, **kwargs)
        self.units = units

    def _make_norm(self):
        return LayerNormalization(
            affine=False, dtype=self.dtype_policy, name="norm"
        )

    def build(self, x_shape, c_shape):
        if self.built:
            return
        self._build_modulation(x_shape[-1], c_shape[-1])
        self.norm = self._make_norm()
        self.out = Dense(
            self.units,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="out",
        )
        self.norm.build(x_shape)
        self.out.build(x_shape)
        self.built = True

    def call(self, x, c):
        shift, scale = self._modulations(c)
        return self.out(modulate(self.norm(x), shift, scale))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def size_arguments(size, sizes):
    """Constructor arguments of a size such as "S/2": its letter, its patch."""
    letter, _, patch = size.upper().rpartition("-")[2].partition("/")
    if letter not in sizes or not patch.isdigit():
        raise ValueError(
            f"`size` must be one of {', '.join(sizes)}, a slash and the patch "
            f"size, as in 'B/2'. Received: {size!r}."
        )
    width, depth, num_heads = sizes[letter]
    return {
        "patch_size": int(patch),
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
    }


def patch_grid(image_shape, patch_size):
    """(rows, columns) of the patches of an image (H, W, C)."""
    if len(image_shape) != 3:
        raise ValueError(
            "`image_shape` must be (height, width, channels). "
            f"Received: {image_shape!r}."
        )
    height, width, _ = image_shape
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"`patch_size` ({patch_size}) must divide the image's height and "
            f"width ({height} x {width}); pad or resize the images, or "
            "choose another patch size."
        )
    return height // patch_size, width // patch_size


def image_inputs(image_shape, two_times, num_classes, guidance=False):
    """The dict of inputs of a network for images."""
    inputs = {
        "x": keras.Input(tuple(image_shape), dtype=float_dtype(), name="x"),
        "t": keras.Input((), dtype=float_dtype(), name="t"),
    }
    if two_times:
        inputs["r"] = keras.Input((), dtype=float_dtype(), name="r")
    if num_classes is not None:
        inputs["condition"] = keras.Input((), dtype="int32", name="condition")
    if guidance:
        inputs["guidance"] = keras.Input(
            (), dtype=float_dtype(), name="guidance"
        )
    return inputs


def embedded_times(inputs, embedding):
    """embedding("t_embedding")(t), added where they are: t - r, guidance."""
    c = embedding(name="t_embedding")(inputs["t"])
    if "r" in inputs:
        c = c + embedding(name="interval_embedding")(inputs["t"] - inputs["r"])
    if "guidance" in inputs:
        c = c + embedding(name="guidance_embedding")(inputs["guidance"])
    return c


def with_label(c, inputs, num_classes):
    """c plus the embedding of the label, where there is one."""
    if num_classes is None:
        return c
    return c + layers.Embedding(
        num_classes + 1,
        c.shape[-1],
        embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
        dtype=float_dtype(),
        name="label_embedding",
    )(inputs["condition"])


def image_transformer(
    image_shape, patch_size, width, blocks, final, num_heads, two_times,
    num_classes, learn_sigma, dtype, guidance=False,
):  # fmt: skip
    """(inputs, outputs) of a DiT: what its blocks have around them.

    Args:
        blocks: list of layers of (tokens, condition).
        final: class of the last layer, called with its number of units.

    The other arguments are those of `DiT`.
    """
    grid = patch_grid(image_shape, patch_size)
    channels = image_shape[-1]
    if width % num_heads or width % 4:
        raise ValueError(
            "`width` must be a multiple of `num_heads` and of 4. "
            f"Received: width={width}, num_heads={num_heads}."
        )
    inputs = image_inputs(image_shape, two_times, num_classes, guidance)
    c = embedded_times(inputs, functools.partial(TimestepEmbedding, width))
    c = with_label(c, inputs, num_classes)
    x = Patchify(patch_size, dtype=dtype, name="patchify")(inputs["x"])
    x = Dense(width, dtype=dtype, name="patch_embedding")(x)
    x = SinCosPositions(*grid, dtype=dtype, name="positions")(x)
    for block in blocks:
        x = block(x, c)
    outputs = channels * (2 if learn_sigma else 1)
    y = final(patch_size**2 * outputs, dtype=dtype, name="final")(x, c)
    y = Unpatchify(
        patch_size, (*image_shape[:2], outputs), dtype=dtype, name="unpatchify"
    )(y)
    return inputs, y[..., :channels]


@register
class DiT(DescribedModel):
    """Diffusion transformer for images or latents.

    A functional model with inputs `x` (B, H, W, C), `t` (B,) and, where asked
    for, `r` (B,) and `condition` (B,), integer labels; the output has the
    shape of x. The embeddings of t, of t - r (MeanFlow, arXiv 2505.13447) and
    of the label are added.

    Args:
        image_shape: (H, W, C) of one image or latent.
        patch_size: side of a patch; must divide H and W.
        width: channels of a token; a multiple of 4 and of `num_heads`.
        depth: number of blocks.
        num_heads: number of attention heads.
        mlp_ratio: width of a block's MLP over `width`.
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: where given, `condition` is a label below it; label
            `num_classes` is the null label, `null_label`.
        learn_sigma: whether the last layer has as many outputs again, which
            DiT's and SiT's published weights have and SiT drops, as here.
        remat: whether the blocks' activations are computed again in the
            backward pass.
        guidance: whether the network takes `guidance` (B,), the scale of
            guidance to act at; see `MeanFlowInterface`.
        dtype: dtype policy of the blocks; times are embedded in float32.
        name: model name.

    Example:

    ```python
    network = kf.networks.DiT.from_size("S/2", (32, 32, 4), num_classes=1000)
    ```
    """

    # width, depth, heads
    SIZES = {
        "S": (384, 12, 6),
        "B": (768, 12, 12),
        "M": (1024, 16, 16),
        "L": (1024, 24, 16),
        "XL": (1152, 28, 16),
    }

    def __init__(
        self,
        image_shape,
        patch_size=2,
        width=384,
        depth=12,
        num_heads=6,
        mlp_ratio=4.0,
        two_times=False,
        num_classes=None,
        learn_sigma=False,
        remat=False,
        guidance=False,
        dtype=None,
        name="dit",
    ):
        inputs, outputs = image_transformer(
            image_shape,
            patch_size,
            width,
            [
                DiTBlock(
                    num_heads, mlp_ratio, remat, dtype=dtype, name=f"block_{i}"
                )
                for i in range(depth)
            ],
            FinalLayer,
            num_heads,
            two_times,
            num_classes,
            learn_sigma,
            dtype,
            guidance,
        )
        super().__init__(inputs, outputs, name=name)
        self.null_label = num_classes
        self._arguments = {
            "image_shape": tuple(image_shape),
            "patch_size": patch_size,
            "width": width,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_ratio": mlp_ratio,
            "two_times": two_times,
            "num_classes": num_classes,
            "learn_sigma": learn_sigma,
            "remat": remat,
            "guidance": guidance,
            "dtype": dtype,
            "name": name,
        }

    @classmethod
    def from_size(cls, size, image_shape, **kwargs):
        """A published size, e.g. "S/2": S, B, M, L or XL, then the patch."""
        return cls(image_shape, **size_arguments(size, cls.SIZES), **kwargs)
