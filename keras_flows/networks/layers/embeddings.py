"""Embeddings of times, noise levels, coordinates and labels."""

from __future__ import annotations

import math
import typing

import numpy as np
from keras import initializers
from keras import layers
from keras import ops

from keras_flows.networks.layers.dense import Dense
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.ops.scalars import COUNT
from keras_flows.ops.scalars import PAIRS
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any


@register
class TimeFeatures(layers.Layer):
    """Sine and cosine features of a time: (B,) -> (B, 1 + 2 num).

    [t, sin(w_k t), cos(w_k t)] with w_k spaced geometrically from 1 to
    `max_frequency`. Float32 under every dtype policy: bfloat16 times are
    among the known ways to lose a few-step model.

    Args:
        num: number of frequencies.
        max_frequency: the largest frequency, in radians per unit of time. A
            flow map's loss holds derivatives by time, which multiply by it.
    """

    @checked(num=COUNT, max_frequency=POSITIVE)
    def __init__(
        self, num: int = 8, max_frequency: float = 8.0, **kwargs: Any
    ) -> None:
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
class FourierFeatures(layers.Layer):
    """Random Fourier features: (B, d) -> (B, d + 2 num).

    [x, sin(W x), cos(W x)] with a fixed W ~ N(0, scale^2), stored with the
    weights. Source: arXiv 2006.10739.

    Args:
        num: number of random directions.
        scale: standard deviation of W, in radians per unit of x.
        seed: int, seed of W.
    """

    @checked(num=SIZE, scale=POSITIVE, seed=SEED)
    def __init__(
        self,
        num: int = 16,
        scale: float = 2.0,
        seed: int | None = 0,
        **kwargs: Any,
    ) -> None:
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
class TimestepEmbedding(layers.Layer):
    """The embedding of a time in DiT: (B,) -> (B, units).

    Dense(silu(Dense([cos(w_k t), sin(w_k t)]))), w_k = P^(-k / half) for
    k < half = num / 2. Float32 under every dtype policy.
    Source: arXiv 2212.09748.

    Args:
        units: size of the embedding.
        num: number of sinusoidal features, even.
        max_period: P.
    """

    @checked(units=SIZE, num=PAIRS, max_period=POSITIVE)
    def __init__(
        self,
        units: int,
        num: int = 256,
        max_period: float = 10_000.0,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.units = units
        self.num = num
        self.max_period = max_period
        half = num // 2
        self._frequencies = np.exp(
            -math.log(max_period) * np.arange(half) / half
        )
        normal = initializers.RandomNormal(stddev=0.02)
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


@register
class NoiseEmbedding(layers.Layer):
    """Sines and cosines of c_noise: (B,) -> (B, dim), float32.

    Args:
        dim: number of features, even.
        kind: "ddpm++" (geometric frequencies to 1/10000, sines first),
            "adm" (short of 1/10000, cosines first) or "ncsn++" (random
            frequencies N(0, scale^2), kept with the weights, sines first).
        scale: of "ncsn++", in turns per unit of c_noise; 16 is published.
    """

    @checked(dim=PAIRS, scale=POSITIVE)
    def __init__(self, dim, kind, scale=16.0, **kwargs):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.dim = dim
        self.kind = kind
        self.scale = scale
        half = dim // 2
        last = half if kind == "adm" else half - 1
        self._frequencies = 10_000.0 ** (-np.arange(half) / last)

    def build(self, input_shape):
        if self.built:
            return
        if self.kind == "ncsn++":
            drawn = np.random.default_rng(0).standard_normal(self.dim // 2)
            drawn = self.scale * drawn
            self.freqs = self.add_weight(
                shape=drawn.shape,
                initializer=lambda shape, dtype: ops.convert_to_tensor(
                    drawn, dtype=dtype
                ),
                trainable=False,
                name="freqs",
            )
        self.built = True

    def call(self, t):
        if self.kind == "ncsn++":
            frequencies = 2.0 * math.pi * self.freqs
        else:
            frequencies = ops.convert_to_tensor(
                self._frequencies, dtype=t.dtype
            )
        angles = ops.expand_dims(t, -1) * frequencies
        features = [ops.sin(angles), ops.cos(angles)]
        if self.kind == "adm":
            features.reverse()
        return ops.concatenate(features, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "dim": self.dim,
            "kind": self.kind,
            "scale": self.scale,
        }


@register
class LabelProjection(layers.Layer):
    """Dense(scale one_hot(label)): (B,) -> (B, units); null label: no vector.

    Args:
        num_classes: number of labels; label `num_classes` is the null label.
        units: size of the embedding.
        use_bias: whether there is a bias.
        scale: factor of the one-hot vector.
        initializer: of the kernel.
    """

    def __init__(
        self,
        num_classes,
        units,
        use_bias,
        scale=1.0,
        initializer="glorot_uniform",
        **kwargs,
    ):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.units = units
        self.use_bias = use_bias
        self.scale = scale
        self.initializer = initializers.get(initializer)

    def build(self, input_shape):
        if self.built:
            return
        self.kernel = self.add_weight(
            shape=(self.num_classes, self.units),
            initializer=self.initializer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer="zeros", name="bias"
            )
        self.built = True

    def call(self, labels):
        one_hot = ops.one_hot(
            labels, self.num_classes + 1, dtype=self.compute_dtype
        )
        y = ops.matmul(self.scale * one_hot[:, :-1], self.kernel)
        return y if self.bias is None else y + self.bias

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "units": self.units,
            "use_bias": self.use_bias,
            "scale": self.scale,
            "initializer": initializers.serialize(self.initializer),
        }


@register
class LinearTimeFeatures(layers.Layer):
    """Sines and cosines of a time: (B,) -> (B, num), float32.

    [sin(w_k t), cos(w_k t)] with w_k spaced evenly from 0 to
    `max_frequency`. Source: arXiv 2512.01809's MLP, where that is 100.

    Args:
        num: number of features, even.
        max_frequency: the largest frequency, in radians per unit of time, as
            in `TimeFeatures`.
    """

    @checked(num=PAIRS, max_frequency=POSITIVE)
    def __init__(self, num=128, max_frequency=2.0, **kwargs):
        kwargs["dtype"] = float_dtype()
        super().__init__(**kwargs)
        self.num = num
        self.max_frequency = max_frequency
        self._frequencies = np.linspace(0.0, max_frequency, num // 2)
        self.built = True

    def call(self, t):
        frequencies = ops.convert_to_tensor(self._frequencies, dtype=t.dtype)
        angles = ops.expand_dims(t, -1) * frequencies
        return ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "num": self.num,
            "max_frequency": self.max_frequency,
        }
