"""DiT, the diffusion transformer (arXiv 2212.09748), as in SiT and MeanFlow.

Patches of an image are tokens; each block's normalisations are scaled,
shifted and gated by the embedding of time and label, with gates that start
at zero (AdaLN-Zero), so that the network starts as the zero velocity.
"""

from __future__ import annotations

import functools
import typing

from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.images.transformer import class_counts
from keras_flows.networks.images.transformer import guidance_flag
from keras_flows.networks.images.transformer import image_transformer
from keras_flows.networks.images.transformer import size_arguments
from keras_flows.networks.layers.attention import SelfAttention
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.modulation import FinalLayer
from keras_flows.networks.layers.modulation import Modulated
from keras_flows.networks.layers.modulation import modulate
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.ops import given
from keras_flows.ops import multiply_add
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
        x = multiply_add(gate1, h, x)
        h = self.mlp_out(self.mlp_in(modulate(self.norm(x), shift2, scale2)))
        return multiply_add(gate2, h, x)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "remat": self.remat,
        }


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
            `num_classes` is the null label, `null_label`. With several labels
            an example, a dict from their names to their numbers of classes:
            `condition` and `null_label` are then dicts, too.
        learn_sigma: whether the last layer has as many outputs again, which
            DiT's and SiT's published weights have and SiT drops, as here.
        remat: whether the blocks' activations are computed again in the
            backward pass.
        guidance: whether the network takes `guidance` (B,), the scale of
            guidance to act at; "interval" for `guidance_interval` (B, 2) as
            well, the levels between which it acts; see `MeanFlowInterface`.
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

    @checked(
        guidance=guidance_flag,
        image_shape=given.IMAGE_SHAPE,
        patch_size=SIZE,
        width=SIZE,
        depth=COUNT,
        num_heads=SIZE,
        mlp_ratio=POSITIVE,
        two_times=FLAG,
        num_classes=class_counts,
        learn_sigma=FLAG,
        remat=FLAG,
    )
    def __init__(
        self,
        image_shape: Shape,
        patch_size: int = 2,
        width: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        two_times: bool = False,
        num_classes: int | dict[str, int] | None = None,
        learn_sigma: bool = False,
        remat: bool = False,
        guidance: bool | str = False,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "dit",
    ) -> None:
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

    @classmethod
    def from_size(cls, size, image_shape, **kwargs):
        """A published size, e.g. "S/2": S, B, M, L or XL, then the patch."""
        return cls(image_shape, **size_arguments(size, cls.SIZES), **kwargs)
