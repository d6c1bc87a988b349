"""REPA (arXiv 2410.06940): align a network's features with an encoder's.

loss = L + lambda mean_tokens(-cos(h(features of block `repa_depth`), e(x))),
with L the loss of any interface, the features those of the same forward
pass, h a small trained MLP and e a frozen encoder of the clean image.
"""

from __future__ import annotations

import typing

import keras
from keras import layers
from keras import ops

from keras_flows.interfaces.arguments import checked_arguments
from keras_flows.interfaces.holder import Holder
from keras_flows.networks import FeatureTap
from keras_flows.networks import Frozen
from keras_flows.ops import ERROR
from keras_flows.ops import float_dtype
from keras_flows.ops import gather
from keras_flows.ops import register

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.interfaces.interface import Interface


def projector(tokens, channels, proj_dim, feature_dim, dtype=None):
    """h: three dense layers with SiLU between, on every token."""
    inputs = keras.Input((tokens, channels), dtype=float_dtype())
    h = inputs
    for i in range(2):
        h = layers.Dense(proj_dim, "silu", dtype=dtype, name=f"hidden_{i}")(h)
    h = layers.Dense(feature_dim, dtype=dtype, name="output")(h)
    return keras.Model(inputs, h, name="projector")


def negative_cosine(a, b):
    """-cos of (B, T, D) tokens, mean over T, in float32: (B,)."""
    a, b = (ops.cast(part, float_dtype()) for part in (a, b))
    dot = ops.sum(a * b, axis=-1)
    norms = ops.sum(a * a, axis=-1) * ops.sum(b * b, axis=-1)
    return ops.mean(-dot * ops.rsqrt(ops.maximum(norms, 1e-24)), axis=-1)


@register
class REPAInterface(Holder):
    """REPA around any interface whose network has token features.

    Everything but the loss is the held interface's: `pred`, `score`,
    `generate`, `export`, its EMA and its times and noise. Train with batches
    (x, condition, extras), extras a dict with "features" (B, T, feature_dim)
    computed before, or "image", what the encoder is to see (with latents as
    x); without either the encoder sees x. `interface.save_to_preset` saves
    the trained model without the projector.

    Args:
        interface: the interface to hold.
        feature_dim: channels of the encoder's tokens.
        repa_loss_weight: lambda.
        repa_depth: the block whose features are aligned, counted from 1.
        proj_dim: width of the projector.
        encoder: frozen `keras.Model`, images to tokens (B, T, feature_dim),
            such as `kf.networks.dino_encoder(...)`; None where features come
            with the batch. It is not saved: call `set_encoder` again
            after loading.
        layer: name of the layer whose output is aligned, by default
            "block_{repa_depth - 1}", a DiT's.
        name: model name.
    """

    @checked_arguments
    def __init__(
        self,
        interface: Interface,
        *,
        feature_dim: int = 768,
        repa_loss_weight: float = 0.5,
        repa_depth: int = 8,
        proj_dim: int = 2048,
        encoder: keras.Model | None = None,
        layer: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(interface, ("diffusion_loss", "repa_loss"), name=name)
        self.feature_dim = feature_dim
        self.repa_loss_weight = repa_loss_weight
        self.repa_depth = repa_depth
        self.proj_dim = proj_dim
        self.layer = layer
        if isinstance(interface, Holder):
            raise ValueError(
                "`interface` must be the interface itself, whose network's "
                f"features are aligned. Received a {type(interface).__name__}; "
                "pass its `interface`."
            )
        if not interface.interpolant.gaussian or "action" in interface.provides:
            raise ValueError(
                "`interface` must learn noised data, whose features there are "
                f"to align. Received a {type(interface).__name__} with "
                f"objective '{interface.objective.name}'."
            )
        if interface.tap is None:
            interface.tap = FeatureTap(interface.network)
        self.tapped = f"block_{repa_depth - 1}" if layer is None else layer
        shape = interface.tap.watch(self.tapped)
        if len(shape) != 2:
            raise ValueError(
                "`layer` must yield tokens (batch, tokens, channels). "
                f"Received features of shape (batch, {shape})."
            )
        self.projector = projector(
            *shape, proj_dim, feature_dim, interface.network.dtype_policy
        )
        self.set_encoder(encoder)
        self.built = True

    def set_encoder(self, encoder):
        """Take another frozen encoder; None for features with the batch."""
        if encoder is not None:
            expected = (*self.projector.output.shape[1:-1], self.feature_dim)
            received = tuple(encoder.output.shape[1:])
            if received != expected:
                raise ValueError(
                    "`encoder` must yield (tokens, feature_dim) = "
                    f"{expected}, one token for each of the network's. "
                    f"Received: {received}; resize the encoder's images, or "
                    "set `feature_dim`."
                )
            encoder = Frozen(encoder, name="encoder")
        self.encoder = encoder

    def features(self, x, extras):
        """The encoder's tokens for a batch, (B, T, feature_dim)."""
        extras = {} if extras is None else extras
        unknown = set(extras) - {"features", "image"}
        if unknown:
            raise ValueError(
                "The third element of a batch may hold 'features' or "
                f"'image'. Received: {sorted(unknown)}."
            )
        if "features" in extras:
            features = extras["features"]
            expected = self.projector.output.shape[1:]
            if tuple(features.shape[1:]) != tuple(expected):
                raise ValueError(
                    "`features` must have shape (batch, "
                    f"{', '.join(map(str, expected))}): tokens of the "
                    f"network's layer. Received: {tuple(features.shape)}."
                )
            return ops.stop_gradient(features)
        if self.encoder is None:
            raise ValueError(
                "REPA needs an encoder (`set_encoder`), or batches "
                "(x, condition, {'features': ...}) with features computed "
                "before."
            )
        return self.encoder(extras.get("image", x))

    def loss(self, x, condition=None, extras=None, *, training=True):
        """The held interface's terms, and "repa_loss", each (B,)."""
        target = self.features(x, extras)
        with gather() as notes:
            terms = self.interface.loss(x, condition, training=training)
        diffusion = terms.get(ERROR, terms["loss"])
        tokens = self._tokens(x, notes)
        repa = negative_cosine(self.projector(tokens), target)
        for name in {"loss", ERROR} & set(terms):
            terms[name] = terms[name] + self.repa_loss_weight * repa
        return {**terms, "diffusion_loss": diffusion, "repa_loss": repa}

    def _tokens(self, x, notes):
        """Features of the first call on each row, in the batch's order."""
        # An objective's first call on a row is at its x_t; the later ones
        # are at other points.
        first = {}
        for part, noted in notes:
            first.setdefault(part, noted)
        if "off" not in first:
            return first[None][self.tapped]
        groups = (first[part][self.tapped] for part in ("off", "diagonal"))
        return first["rows"].merge(*groups)

    def call(self, x, x_feature=None, condition=None, training=False):
        """The loss of clean data, with precomputed features or without."""
        extras = None if x_feature is None else {"features": x_feature}
        return self.loss(x, condition, extras, training=training)

    def get_config(self):
        return {
            "interface": keras.saving.serialize_keras_object(self.interface),
            "feature_dim": self.feature_dim,
            "repa_loss_weight": self.repa_loss_weight,
            "repa_depth": self.repa_depth,
            "proj_dim": self.proj_dim,
            "layer": self.layer,
            "name": self.name,
        }
