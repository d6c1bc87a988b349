"""Layers that stay right under a differentiated JVP on every backend."""

import math

import keras
import numpy as np
from keras import ops

from keras_flows.ops import float_dtype
from keras_flows.ops import register


@register
class TimeFeatures(keras.layers.Layer):
    """Sine and cosine features of a time: (B,) -> (B, 1 + 2 num).

    [t, sin(w_k t), cos(w_k t)] with w_k spaced geometrically from 1 to
    `max_frequency`. Float32 under every dtype policy: bfloat16 times are
    among the known ways to lose a few-step model.

    Args:
        num: number of frequencies.
        max_frequency: the largest frequency, in radians per unit of time.
    """

    def __init__(self, num=8, max_frequency=100.0, **kwargs):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.num = num
        self.max_frequency = max_frequency
        self._frequencies = np.geomspace(1.0, max_frequency, num)
        self.built = True

    def call(self, t):
        t = ops.expand_dims(t, -1)
        angles = t * ops.convert_to_tensor(self._frequencies, dtype=t.dtype)
        return ops.concatenate([t, ops.sin(angles), ops.cos(angles)], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "num": self.num,
            "max_frequency": self.max_frequency,
        }


@register
class FourierFeatures(keras.layers.Layer):
    """Random Fourier features: (B, d) -> (B, d + 2 num).

    [x, sin(W x), cos(W x)] with a fixed W ~ N(0, scale^2), stored with the
    weights. Source: arXiv 2006.10739.

    Args:
        num: number of random directions.
        scale: standard deviation of W, in radians per unit of x.
        seed: int, seed of W.
    """

    def __init__(self, num=16, scale=2.0, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.num = num
        self.scale = scale
        self.seed = seed

    def build(self, input_shape):
        if self.built:
            return
        directions = np.random.default_rng(self.seed).normal(
            0.0, self.scale, size=(input_shape[-1], self.num)
        )
        self.directions = self.add_weight(
            shape=directions.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(
                directions, dtype=dtype
            ),
            trainable=False,
            name="directions",
        )
        self.built = True

    def call(self, x):
        angles = ops.matmul(x, self.directions)
        return ops.concatenate([x, ops.sin(angles), ops.cos(angles)], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "num": self.num,
            "scale": self.scale,
            "seed": self.seed,
        }


@register
class LayerNormalization(keras.layers.Layer):
    """Layer normalisation over the last axis, by its explicit formula.

    y = gamma (x - mean) / sqrt(var + epsilon) + beta, in float32 at least.
    Keras's own layer calls fused kernels whose gradient through a JVP is
    wrong without a word, on PyTorch (pytorch#196700) and, less so, on
    TensorFlow; MeanFlow stops that gradient, LSD and ESD need it.

    Args:
        epsilon: added to the variance.
        affine: whether gamma and beta are learned.
    """

    def __init__(self, epsilon=1e-6, affine=True, **kwargs):
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
        dtype = x.dtype
        x = ops.cast(x, float_dtype())
        x = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(x * x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(variance + self.epsilon)
        if self.affine:
            x = x * ops.cast(self.gamma, x.dtype) + ops.cast(self.beta, x.dtype)
        return ops.cast(x, dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "affine": self.affine,
        }


@register
class SelfAttention(keras.layers.Layer):
    """Multi-head self-attention over tokens: (B, T, C) -> (B, T, C).

    softmax(Q K^T / sqrt(d)) V through `keras.ops.dot_product_attention`;
    `keras_flows.ops.jvp` keeps that call to kernels with a forward
    derivative, so the fused ones stay in use everywhere else.

    Args:
        num_heads: number of heads; must divide C.
    """

    def __init__(self, num_heads=4, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def build(self, input_shape):
        if self.built:
            return
        channels = input_shape[-1]
        if channels % self.num_heads:
            raise ValueError(
                f"`num_heads` ({self.num_heads}) must divide the number of "
                f"channels ({channels})."
            )
        self.qkv = keras.layers.Dense(
            3 * channels, dtype=self.dtype_policy, name="qkv"
        )
        self.out = keras.layers.Dense(
            channels, dtype=self.dtype_policy, name="out"
        )
        self.qkv.build(input_shape)
        self.out.build(input_shape)
        self.built = True

    def call(self, x):
        _, tokens, channels = x.shape
        head = channels // self.num_heads
        qkv = ops.reshape(self.qkv(x), (-1, tokens, 3, self.num_heads, head))
        q, k, v = (qkv[:, :, i] for i in range(3))
        scale = 1.0 / math.sqrt(head)
        if self.compute_dtype == "float64":
            # JAX's kernel computes its logits in float32 whatever comes in.
            logits = ops.einsum("bqhd,bkhd->bhqk", q * scale, k)
            weights = ops.softmax(logits, axis=-1)
            y = ops.einsum("bhqk,bkhd->bqhd", weights, v)
        else:
            y = ops.dot_product_attention(q, k, v, scale=scale)
        return self.out(ops.reshape(y, (-1, tokens, channels)))

    def get_config(self):
        return {**super().get_config(), "num_heads": self.num_heads}
