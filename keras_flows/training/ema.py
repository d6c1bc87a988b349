"""Exponential moving averages of a network, as variables of the model."""

from __future__ import annotations

import contextlib
import threading
import typing
import warnings

import keras
import numpy as np
from keras import ops

from keras_flows.networks import Fixed
from keras_flows.networks import clone_network
from keras_flows.networks import fixed_copy
from keras_flows.ops import deserialized
from keras_flows.ops import float_dtype
from keras_flows.ops import register
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

_running = threading.local()


@contextlib.contextmanager
def running_step():
    """A step, before which `settle` was called: averages are read as is."""
    before = getattr(_running, "step", False)
    _running.step = True
    try:
        yield
    finally:
        _running.step = before


def _in_step():
    """Whether values are symbolic here, or may not be waited for."""
    if getattr(_running, "step", False):
        return True
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return isinstance(ops.zeros(()), jax.core.Tracer)
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.executing_eagerly()
    return False


def settle(model):
    """What must hold before a step of the model, or a sample of it.

    Averages that were never updated are the live weights, every average has
    the variables its network has, and `Fixed` layers are frozen; of the model
    and of all that it holds. Compiled functions that saw other variables are
    dropped.
    """
    changed = False
    for layer in model._flatten_layers():
        if isinstance(layer, Fixed):
            layer.freeze()
        if isinstance(layer, EMA):
            changed = layer.sync() or changed
    if changed:
        model.train_function = model.test_function = None
        model.predict_function = None


class _Hidden:
    """The live network and its averaged copy, where Keras does not look.

    The average is saved as a flat list by its layer, so that weights saved
    without one still load: it then starts anew from the loaded weights.
    """

    def __init__(self, live, name):
        self.live = live
        self.name = name
        self.network = None


