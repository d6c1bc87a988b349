"""Modulation: layers scaled, shifted and gated by a condition (AdaLN-Zero)."""

from keras import layers
from keras import ops

from keras_flows.networks.layers.dense import Dense
from keras_flows.networks.layers.normalization import LayerNormalization
from keras_flows.ops import multiply_add
from keras_flows.ops import register


def modulate(x, shift, scale):
    """x (1 + scale) + shift, tokens (B, T, C) by (B, 1, C) or (B, T, C)."""
    return multiply_add(x, 1.0 + scale, shift)


class Modulated(layers.Layer):
    """A layer with `chunks` vectors of modulation from c, zero at first.

    c is (B, D), one condition for all tokens, or (B, T, D), one for each.
    """

    def __init__(self, chunks, **kwargs):
        super().__init__(**kwargs)
        self.chunks = chunks

    def _build_modulation(self, width, condition_width):
        self.modulation = Dense(
            self.chunks * width,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="modulation",
        )
        self.modulation.build((None, condition_width))

    def _modulations(self, c):
        y = self.modulation(ops.silu(c))
        if len(y.shape) == 2:
            y = y[:, None]
        return ops.split(y, self.chunks, axis=-1)


@register
class FinalLayer(Modulated):
    """Dense(modulate(norm(x))), zero at first: (B, T, C) -> (B, T, units).

    Args:
        units: number of outputs of a token.
    """

    def __init__(self, units, **kwargs):
        super().__init__(chunks=2, **kwargs)
        self.units = units

    def _make_norm(self):
        return LayerNormalization(
            affine=False, dtype=self.dtype_policy, name="norm"
        )

    def build(self, x_shape, c_shape):
        if self.built:
            return
        self._build_modulation(x_shape[-1], c_shape[-1])
        self.norm = self._make_norm()
        self.out = Dense(
            self.units,
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="out",
        )
        self.norm.build(x_shape)
        self.out.build(x_shape)
        self.built = True

    def call(self, x, c):
        shift, scale = self._modulations(c)
        return self.out(modulate(self.norm(x), shift, scale))

    def get_config(self):
        return {**super().get_config(), "units": self.units}
