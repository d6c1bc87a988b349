"""A multilayer perceptron of (x, t[, r][, condition]) for data of any rank."""

from __future__ import annotations

import math
import typing

import keras
from keras import layers

from keras_flows.networks.described import DescribedModel
from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.embeddings import FourierFeatures
from keras_flows.networks.layers.embeddings import TimeFeatures
from keras_flows.ops import float_dtype
from keras_flows.ops import given
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import Shape


@register
class MLP(DescribedModel):
    """MLP with Fourier features of x and sine features of the times.

    A functional model with inputs `x` (B, *shape), `t` (B,) and, where
    asked for, `r` (B,) and `condition`; the output has the shape of x.

    Args:
        dim: int, or tuple for data of higher rank: the shape of one example.
        width: units of each hidden layer.
        depth: number of hidden layers.
        two_times: whether the network takes `r`, as flow maps need.
        activation: hidden activation, any that Keras knows.
        fourier_features: number of random Fourier features of x, 0 for none.
        fourier_scale: their standard deviation, in radians per unit of x.
        time_features: number of frequencies for each time.
        max_frequency: the largest of them, in radians per unit of time. A
            derivative by time multiplies by it: continuous-time consistency
            wants slow features, 4 say.
        num_classes: where given, `condition` is an integer label of shape
            (B,); label `num_classes` is the null label, `null_label`.
        condition_dim: where given, `condition` is a float vector of shape
            (B, condition_dim), an observation say.
        dtype: dtype policy of the hidden layers.
        name: model name.

    Example:

    ```python
    network = kf.networks.MLP(2, width=256, depth=4, two_times=True)
    ```
    """

    @checked(
        dim=given.of(given.sizes, single=True),
        width=SIZE,
        depth=SIZE,
        two_times=FLAG,
        fourier_features=COUNT,
        fourier_scale=POSITIVE,
        time_features=COUNT,
        max_frequency=POSITIVE,
        num_classes=Optional(SIZE),
        condition_dim=Optional(SIZE),
    )
    def __init__(
        self,
        dim: int | Shape,
        width: int = 256,
        depth: int = 4,
        two_times: bool = False,
        activation: str | Callable[..., Any] | None = "silu",
        fourier_features: int = 16,
        fourier_scale: float = 2.0,
        time_features: int = 4,
        max_frequency: float = 8.0,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        name: str = "mlp",
    ) -> None:
        shape = dim
        if num_classes is not None and condition_dim is not None:
            raise ValueError("Give `num_classes` or `condition_dim`, not both.")
        inputs = {
            "x": keras.Input(shape, dtype=float_dtype(), name="x"),
            "t": keras.Input((), dtype=float_dtype(), name="t"),
        }
        if two_times:
            inputs["r"] = keras.Input((), dtype=float_dtype(), name="r")
        size = math.prod(shape)
        x = inputs["x"]
        if len(shape) > 1:
            x = layers.Reshape((size,), name="flatten")(x)
        features = [x]
        if fourier_features:
            features = [
                FourierFeatures(
                    fourier_features,
                    fourier_scale,
                    dtype=float_dtype(),
                    name="fourier",
                )(x)
            ]
        for time in ("t", "r") if two_times else ("t",):
            features.append(
                TimeFeatures(
                    time_features, max_frequency, name=f"{time}_features"
                )(inputs[time])
            )
        if num_classes is not None:
            inputs["condition"] = keras.Input(
                (), dtype="int32", name="condition"
            )
            features.append(
                layers.Embedding(
                    num_classes + 1, width, dtype=dtype, name="label"
                )(inputs["condition"])
            )
        elif condition_dim is not None:
            inputs["condition"] = keras.Input(
                (condition_dim,), dtype=float_dtype(), name="condition"
            )
            features.append(inputs["condition"])
        h = features[0]
        if len(features) > 1:
            h = layers.Concatenate(dtype=dtype, name="features")(features)
        for i in range(depth):
            h = Dense(
                width, activation=activation, dtype=dtype, name=f"hidden_{i}"
            )(h)
        # A small output layer starts near the zero velocity.
        y = Dense(
            size,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype=dtype,
            name="output",
        )(h)
        if len(shape) > 1:
            y = layers.Reshape(shape, dtype=dtype, name="unflatten")(y)
        super().__init__(inputs=inputs, outputs=y, name=name)
        self.null_label = num_classes
