"""Features of a network on the way, and of a frozen encoder."""

from __future__ import annotations

import typing

import keras
import numpy as np
from keras import layers
from keras import ops

from keras_flows.networks.contract import is_functional
from keras_flows.networks.fixed import Fixed
from keras_flows.ops import gathering
from keras_flows.ops import note

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Shape


class FeatureTap:
    """A functional network that also notes the output of some of its layers.

    Called as the network, it returns what the network returns; the features,
    of the same forward pass, go to `keras_flows.ops.gather`, if there is one,
    as a dict by layer. It has no variables of its own and is no layer, so that
    Keras saves none twice.

    Args:
        network: functional `keras.Model`.
    """

    def __init__(self, network: keras.Model) -> None:
        if not is_functional(network):
            raise ValueError(
                "`network` must be a functional keras.Model, which tells its "
                f"layers' outputs. Received: {network!r}."
            )
        self.network = network
        self._features, self._model = {}, None

    def watch(self, layer):
        """Note the output of a layer from now on.

        Returns:
            Its shape, without the batch.
        """
        network = self.network
        names = [known.name for known in network.layers]
        if layer not in names:
            raise ValueError(
                f"`network` ('{network.name}') has no layer {layer!r}. Its "
                f"layers: {', '.join(names)}."
            )
        self._features[layer] = network.get_layer(layer).output
        self._model = keras.Model(
            network.input, [network.output, dict(self._features)]
        )
        return tuple(self._features[layer].shape[1:])

    def __call__(self, inputs, training=False):
        if not gathering("features"):
            return self.network(inputs, training=training)
        output, features = self._model(inputs, training=training)
        note(features)
        return output


# Of ImageNet, for pixels in [0, 1].
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)


def dino_encoder(backbone: str, image_shape: Shape, grid: Shape) -> Any:
    """Patch tokens of a DINOv2 or DINOv3 backbone: what REPA aligns with.

    Images in [-1, 1] are resized so that the backbone's patches form `grid`,
    normalised as ImageNet's, and go through the backbone; its class and
    register tokens are left out.

    Args:
        backbone: a KerasHub preset such as "dinov2_base", or a KerasHub
            `DINOV2Backbone` or `DINOV3Backbone` built for images of
            rows x patch_size by columns x patch_size pixels.
        image_shape: (H, W, 3) of the images.
        grid: (rows, columns) of the tokens of the network to be aligned.

    Returns:
        Frozen functional `keras.Model` (B, H, W, 3) -> (B, rows * columns,
        hidden size).

    Raises:
        ImportError: without KerasHub.
        ValueError: if images or token grid do not fit.
    """
    if len(image_shape) != 3 or image_shape[-1] != 3:
        raise ValueError(
            "`image_shape` must be (height, width, 3): the encoder sees RGB "
            f"images. Received: {image_shape!r}; repeat a grey channel, or "
            "pass precomputed features."
        )
    rows, columns = grid
    if isinstance(backbone, str):
        backbone = _load_backbone(backbone, rows, columns)
    patch = backbone.patch_size
    size = (rows * patch, columns * patch)
    inputs = backbone.input
    key, pixels = next(iter(inputs.items()))
    if tuple(pixels.shape[1:3]) != size:
        raise ValueError(
            f"`backbone` takes images of {tuple(pixels.shape[1:3])} pixels, a "
            f"grid of {tuple(s // patch for s in pixels.shape[1:3])} tokens, "
            f"but the network has {rows} x {columns} tokens: build the "
            f"backbone with image_shape={(*size, 3)}."
        )
    images = keras.Input(tuple(image_shape), name="images")
    x = layers.Resizing(*size, interpolation="bicubic", antialias=True)(images)
    # (x / 2 + 1 / 2 - mean) / std as one scale and offset.
    mean, std = np.asarray(PIXEL_MEAN), np.asarray(PIXEL_STD)
    x = layers.Rescaling(
        scale=(0.5 / std).tolist(), offset=((0.5 - mean) / std).tolist()
    )(x)
    tokens = backbone({key: x})
    skip = tokens.shape[1] - rows * columns
    encoder = keras.Model(images, tokens[:, skip:], name="dino_encoder")
    encoder.trainable = False
    return encoder


def _load_backbone(preset, rows, columns):
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            "DINO encoders come from KerasHub: pip install "
            "keras_flows[encoders]"
        ) from error
    kind = (
        keras_hub.models.DINOV3Backbone
        if "dinov3" in preset
        else keras_hub.models.DINOV2Backbone
    )
    config = kind.from_preset(preset, load_weights=False).get_config()
    patch = config["patch_size"]
    return kind.from_preset(
        preset, image_shape=(rows * patch, columns * patch, 3)
    )


class Frozen(Fixed):
    """Holds a network that is used but neither trained nor saved.

    Its variables are among the layer's, so that compiled functions take them
    as arguments; weight files, and a preset's number of parameters, leave
    them out.
    """

    saved = False

    def __init__(self, network: keras.Model, name: str | None = None) -> None:
        super().__init__(name=name)
        network.trainable = False
        self._call_network = lambda *args: network(*args, training=False)
        self.held = list(network.variables)
        self.built = True

    def call(self, *args):
        return ops.stop_gradient(self._call_network(*args))

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass
