"""Normalisations that stay right under a differentiated JVP."""

from __future__ import annotations

import typing

import keras
from keras import ops

from keras_flows.ops import float_dtype
from keras_flows.ops import layer_norm
from keras_flows.ops import register
from keras_flows.ops import rms_norm
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any


@register
class LayerNormalization(keras.layers.Layer):
    """Layer normalisation over the last axis, right under derivatives.

    y = gamma (x - mean) / sqrt(var + epsilon) + beta, in float32 at least.
    PyTorch's fused kernel has a wrong gradient through a JVP, without a word
    (pytorch#196700): here every JVP sees the formula, also one that
    `kf.ops.jvp`, which replaces such kernels, did not take.

    Args:
        epsilon: added to the variance.
        affine: whether gamma and beta are learned.
    """

    @checked(epsilon=POSITIVE, affine=FLAG)
    def __init__(
        self, epsilon: float = 1e-6, affine: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.affine = affine

    def build(self, input_shape):
        if self.built:
            return
        if self.affine:
            dim = (input_shape[-1],)
            self.gamma = self.add_weight(
                shape=dim, initializer="ones", name="gamma"
            )
            self.beta = self.add_weight(
                shape=dim, initializer="zeros", name="beta"
            )
        self.built = True

    def call(self, x):
        weights = (self.gamma, self.beta) if self.affine else ()
        return layer_norm(x, self.epsilon, *weights)

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "affine": self.affine,
        }


@register
class GroupNormalization(keras.layers.Layer):
    """Group normalisation of channels-last data, by its explicit formula.

    Mean and variance over space and the channels of a group, in float32 at
    least.

    Args:
        groups: number of groups; must divide C.
        epsilon: added to the variance.
    """

    @checked(groups=SIZE, epsilon=POSITIVE)
    def __init__(
        self, groups: int = 32, epsilon: float = 1e-5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape):
        if self.built:
            return
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"`groups` ({self.groups}) must divide the number of channels "
                f"({channels})."
            )
        self.gamma = self.add_weight(
            shape=(channels,), initializer="ones", name="gamma"
        )
        self.beta = self.add_weight(
            shape=(channels,), initializer="zeros", name="beta"
        )
        self.built = True

    def call(self, x):
        dtype, shape = x.dtype, (-1, *x.shape[1:])
        x = ops.cast(x, float_dtype())
        size = shape[-1] // self.groups
        x = ops.reshape(x, (*shape[:-1], self.groups, size))
        axes = (*range(1, len(shape) - 1), len(shape))
        x = x - ops.mean(x, axis=axes, keepdims=True)
        variance = ops.mean(x * x, axis=axes, keepdims=True)
        x = ops.reshape(x * ops.rsqrt(variance + self.epsilon), shape)
        x = x * ops.cast(self.gamma, x.dtype) + ops.cast(self.beta, x.dtype)
        return ops.cast(x, dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "groups": self.groups,
            "epsilon": self.epsilon,
        }


@register
class RMSNormalization(keras.layers.Layer):
    """Root-mean-square normalisation over the last axis.

    y = gamma x / sqrt(mean(x^2) + epsilon), in float32 at least; under
    derivatives by its explicit formula, as `LayerNormalization`.

    Args:
        epsilon: added to the mean square.
    """

    @checked(epsilon=POSITIVE)
    def __init__(self, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        if self.built:
            return
        self.gamma = self.add_weight(
            shape=(input_shape[-1],), initializer="ones", name="gamma"
        )
        self.built = True

    def call(self, x):
        return rms_norm(x, self.epsilon, self.gamma)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}
