"""Embeddings of times, coordinates and positions."""

import math

import keras
import numpy as np
from keras import ops

from keras_flows.networks.layers import Dense
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
class TimestepEmbedding(keras.layers.Layer):
    """The embedding of a time in DiT: (B,) -> (B, units).

    Dense(silu(Dense([cos(w_k t), sin(w_k t)]))), w_k = P^(-k / half) for
    k < half = num / 2. Float32 under every dtype policy.
    Source: arXiv 2212.09748.

    Args:
        units: size of the embedding.
        num: number of sinusoidal features, even.
        max_period: P.
    """

    def __init__(self, units, num=256, max_period=10_000.0, **kwargs):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        if num % 2:
            raise ValueError(f"`num` must be even. Received: {num!r}.")
        self.units = units
        self.num = num
        self.max_period = max_period
        half = num // 2
        self._frequencies = np.exp(
            -math.log(max_period) * np.arange(half) / half
        )
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.hidden = Dense(
            units,
            activation="silu",
            kernel_initializer=normal,
            dtype=float_dtype(),
            name="hidden",
        )
        self.out = Dense(
            units,
            kernel_initializer=normal.clone(),
            dtype=float_dtype(),
            name="out",
        )

    def build(self, input_shape):
        if self.built:
            return
        self.hidden.build((None, self.num))
        self.out.build((None, self.units))
        self.built = True

    def _features(self, t):
        frequencies = ops.convert_to_tensor(self._frequencies, dtype=t.dtype)
        angles = ops.expand_dims(t, -1) * frequencies
        return ops.concatenate([ops.cos(angles), ops.sin(angles)], axis=-1)

    def call(self, t):
        return self.out(self.hidden(self._features(t)))

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "num": self.num,
            "max_period": self.max_period,
        }


@register
class RandomTimestepEmbedding(TimestepEmbedding):
    """`TimestepEmbedding` of random frequencies: (B,) -> (B, units).

    Dense(silu(Dense([sin(2 pi w_k t), cos(2 pi w_k t)]))), w_k ~ N(0, 1),
    stored with the weights. Source: arXiv 2510.11690.

    Args:
        units: size of the embedding.
        num: number of sinusoidal features, even.
    """

    def __init__(self, units, num=512, **kwargs):
        super().__init__(units, num, **kwargs)

    def build(self, input_shape):
        if self.built:
            return
        drawn = np.random.default_rng(0).standard_normal(self.num // 2)
        self.frequencies = self.add_weight(
            shape=drawn.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(
                drawn, dtype=dtype
            ),
            trainable=False,
            name="frequencies",
        )
        super().build(input_shape)

    def _features(self, t):
        angles = ops.expand_dims(t, -1) * (2.0 * math.pi * self.frequencies)
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)

    def get_config(self):
        config = super().get_config()
        del config["max_period"]
        return config


def sincos_positions(rows, columns, dim):
    """Fixed 2-D sine-cosine embedding, (rows * columns, dim), float64.

    The first half of the features is of the column, the second of the row,
    each [sin(w_k p), cos(w_k p)] with w_k = 10000^(-k / (dim / 4)): the order
    of MAE and of every DiT since.

    Args:
        rows: number of rows of patches.
        columns: number of columns of patches.
        dim: size of the embedding, a multiple of 4.
    """
    if dim % 4:
        raise ValueError(
            "A sine-cosine embedding of two coordinates needs a width that "
            f"4 divides. Received: {dim!r}."
        )
    frequencies = 10_000.0 ** (-np.arange(dim // 4) / (dim // 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [p[:, None] * frequencies for p in (column, row)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], 1)
