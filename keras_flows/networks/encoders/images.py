"""Encoders of observations with images."""

from __future__ import annotations

import typing

import keras
from keras import layers
from keras import ops

from keras_flows.networks.encoders.resnet import resnet
from keras_flows.networks.encoders.vectors import ObservationEncoder
from keras_flows.networks.encoders.vectors import joined
from keras_flows.networks.encoders.vectors import mlp
from keras_flows.networks.encoders.vectors import observation_inputs
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from keras_flows.ops.types import Shape


@register
class MergeSteps(layers.Layer):
    """Steps as rows: (B, obs_steps, ...) -> (B obs_steps, ...)."""

    def call(self, x):
        return ops.reshape(x, (-1, *x.shape[2:]))

    def compute_output_shape(self, input_shape):
        return (None, *input_shape[2:])


@register
class SplitSteps(layers.Layer):
    """Rows as steps: (B obs_steps, ...) -> (B, obs_steps, ...).

    Args:
        steps: obs_steps.
    """

    def __init__(self, steps, **kwargs):
        super().__init__(**kwargs)
        self.steps = steps

    def call(self, x):
        return ops.reshape(x, (-1, self.steps, *x.shape[1:]))

    def compute_output_shape(self, input_shape):
        return (None, self.steps, *input_shape[1:])

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


