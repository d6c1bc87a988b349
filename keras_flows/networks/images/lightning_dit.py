"""LightningDiT (arXiv 2501.01423): DiT with a language model's parts.

RMSNorm, SwiGLU, rotary embeddings and, where asked for, normalised queries
and keys, around the same AdaLN-Zero.
"""

from __future__ import annotations

import typing

from keras import layers
from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.images.transformer import check_heads
from keras_flows.networks.images.transformer import class_counts
from keras_flows.networks.images.transformer import image_transformer
from keras_flows.networks.images.transformer import size_arguments
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.modulation import FinalLayer
from keras_flows.networks.layers.modulation import Modulated
from keras_flows.networks.layers.modulation import modulate
from keras_flows.networks.layers.normalization import RMSNormalization
from keras_flows.networks.layers.patches import patch_grid
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops import remat
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape


@register
class SwiGLU(layers.Layer):
    """Dense(silu(a) b) with (a, b) = Dense(x): (B, T, C) -> (B, T, C).

    Args:
        hidden: size of a and of b.
        use_bias: whether both layers have biases.
    """

    def __init__(self, hidden, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.use_bias = use_bias

    def build(self, input_shape):
        if self.built:
            return
        options = {"use_bias": self.use_bias, "dtype": self.dtype_policy}
        self.both = Dense(2 * self.hidden, name="both", **options)
        self.out = Dense(input_shape[-1], name="out", **options)
        self.both.build(input_shape)
        self.out.build((*input_shape[:-1], self.hidden))
        self.built = True

    def call(self, x):
        a, b = ops.split(self.both(x), 2, axis=-1)
        return self.out(ops.silu(a) * b)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden": self.hidden,
            "use_bias": self.use_bias,
        }


@register
class LightningDiTBlock(Modulated):
    """AdaLN-Zero block with RMSNorm, rotary attention and SwiGLU.

    Args:
        num_heads: number of heads; must divide C.
        grid: (rows, columns) of the tokens.
        mlp_ratio: width of a plain MLP over C; SwiGLU takes 2/3 of it.
        qk_norm: whether queries and keys are normalised.
        shift: whether the modulation shifts too.
        remat: as in `DiTBlock`.
        use_bias: whether the projection to queries, keys and values and
            SwiGLU have biases.
        rope_extent: as in `SelfAttention`.
    """

    def __init__(
        self,
        num_heads,
        grid,
        mlp_ratio=4.0,
        qk_norm=False,
        shift=True,
        remat=False,
        use_bias=True,
        rope_extent=None,
        **kwargs,
    ):
        super().__init__(chunks=6 if shift else 4, **kwargs)
        self.num_heads = num_heads
        self.grid = tuple(grid)
        self.mlp_ratio = mlp_ratio
        self.qk_norm = qk_norm
        self.shift = shift
        self.remat = remat
        self.use_bias = use_bias
        self.rope_extent = rope_extent

    def build(self, x_shape, c_shape):
        if self.built:
            return
        width, dtype = x_shape[-1], self.dtype_policy
        self._build_modulation(width, c_shape[-1])
        self.norm_1 = RMSNormalization(dtype=dtype, name="norm_1")
        self.norm_2 = RMSNormalization(dtype=dtype, name="norm_2")
        self.attention = SelfAttention(
            self.num_heads,
            self.qk_norm,
            self.grid,
            qkv_bias=self.use_bias,
            rope_extent=self.rope_extent,
            dtype=dtype,
            name="attention",
        )
        hidden = int(2 / 3 * int(width * self.mlp_ratio))
        self.mlp = SwiGLU(hidden, self.use_bias, dtype=dtype, name="mlp")
        for layer in (self.norm_1, self.norm_2, self.attention, self.mlp):
            layer.build(x_shape)
        self.built = True

    def call(self, x, c):
        return (remat(self._block) if self.remat else self._block)(x, c)

    def _block(self, x, c):
        modulations = self._modulations(c)
        if not self.shift:
            zero = ops.zeros_like(modulations[0])
            scale1, gate1, scale2, gate2 = modulations
            modulations = zero, scale1, gate1, zero, scale2, gate2
        shift1, scale1, gate1, shift2, scale2, gate2 = modulations
        h = self.attention(modulate(self.norm_1(x), shift1, scale1))
        x = x + gate1 * h
        h = self.mlp(modulate(self.norm_2(x), shift2, scale2))
        return x + gate2 * h

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "grid": self.grid,
            "mlp_ratio": self.mlp_ratio,
            "qk_norm": self.qk_norm,
            "shift": self.shift,
            "remat": self.remat,
            "use_bias": self.use_bias,
            "rope_extent": self.rope_extent,
        }


@register
class RMSFinalLayer(FinalLayer):
    """DiT's last layer with `RMSNormalization`."""

    def _make_norm(self):
        return RMSNormalization(dtype=self.dtype_policy, name="norm")


@register
class LightningDiT(DescribedModel):
    """LightningDiT for images or latents.

    Inputs and output as in `DiT`.

    Args:
        image_shape: (H, W, C) of one image or latent.
        patch_size: side of a patch; must divide H and W.
        width: channels of a token.
        depth: number of blocks.
        num_heads: number of attention heads; a head's size must be a
            multiple of 4.
        mlp_ratio: width of a plain MLP over `width`; SwiGLU takes 2/3 of it.
        qk_norm: whether queries and keys are normalised, which the published
            weights do not do and bfloat16 may need.
        shift: whether the modulation of the blocks shifts too.
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: as in `DiT`.
        learn_sigma: as in `DiT`.
        remat: as in `DiT`.
        dtype: dtype policy of the blocks.
        name: model name.

    Example:

    ```python
    network = kf.networks.LightningDiT.from_size(
        "XL/1", (16, 16, 32), num_classes=1000
    )
    ```
    """

    # width, depth, heads
    SIZES = {
        "B": (768, 12, 12),
        "L": (1024, 24, 16),
        "XL": (1152, 28, 16),
        "1P0B": (1536, 24, 24),
        "1P6B": (1792, 28, 28),
    }

    @checked(
        image_shape=given.IMAGE_SHAPE,
        patch_size=SIZE,
        width=SIZE,
        depth=COUNT,
        num_heads=SIZE,
        mlp_ratio=POSITIVE,
        qk_norm=FLAG,
        shift=FLAG,
        two_times=FLAG,
        num_classes=class_counts,
        learn_sigma=FLAG,
        remat=FLAG,
    )
    def __init__(
        self,
        image_shape: Shape,
        patch_size: int = 1,
        width: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        shift: float = True,
        two_times: bool = False,
        num_classes: int | dict[str, int] | None = None,
        learn_sigma: bool = False,
        remat: bool = False,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "lightning_dit",
    ) -> None:
        check_heads(width, num_heads)
        grid = patch_grid(image_shape, patch_size)
        inputs, outputs = image_transformer(
            image_shape,
            patch_size,
            width,
            [
                LightningDiTBlock(
                    num_heads,
                    grid,
                    mlp_ratio,
                    qk_norm,
                    shift,
                    remat,
                    dtype=dtype,
                    name=f"block_{i}",
                )
                for i in range(depth)
            ],
            RMSFinalLayer,
            num_heads,
            two_times,
            num_classes,
            learn_sigma,
            dtype,
        )
        super().__init__(inputs, outputs, name=name)
        self.null_label = num_classes

    @classmethod
    def from_size(cls, size, image_shape, **kwargs):
        """A published size, e.g. "XL/1": B, L, XL, 1p0B or 1p6B."""
        return cls(image_shape, **size_arguments(size, cls.SIZES), **kwargs)
