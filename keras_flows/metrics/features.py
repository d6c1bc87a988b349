"""Feature extractors: the networks in whose features samples are compared.

A metric means nothing without its network, weights, resize and range. Each
extractor carries them, and `FrechetDistance.record` writes them down.
"""

from __future__ import annotations

import hashlib
import typing

import keras
import numpy as np
from keras import ops

from keras_flows.metrics.images import check_images
from keras_flows.metrics.images import resize_tf1
from keras_flows.metrics.pretrained import find_weights
from keras_flows.metrics.pretrained import read_state
from keras_flows.networks.images.inception import InceptionV3
from keras_flows.networks.images.inception import load_inception_state
from keras_flows.ops import arguments
from keras_flows.ops import compiled
from keras_flows.ops import given
from keras_flows.ops import resolve
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import Array
    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike
    from keras_flows.ops.types import Tensor

# pytorch-fid's release. It publishes the first 8 digits of the hash, in the
# name; the whole one is what other repositories pin.
FID_WEIGHTS = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
    "pt_inception-2015-12-05-6726825d.pth"
)
FID_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def weights_digest(network):
    """sha256 of the values of a network's weights, in their order."""
    digest = hashlib.sha256()
    for variable in network.weights:
        value = ops.convert_to_numpy(variable.value)
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return f"sha256:{digest.hexdigest()}"


def _eight_bits(images):
    """0 to 255 as a file would hold, of [-1, 1]: floor(127.5 x + 128)."""
    return ops.minimum(ops.floor(images * 127.5 + 128.0), 255.0)


class FeatureExtractor:
    """Images to features, in batches of one compiled shape.

    Called with images (n, H, W, channels), floats in [-1, 1], in NumPy or
    tensors; returns a dict of NumPy arrays: "features" (n, D) and, where the
    network is a classifier, "logits" (n, K). Subclasses define `outputs`.

    Args:
        network: `keras.Model` whose variables `outputs` reads.
        name: name of the extractor.
        size: height and width that the network sees, one number or two.
        resize: what brings images to that size, in words, or None.
        weights: identifier or sha256 of the weights; None hashes those that
            the network has when `weights` is read.
        channels: channels of the images.
        grey_to_rgb: whether images of one channel are repeated to three.
        batch_size: images per call of the network.
    """

    @checked(grey_to_rgb=FLAG, batch_size=SIZE, channels=SIZE)
    def __init__(
        self,
        network: keras.Model,
        name: str | None,
        size: int | tuple[int, int],
        resize: str | None,
        weights: str | None,
        channels: int = 3,
        grey_to_rgb: bool = False,
        batch_size: int = 64,
    ) -> None:
        self.network = network
        self.name = name
        self.size = size
        self.resize = resize
        self._weights = weights
        self.channels = channels
        self.grey_to_rgb = grey_to_rgb
        self.batch_size = batch_size
        self._run = compiled(self.outputs, network.variables)

    @property
    def weights(self) -> str:
        """Identifier or "sha256:..." of the weights, for the record."""
        return self._weights or weights_digest(self.network)

    def outputs(self, images: ArrayLike) -> dict[str, Tensor]:
        """Dict of tensors of images (B, H, W, channels) in [-1, 1]."""
        raise NotImplementedError

    @checked(images=given.plain_array)
    def __call__(self, images: ArrayLike) -> dict[str, Array]:
        if not images.ndim or not len(images):
            raise ValueError(
                "There are no images to take features of: `images` is empty."
            )
        parts = []
        for start in range(0, len(images), self.batch_size):
            batch = check_images(
                images[start : start + self.batch_size],
                self.channels,
                self.grey_to_rgb,
            )
            count = len(batch)
            # One shape, one compilation: the last batch is filled up.
            padding = [(0, self.batch_size - count)] + [(0, 0)] * 3
            outputs = self._run(arguments(np.pad(batch, padding)))
            parts.append(
                {
                    key: ops.convert_to_numpy(value)[:count]
                    for key, value in outputs.items()
                }
            )
        return {
            key: np.concatenate([part[key] for part in parts])
            for key in parts[0]
        }


