"""DDT, the decoupled diffusion transformer (arXiv 2504.05741).

A condition encoder of LightningDiT's blocks turns x, t and the label into
features z of every token; a velocity decoder of the same blocks, with a patch
embedding of its own, reads x again under the modulation of silu(z + t), one
condition for each token. RAE's "DDT head" (arXiv 2510.11690) is a shallow and
wide decoder.
"""

from __future__ import annotations

import functools
import typing

from keras import ops

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.images.lightning_dit import LightningDiTBlock
from keras_flows.networks.images.lightning_dit import RMSFinalLayer
from keras_flows.networks.images.transformer import check_heads
from keras_flows.networks.images.transformer import class_counts
from keras_flows.networks.images.transformer import embedded_times
from keras_flows.networks.images.transformer import image_inputs
from keras_flows.networks.images.transformer import with_label
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import RandomTimestepEmbedding
from keras_flows.networks.layers.embeddings import TimestepEmbedding
from keras_flows.networks.layers.modulation import FinalLayer
from keras_flows.networks.layers.patches import Patchify
from keras_flows.networks.layers.patches import SinCosPositions
from keras_flows.networks.layers.patches import Unpatchify
from keras_flows.networks.layers.patches import patch_grid
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    import keras

    from keras_flows.ops.types import Shape

# What the two publications do otherwise around the same plan.
ARCHITECTURES = {
    # Times in [0, 1] turn the slowest of its features by 1/10.
    "ddt": {
        "embedding": functools.partial(TimestepEmbedding, max_period=10.0),
        "block": {"use_bias": False, "rope_extent": 16.0},
        "final": FinalLayer,
    },
    "rae": {
        "embedding": RandomTimestepEmbedding,
        "block": {"use_bias": True, "rope_extent": None},
        "final": RMSFinalLayer,
    },
}


@register
class DDT(DescribedModel):
    """Decoupled diffusion transformer for images or latents.

    Inputs and output as in `DiT`.

    Args:
        image_shape: (H, W, C) of one image or latent.
        patch_size: side of a patch; must divide H and W.
        width: channels of a token in the encoder.
        encoder_depth: number of blocks of the condition encoder.
        decoder_depth: number of blocks of the velocity decoder.
        num_heads: number of the encoder's attention heads; a head's size
            must be a multiple of 4.
        decoder_dim: channels of a token in the decoder; `width` if None.
        decoder_heads: number of its attention heads; `num_heads` if None.
        mlp_ratio: width of a plain MLP over `width`; SwiGLU takes 2/3 of it.
        qk_norm: whether queries and keys are normalised, as in DDT's
            published weights and not in RAE's.
        architecture: "ddt", or "rae", which has biases, RMSNorm at the end,
            sine-cosine positions in the encoder, random frequencies of time
            and one more silu of each condition.
        two_times: whether the network takes `r`, as flow maps need.
        num_classes: as in `DiT`.
        remat: as in `DiT`.
        dtype: dtype policy of the blocks; times are embedded in float32.
        name: model name.

    Example:

    ```python
    # DDT-XL/2 (22En6De), and RAE's DiT^DH-XL on DINOv2's features.
    network = kf.networks.DDT(
        (32, 32, 4), 2, 1152, 22, 6, num_heads=16, num_classes=1000
    )
    network = kf.networks.DDT(
        (16, 16, 768), 1, 1152, 28, 2, num_heads=16, decoder_dim=2048,
        qk_norm=False, architecture="rae", num_classes=1000,
    )
    ```
    """

    @checked(
        image_shape=given.IMAGE_SHAPE,
        patch_size=SIZE,
        width=SIZE,
        encoder_depth=COUNT,
        decoder_depth=COUNT,
        num_heads=SIZE,
        decoder_dim=Optional(SIZE),
        decoder_heads=Optional(SIZE),
        mlp_ratio=POSITIVE,
        qk_norm=FLAG,
        two_times=FLAG,
        num_classes=class_counts,
        remat=FLAG,
    )
    def __init__(
        self,
        image_shape: Shape,
        patch_size: int = 2,
        width: int = 768,
        encoder_depth: int = 8,
        decoder_depth: int = 4,
        num_heads: int = 12,
        decoder_dim: int | None = None,
        decoder_heads: int | None = None,
        mlp_ratio: float = 4.0,
        qk_norm: bool = True,
        architecture: str = "ddt",
        two_times: bool = False,
        num_classes: int | dict[str, int] | None = None,
        remat: bool = False,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "ddt",
    ) -> None:
        given.choice("architecture", architecture, ARCHITECTURES)
        for argument, depth in (
            ("encoder_depth", encoder_depth),
            ("decoder_depth", decoder_depth),
        ):
            if depth < 1:
                raise ValueError(
                    f"`{argument}` must be 1 at least; a network without the "
                    f"split is `LightningDiT`. Received: {depth!r}."
                )
        parts = ARCHITECTURES[architecture]
        check_heads(width, num_heads)
        check_heads(
            decoder_dim or width, decoder_heads or num_heads,
            "decoder_dim", "decoder_heads",
        )  # fmt: skip
        rae = architecture == "rae"
        grid = patch_grid(image_shape, patch_size)
        out_width = decoder_dim or width

        def blocks(half, depth, heads):
            return [
                LightningDiTBlock(
                    heads,
                    grid,
                    mlp_ratio,
                    qk_norm,
                    remat=remat,
                    dtype=dtype,
                    name=f"{half}_block_{i}",
                    **parts["block"],
                )
                for i in range(depth)
            ]

        def embed(tokens, units, half):
            name = f"{half}_patch_embedding"
            return Dense(units, dtype=dtype, name=name)(tokens)

        inputs = image_inputs(image_shape, two_times, num_classes)
        times = embedded_times(
            inputs, functools.partial(parts["embedding"], width)
        )
        c = with_label(times, inputs, num_classes)
        # A block takes silu of its condition, for "rae" the second.
        c = ops.silu(c) if rae else c
        tokens = Patchify(patch_size, dtype=dtype, name="patchify")(inputs["x"])
        z = embed(tokens, width, "encoder")
        if rae:
            z = SinCosPositions(*grid, dtype=dtype, name="positions")(z)
        for block in blocks("encoder", encoder_depth, num_heads):
            z = block(z, c)
        c = times[:, None] + z
        if out_width != width:
            c = Dense(out_width, dtype=dtype, name="condition_projection")(
                ops.silu(c)
            )
        elif rae:
            c = ops.silu(c)
        x = embed(tokens, out_width, "decoder")
        for block in blocks(
            "decoder", decoder_depth, decoder_heads or num_heads
        ):
            x = block(x, c)
        y = parts["final"](
            patch_size**2 * image_shape[-1], dtype=dtype, name="final"
        )(x, c)
        y = Unpatchify(
            patch_size, tuple(image_shape), dtype=dtype, name="unpatchify"
        )(y)
        super().__init__(inputs, y, name=name)
        self.null_label = num_classes
