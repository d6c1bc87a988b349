"""Exponential moving averages of a network, as variables of the model."""

import keras
import numpy as np
from keras import ops

from keras_flows.networks import clone_network
from keras_flows.ops import register


class _Hidden:
    """Holds the averaged network where Keras does not look.

    The average is saved as a flat list by its layer, so that weights saved
    without one still load: it then starts anew from the loaded weights.
    """

    def __init__(self, network):
        self.network = network


@register
class EMA(keras.layers.Layer):
    """One average of a network's weights, updated inside the train step.

    a <- beta_n a + (1 - beta_n) w after the n-th update of the optimizer,
    with either a constant decay, warmed up, beta_n = min(decay, (1 + n) /
    (10 + n)), or the power function of EDM2 (arXiv 2312.02696), beta_n =
    (1 - 1/n)^(gamma + 1), whose width stays the same share of the training
    whatever its length.

    Args:
        decay: constant decay, e.g. 0.999. Give this or `std`.
        std: relative standard deviation of the power-function profile,
            e.g. 0.05; between 0 and 0.29.
    """

    def __init__(self, decay=None, std=None, name=None, **kwargs):
        kwargs.setdefault("trainable", False)
        super().__init__(name=name, **kwargs)
        if (decay is None) == (std is None):
            raise ValueError(
                "Give `decay` or `std` of an EMA, and only one. "
                f"Received: decay={decay}, std={std}."
            )
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(
                f"`decay` of an EMA must lie in [0, 1). Received: {decay!r}."
            )
        if std is not None and not 0 < std < 0.29:
            raise ValueError(
                f"`std` of an EMA must lie in (0, 0.29). Received: {std!r}."
            )
        self.decay = decay
        self.std = std

    @staticmethod
    def get(identifier):
        """An EMA from a decay (a number), a config dict or an EMA."""
        if isinstance(identifier, EMA):
            return identifier
        if isinstance(identifier, dict):
            if "class_name" in identifier:
                return keras.saving.deserialize_keras_object(identifier)
            return EMA(**identifier)
        if isinstance(identifier, (int, float)):
            return EMA(decay=float(identifier))
        raise ValueError(
            "`ema` must be None, a decay such as 0.999, an `EMA`, or a list "
            f"of these. Received: {identifier!r}."
        )

    def attach(self, network, name):
        """Make the averaged copy of `network`; called once."""
        self._hidden = _Hidden(clone_network(network, name))
        self.averages = list(self._hidden.network.variables)
        self.updates = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="updates",
        )
        self.built = True

    def averaged(self):
        """The averaged network; a method, since Keras saves properties."""
        return self._hidden.network

    @property
    def gamma(self):
        """Exponent of the power-function profile, from `std`."""
        # (gamma + 2)^2 (gamma + 3) = (gamma + 1) / std^2
        t = self.std**-2
        return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())

    def beta(self, n):
        """Decay of the n-th update (n counts from 1), float32."""
        n = ops.cast(n, "float32")
        if self.decay is not None:
            return ops.minimum(self.decay, n / (9.0 + n))
        return ops.power(1.0 - 1.0 / n, self.gamma + 1.0)

    def restart_from(self, network):
        """Copy the live weights, as before the first update."""
        for average, variable in zip(
            self.averages, network.variables, strict=True
        ):
            # A copy: JAX would donate one shared buffer twice.
            average.assign(ops.copy(variable.value))

    def update(self, network, updated):
        """One update where the boolean tensor `updated` is true."""
        self.updates.assign_add(ops.cast(updated, "int32"))
        beta = ops.where(updated, self.beta(ops.maximum(self.updates, 1)), 1.0)
        trainable = {id(v) for v in network.trainable_variables}
        for average, variable in zip(
            self.averages, network.variables, strict=True
        ):
            if id(variable) in trainable:
                keep = ops.cast(beta, average.dtype)
                average.assign(
                    keep * average
                    + (1 - keep) * ops.cast(variable, average.dtype)
                )
            elif keras.backend.is_float_dtype(variable.dtype):
                # Statistics and fixed features are copied, not averaged.
                average.assign(variable)

    def save_own_variables(self, store):
        store["updates"] = self.updates.numpy()
        for i, average in enumerate(self.averages):
            store[f"average_{i}"] = average.numpy()

    def load_own_variables(self, store):
        if "updates" not in store.keys():
            self.updates.assign(0)
            return
        for i, average in enumerate(self.averages):
            average.assign(store[f"average_{i}"])
        self.updates.assign(store["updates"])

    def get_config(self):
        return {
            **super().get_config(),
            "decay": self.decay,
            "std": self.std,
        }