class InceptionV3Features(FeatureExtractor):
    """The FID's features (arXiv 1706.08500), from inception-2015-12-05.

    Images are rounded to 8 bits, resized to 299 by TensorFlow 1's bilinear
    rule, and become (u - 128) / 128, all as in the TensorFlow graph, so that
    values compare with ADM's evaluator, EDM's and torch-fidelity's.
    "features" (n, 2048); "logits" (n, 1008) and "logits_unbiased", those
    without the last layer's bias, of which published Inception scores are.

    Args:
        weights: path or https URL of pytorch-fid's state (.pth, .npz or
            .safetensors). Default: pytorch-fid's release.
        sha256: its hash; an URL other than the default one needs it.
        grey_to_rgb: see `FeatureExtractor`.
        batch_size: see `FeatureExtractor`.

    Raises:
        ValueError: if the weights are not there or not those of the network.
    """

    @checked(grey_to_rgb=FLAG, batch_size=SIZE)
    def __init__(
        self,
        weights: str | None = FID_WEIGHTS,
        sha256: str | None = None,
        grey_to_rgb: bool = False,
        batch_size: int = 64,
    ) -> None:
        given.path_of("weights", weights)
        if weights == FID_WEIGHTS and sha256 is None:
            sha256 = FID_SHA256
        path, digest = find_weights(weights, sha256)
        network = InceptionV3()
        load_inception_state(network, read_state(path))
        super().__init__(
            network,
            name="inception",
            size=299,
            resize="8 bits, bilinear as in TensorFlow 1, (u - 128) / 128",
            weights=f"sha256:{digest}",
            grey_to_rgb=grey_to_rgb,
            batch_size=batch_size,
        )

    def outputs(self, images: ArrayLike) -> dict[str, Tensor]:
        images = resize_tf1(_eight_bits(images), self.size)
        outputs = self.network((images - 128.0) / 128.0, training=False)
        bias = self.network.get_layer("fc").bias
        return {**outputs, "logits_unbiased": outputs["logits"] - bias}


class DINOv2Features(FeatureExtractor):
    """DINOv2's class token, for FD-DINOv2 (arXiv 2306.04675).

    Images are rounded to 8 bits, resized to the network's size by an
    antialiased bicubic filter and normalised by ImageNet's mean and standard
    deviation, as EDM2's `calculate_metrics.py` does. "features" (n, D), D =
    1024 for the published "dinov2_large" (ViT-L/14).

    Args:
        preset: KerasHub preset or handle, or a `DINOV2Backbone`.
        size: height and width that a preset is made for; 14 divides it. A
            backbone has its own.
        grey_to_rgb: see `FeatureExtractor`.
        batch_size: see `FeatureExtractor`.

    Raises:
        ImportError: if a preset is given and KerasHub is not installed.
    """

    @checked(size=SIZE, grey_to_rgb=FLAG, batch_size=SIZE)
    def __init__(
        self,
        preset: PathLike = "dinov2_large",
        size: int = 224,
        grey_to_rgb: bool = False,
        batch_size: int = 64,
    ) -> None:
        if isinstance(preset, keras.Model):
            network, weights = preset, None
        else:
            try:
                from keras_hub.models import DINOV2Backbone
            except ImportError as error:
                raise ImportError(
                    "DINOv2's weights come with KerasHub: "
                    "pip install keras_flows[encoders]"
                ) from error
            network = DINOV2Backbone.from_preset(
                preset, image_shape=(size, size, 3)
            )
            weights = f"keras_hub {preset}"
        height, width, _ = network.image_shape
        if height != width:
            raise ValueError(
                "`preset` must be a backbone of square images. Received: "
                f"image_shape={network.image_shape}."
            )
        super().__init__(
            network,
            name="dinov2",
            size=height,
            resize="8 bits, bicubic with antialiasing, ImageNet's mean and std",
            weights=weights,
            grey_to_rgb=grey_to_rgb,
            batch_size=batch_size,
        )

    def outputs(self, images: ArrayLike) -> dict[str, Tensor]:
        images = ops.image.resize(
            _eight_bits(images),
            (self.size, self.size),
            interpolation="bicubic",
            antialias=True,
            data_format="channels_last",
        )
        mean = ops.convert_to_tensor(IMAGENET_MEAN, "float32")
        std = ops.convert_to_tensor(IMAGENET_STD, "float32")
        images = (images / 255.0 - mean) / std
        tokens = self.network({"images": images}, training=False)
        return {"features": ops.cast(tokens[:, 0], "float32")}