@register
class Crop(layers.Layer):
    """A crop of each image: (N, H, W, C) -> (N, height, width, C).

    In training at random, each image on its own and every place equally
    likely (the published code never draws the last row and column);
    otherwise of the centre.

    Args:
        height: rows of the crop.
        width: columns of the crop.
        random: whether crops are random in training.
        seed: int or None.
    """

    def __init__(self, height, width, random=True, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.height = height
        self.width = width
        self.random = random
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape):
        if self.built:
            return
        _, rows, columns, _ = input_shape
        if not (0 < self.height <= rows and 0 < self.width <= columns):
            raise ValueError(
                f"A crop of {self.height} x {self.width} pixels does not fit "
                f"into images of {rows} x {columns}."
            )
        self.built = True

    def call(self, x, training=None):
        _, rows, columns, _ = x.shape
        spare = rows - self.height, columns - self.width
        if not (training and self.random):
            top, left = (s // 2 for s in spare)
            return x[:, top : top + self.height, left : left + self.width]
        for axis, size, room in zip(
            (1, 2), (self.height, self.width), spare, strict=True
        ):
            start = keras.random.randint(
                (ops.shape(x)[0], 1), 0, room + 1, seed=self.seed_generator
            )
            places = start + ops.arange(size, dtype="int32")
            # A product with rows of the identity: `take_along_axis` wants
            # the indices of every pixel.
            pick = ops.one_hot(places, x.shape[axis], dtype=x.dtype)
            equation = "nah,nhwc->nawc" if axis == 1 else "naw,nhwc->nhac"
            x = ops.einsum(equation, pick, x)
        return x

    def get_config(self):
        return {
            **super().get_config(),
            "height": self.height,
            "width": self.width,
            "random": self.random,
            "seed": self.seed,
        }


@register
class SpatialSoftmax(layers.Layer):
    """Where each feature map lies: (N, H, W, C) -> (N, 2 C).

    The mean (column, row) under softmax(map / temperature), both from -1 at
    the first pixel to 1 at the last; in float32. Source: arXiv 1504.00702.

    Args:
        temperature: of the softmax.
    """

    @checked(temperature=POSITIVE)
    def __init__(self, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature

    def call(self, x):
        dtype = x.dtype
        _, rows, columns, channels = x.shape
        x = ops.cast(x, float_dtype()) / self.temperature
        weights = ops.softmax(
            ops.reshape(x, (-1, rows * columns, channels)), axis=1
        )
        row, column = (
            ops.linspace(-1.0, 1.0, n, dtype=weights.dtype)
            if n > 1
            else ops.zeros((1,), dtype=weights.dtype)
            for n in (rows, columns)
        )
        places = ops.stack(
            [ops.tile(column, (rows,)), ops.repeat(row, columns)], axis=-1
        )
        points = ops.einsum("npc,pd->ncd", weights, places)
        return ops.cast(ops.reshape(points, (-1, 2 * channels)), dtype)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


@register
class ImageEncoder(ObservationEncoder):
    """Images of several cameras and vectors, each step on its own.

    A dict of (B, obs_steps, H, W, C) and (B, obs_steps, D) to (B, obs_steps,
    width). Images are scaled, cropped and go through a ResNet with group
    normalisation; its feature maps are pooled; what all cameras give, and
    then the vectors, in the order of their names, goes through an MLP of one
    hidden layer.

    Args:
        observation_shape: dict of name to (obs_steps, H, W, C) or
            (obs_steps, D).
        width: channels of a step of the condition.
        backbone: "resnet18", "resnet34", "resnet50" or a dict of the
            arguments of KerasHub's `ResNetBackbone`.
        crop_shape: None or (height, width) of crops: random in training, of
            the centre otherwise.
        random_crop: whether crops are random in training.
        share_weights: whether all cameras have one backbone; they must then
            give images of one shape.
        pooling: "spatial_softmax" of `keypoints` maps (a 1 x 1 convolution
            makes them), as in diffusion policy's image experiments, or
            "average", as in arXiv 2512.01809.
        keypoints: number of maps of the softmax.
        pixel_scale: factor of the pixels. Images of episodes (bytes) reach
            the encoder as -1 to 1, which needs none.
        dtype: dtype policy of backbone and MLP.
        name: model name.

    Example:

    ```python
    encoder = kf.networks.ImageEncoder(
        {"camera": (2, 84, 84, 3), "gripper": (2, 3)}, crop_shape=(76, 76)
    )
    ```
    """

    @checked(
        width=SIZE,
        random_crop=FLAG,
        share_weights=FLAG,
        keypoints=SIZE,
        pixel_scale=POSITIVE,
    )
    def __init__(
        self,
        observation_shape: Mapping[str, Shape] | Shape,
        width: int = 256,
        backbone: str = "resnet18",
        crop_shape: Shape | None = None,
        random_crop: bool = True,
        share_weights: bool = False,
        pooling: str = "spatial_softmax",
        keypoints: int = 32,
        pixel_scale: float = 1.0,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "image_encoder",
    ) -> None:
        given.choice("pooling", pooling, ("spatial_softmax", "average"))
        if not isinstance(observation_shape, dict):
            raise ValueError(
                "`observation_shape` must be a dict of name to shape. "
                f"Received: {observation_shape!r}."
            )
        inputs = observation_inputs(observation_shape, (2, 4))
        cameras = [k for k, x in inputs.items() if len(x.shape) == 5]
        if not cameras:
            raise ValueError(
                "`observation_shape` has no image, (obs_steps, H, W, C); "
                f"`MLPEncoder` takes vectors. Received: {observation_shape!r}."
            )
        shapes = {
            k: (*(crop_shape or inputs[k].shape[2:4]), inputs[k].shape[-1])
            for k in cameras
        }
        if share_weights and len(set(shapes.values())) > 1:
            raise ValueError(
                "`share_weights` needs images of one shape. "
                f"Received: {shapes}."
            )

        def features(camera, suffix):
            """The ResNet and the pooling of a camera, as a model."""
            name = f"backbone{suffix}"
            # Paths that tell the cameras' weights apart.
            with keras.name_scope(name):
                images = keras.Input(shapes[camera], dtype=float_dtype())
                h = resnet(backbone, shapes[camera], dtype)(images)
                if pooling == "average":
                    h = layers.GlobalAveragePooling2D(dtype=dtype)(h)
                else:
                    h = layers.Conv2D(keypoints, 1, dtype=dtype, name="maps")(h)
                    h = SpatialSoftmax(dtype=dtype, name="keypoints")(h)
            return keras.Model(images, h, name=name)

        shared = features(cameras[0], "") if share_weights else None
        parts = []
        for camera in cameras:
            x = MergeSteps(dtype=float_dtype(), name=f"{camera}_rows")(
                inputs[camera]
            )
            if crop_shape is not None:
                x = Crop(
                    *crop_shape,
                    random_crop,
                    dtype=float_dtype(),
                    name=f"{camera}_crop",
                )(x)
            x = layers.Rescaling(
                pixel_scale, dtype=float_dtype(), name=f"{camera}_scale"
            )(x)
            h = (shared or features(camera, f"_{camera}"))(x)
            steps = inputs[camera].shape[1]
            parts.append(
                SplitSteps(steps, dtype=float_dtype(), name=f"{camera}_steps")(
                    h
                )
            )
        parts += [x for k, x in inputs.items() if k not in cameras]
        y = mlp(joined(parts, "features"), width, width, 1, dtype)
        super().__init__(inputs, y, name=name)
