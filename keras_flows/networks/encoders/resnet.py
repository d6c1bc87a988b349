"""KerasHub's ResNets with group in the place of batch normalisation."""

import keras
from keras import layers

from keras_flows.networks.layers.normalization import GroupNormalization
from keras_flows.ops import register


@register
class BackboneNormalization(GroupNormalization):
    """Group normalisation called as batch normalisation is."""

    def call(self, x, training=None, mask=None):
        return super().call(x)


RESNETS = {
    "resnet18": ("basic_block", (2, 2, 2, 2)),
    "resnet34": ("basic_block", (3, 4, 6, 3)),
    "resnet50": ("bottleneck_block", (3, 4, 6, 3)),
}


def _resnet_config(backbone):
    """KerasHub's arguments of a backbone by name, or as they are."""
    if isinstance(backbone, dict):
        return dict(backbone)
    if backbone not in RESNETS:
        raise ValueError(
            f"`backbone` must be one of {', '.join(RESNETS)} or a dict of the "
            f"arguments of KerasHub's ResNetBackbone. Received: {backbone!r}."
        )
    block, blocks = RESNETS[backbone]
    return {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": list(blocks),
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": block,
    }


def resnet(backbone, image_shape, dtype):
    """A ResNet with group in the place of batch normalisation.

    Groups of 16 channels, as in diffusion policy: the statistics of a batch
    do not go with averaged weights, nor with acting on one observation.
    """
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "The ResNets come from KerasHub: pip install keras_flows[encoders]"
        ) from error
    batch_norm = keras_hub.models.ResNetBackbone(
        **_resnet_config(backbone), image_shape=image_shape, dtype=dtype
    )

    def replaced(layer):
        if isinstance(layer, layers.BatchNormalization):
            return BackboneNormalization(
                layer.gamma.shape[0] // 16, 1e-5, dtype=dtype, name=layer.name
            )
        return type(layer).from_config(layer.get_config())

    clone = keras.models.clone_model(batch_norm, clone_function=replaced)
    return keras.Model(clone.input, clone.output, name="resnet")