@register
class EMA(Fixed):
    """One average of a network's weights, updated inside the train step.

    a <- beta_n a + (1 - beta_n) w after the n-th update of the optimizer,
    with either a constant decay, warmed up, beta_n = min(decay, n / (9 + n)),
    or the power function of EDM2 (arXiv 2312.02696), beta_n =
    (1 - 1/n)^(gamma + 1), whose width stays the same share of the training
    whatever its length. It is held in float32, or float64 where the network
    is, whatever the dtype policy.

    Args:
        decay: constant decay, e.g. 0.999. Give this or `std`.
        std: relative standard deviation of the power-function profile,
            e.g. 0.05; between 0 and 0.29.
    """

    @checked(decay=Optional(REAL), std=Optional(REAL))
    def __init__(
        self,
        decay: float | None = None,
        std: float | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
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
                return deserialized(identifier, "ema", EMA)
            return EMA(**identifier)
        if isinstance(identifier, (int, float)):
            if not 0.0 <= identifier < 1.0:
                raise ValueError(
                    "`ema` must be a decay in [0, 1), an `EMA`, or a list of "
                    f"these. Received: {identifier!r}."
                )
            return EMA(decay=float(identifier))
        raise ValueError(
            "`ema` must be None, a decay such as 0.999, an `EMA`, or a list "
            f"of these. Received: {identifier!r}."
        )

    def attach(self, network, name):
        """Make the averaged copy of `network`; called once.

        Of a network that is not built yet `sync` makes it.
        """
        self._hidden = _Hidden(network, name)
        self.averages = []
        if network.built:
            self._copy()
        self.updates = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name="updates",
        )
        self.built = True

    def _copy(self):
        hidden = self._hidden
        hidden.network = fixed_copy(hidden.live, hidden.name, _wide_copy)
        self.averages = list(hidden.network.variables)

    def averaged(self):
        """The averaged network, and the live weights before any update.

        Outside of steps and traces it is looked after here; before those,
        `settle` does so. A method, since Keras saves properties.
        """
        self.sync()
        hidden = self._hidden
        if hidden.network is None:
            raise ValueError(
                f"`network` ('{hidden.live.name}') is not built yet and has "
                "no average: `fit` first, generate(noise=...), or call the "
                "network on a batch."
            )
        values = (average.value for average in self.averages)
        if _in_step() and any(hasattr(v, "full_tensor") for v in values):
            raise ValueError(
                "The loss reads an average, which `fully_shard` has split: "
                "pass it `averages_in_loss=True`."
            )
        return hidden.network

    def sync(self):
        """Follow the live network; on the host, and not within a step.

        An average that was never updated takes the live weights. Where the
        network has other variables than when it was copied (LoRA was enabled,
        say, or it was quantised) it is copied anew.

        Returns:
            Whether it was copied anew.
        """
        if _in_step():
            return False
        live = self._hidden.live
        changed = _layout(live.variables) != _layout(self.averages)
        if changed and self.averages:
            warnings.warn(
                f"The variables of '{live.name}' have changed (by LoRA or "
                "quantisation): its average starts anew from the present "
                "weights. To keep an average, make it the weights before: "
                "`kf.presets.slim(model)`.",
                stacklevel=3,
            )
        if changed or (live.built and self._hidden.network is None):
            self._tracker.unlock()
            for average in list(self.averages):
                self._untrack_variable(average)
            self._copy()
            self.updates.assign(0)
        if int(self.updates.numpy()) == 0:
            self.restart_from(live)
        return changed

    @property
    def gamma(self):
        """Exponent of the power-function profile, from `std`."""
        # (gamma + 2)^2 (gamma + 3) = (gamma + 1) / std^2
        t = self.std**-2
        return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())

    def rate(self, n):
        """1 - beta_n of the n-th update (n counts from 1).

        Not from beta_n, which has no digits left near 1 in float32.
        """
        n = ops.cast(n, float_dtype())
        if self.decay is not None:
            return ops.maximum(1.0 - self.decay, 9.0 / (9.0 + n))
        return -ops.expm1((self.gamma + 1.0) * ops.log1p(-1.0 / n))

    def restart_from(self, network):
        """Copy the live weights, as before the first update."""
        for average, variable in zip(
            self.averages, network.variables, strict=True
        ):
            # A copy: JAX would donate one shared buffer twice.
            average.assign(ops.copy(ops.cast(variable.value, average.dtype)))

    def update(self, network, updated):
        """One update where the boolean tensor `updated` is true."""
        self.updates.assign_add(ops.cast(updated, "int32"))
        n = ops.maximum(self.updates, 1)
        rate = ops.where(updated, self.rate(n), 0.0)
        trainable = {id(v) for v in network.trainable_variables}
        moved = []
        for average, variable in zip(
            self.averages, network.variables, strict=True
        ):
            if not keras.backend.is_float_dtype(variable.dtype):
                continue
            if id(variable) in trainable:
                moved.append((average, variable))
            else:
                # Statistics and fixed features are copied, not averaged.
                new = ops.cast(variable.value, average.dtype)
                average.assign(ops.where(updated, new, average.value))
        if moved:
            _move(moved, rate)

    def save_own_variables(self, store):
        self.sync()
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


def _move(pairs, rate):
    """a <- a + rate (w - a) of pairs of variables (a, w)."""
    if keras.backend.backend() == "torch":
        from keras_flows.training import torch_updates

        averages, values = zip(
            *((a.value.detach(), v.value.detach()) for a, v in pairs),
            strict=True,
        )
        if torch_updates.is_plain((*averages, *values)):
            torch_updates.move_averages(list(averages), list(values), rate)
            return
    for average, variable in pairs:
        new = ops.cast(variable.value, average.dtype)
        step = ops.cast(rate, average.dtype)
        average.assign(average + step * (new - average))


def _layout(variables):
    """What must agree between a network and its average."""
    return [
        (tuple(v.shape), keras.backend.is_float_dtype(v.dtype))
        for v in variables
    ]


# The policies with the same computations and variables in float32.
_WIDE = {"bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}


def _wide_copy(network, name):
    """As `clone_network`, with variables of float32 at least."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_WIDE.get(policy.name, policy))
    try:
        return clone_network(network, name, _widened(network.get_config()))
    finally:
        keras.config.set_dtype_policy(policy)


def _widened(config):
    """A network's config with the policies of `_WIDE`."""
    if isinstance(config, (list, tuple)):
        return type(config)(_widened(part) for part in config)
    if isinstance(config, keras.dtype_policies.DTypePolicy):
        return _WIDE.get(config.name, config)
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "InputLayer":
        # Its dtype is that of a tensor.
        return config
    policy = str(config.get("class_name")).endswith("DTypePolicy")
    keys = ("name", "source_name") if policy else ("dtype",)
    return {
        key: _WIDE.get(part, part)
        if key in keys and isinstance(part, str)
        else _widened(part)
        for key, part in config.items()
    }