class ClassifierFeatures(FeatureExtractor):
    """Features and logits of any Keras classifier of images.

    Images are not resized: they must have the model's own shape.

    Args:
        model: functional or sequential `keras.Model` from images
            (B, H, W, channels) in [-1, 1] to logits (B, K).
        layer: name of the layer whose output are the features, (B, D) or
            with axes between that are averaged; by default what enters the
            last `Dense` layer.
        name: name of the extractor; the model's by default.
        from_logits: False if the model ends in a softmax; the "logits" are
            then the logarithms of its output.
        batch_size: see `FeatureExtractor`.

    Raises:
        ValueError: if the model has no such layer or no fixed input shape.
    """

    @checked(
        layer=given.of(given.text, none=True),
        name=given.of(given.text, none=True),
        from_logits=FLAG,
        batch_size=SIZE,
    )
    def __init__(
        self,
        model: keras.Model,
        layer: Any = None,
        name: str | None = None,
        from_logits: bool = True,
        batch_size: int = 64,
    ) -> None:
        shape = getattr(model, "input_shape", None)
        if not isinstance(shape, tuple) or len(shape) != 4:
            raise ValueError(
                "`model` must be a functional or built sequential model of "
                "one input (B, height, width, channels). Received: "
                f"{model!r}, input shape {shape}."
            )
        activation = getattr(model.layers[-1], "activation", None)
        softmax = activation is keras.activations.softmax or isinstance(
            model.layers[-1], keras.layers.Softmax
        )
        if softmax == from_logits:
            raise ValueError(
                f"`from_logits` is {from_logits} but the last layer of "
                f"`model` {'is' if softmax else 'is not'} a softmax."
            )
        network = keras.Model(
            model.inputs, [self._features(model, layer), model.outputs[0]]
        )
        self.from_logits = from_logits
        super().__init__(
            network,
            name=name or model.name,
            size=shape[1:3],
            resize=None,
            weights=None,
            channels=shape[-1],
            batch_size=batch_size,
        )

    @staticmethod
    def _features(model, layer):
        """The symbolic output of `layer`."""
        if layer is not None:
            names = [each.name for each in model.layers]
            if layer not in names:
                raise ValueError(
                    f"`layer` must be one of {names}. Received: {layer!r}."
                )
            return model.get_layer(layer).output
        for each in reversed(model.layers):
            if isinstance(each, keras.layers.Dense):
                return each.input
        raise ValueError(
            "`model` has no Dense layer; name the `layer` whose output are "
            f"the features: one of {[each.name for each in model.layers]}."
        )

    @checked(images=given.plain_array)
    def __call__(self, images: ArrayLike) -> dict[str, Array]:
        if tuple(images.shape[1:3]) != self.size:
            raise ValueError(
                f"`images` must be {self.size[0]} x {self.size[1]} for "
                f"{self.name!r}, which does not resize. "
                f"Received the shape {tuple(images.shape)}."
            )
        return super().__call__(images)

    def outputs(self, images: ArrayLike) -> dict[str, Tensor]:
        features, logits = self.network(images, training=False)
        axes = tuple(range(1, len(features.shape) - 1))
        if axes:
            features = ops.mean(features, axis=axes)
        if not self.from_logits:
            logits = ops.log(ops.maximum(logits, keras.config.epsilon()))
        return {"features": features, "logits": logits}


EXTRACTORS = {"inception": InceptionV3Features, "dinov2": DINOv2Features}


def get_extractor(identifier):
    """The extractor of a name ("inception", "dinov2"), or itself."""
    return resolve(identifier, EXTRACTORS, "extractor", FeatureExtractor)
