"""Copies of a network: with variables of their own, or with values alone."""

from __future__ import annotations

import contextlib
import typing

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_flows.networks.building import build
from keras_flows.networks.constructed import described
from keras_flows.networks.constructed import own_arguments
from keras_flows.networks.contract import Spec
from keras_flows.networks.contract import input_specs
from keras_flows.networks.contract import is_functional
from keras_flows.networks.contract import share_contract
from keras_flows.ops import given

if typing.TYPE_CHECKING:
    from typing import Any

# Layers whose weights a framework reads itself, past Keras's variables.
_FOREIGN = ("TorchModuleWrapper", "TFSMLayer")


def clone_network(
    network: keras.Model, name: str | None, config: dict[str, Any] | None = None
) -> keras.Model:
    """A copy with variables of its own, equal in value and not trainable.

    The copies' paths end in the originals', so that one layout rule shards
    both.

    Args:
        network: a built network that `get_config` describes, or a
            `OtherValues` of one.
        name: name scope of the copy.
        config: a config in the place of the network's own.

    Raises:
        ValueError: if the network is not built, or its config makes none of
            the same variables.
    """
    _check_model(network)
    model = network.network if isinstance(network, OtherValues) else network
    if not model.built:
        raise ValueError(
            f"`network` ('{model.name}') is not built yet and has no weights "
            "to copy: train its model first, or call the network on a batch."
        )
    with keras.name_scope(name):
        copy = _from_config(model, config)
    shapes = [tuple(v.shape) for v in network.variables]
    if [tuple(v.shape) for v in copy.variables] != shapes:
        raise ValueError(_no_copy(model, "the copy has other variables"))
    copy.trainable = False
    for target, source in zip(copy.variables, network.variables, strict=True):
        target.assign(ops.copy(source.value))
    return copy


def _check_model(network):
    what = "a keras.Model"
    given.having("network", network, ("variables", "built"), what)


def _no_copy(network, why):
    return (
        f"`network` ('{network.name}') cannot be copied from its config: "
        f"{why}. A functional model always can; a subclassed one must return "
        "all its constructor arguments from `get_config` and create every "
        "variable in `__init__`, `build` or its first call."
    )


def _from_config(network, config):
    if is_functional(network):
        copy = type(network).from_config(config or network.get_config())
        if not copy.built:
            copy.build_from_config(network.get_build_config())
        return copy
    try:
        copy = type(network).from_config(config or own_config(network))
    except (TypeError, NotImplementedError) as error:
        raise ValueError(_no_copy(network, str(error)[:300])) from error
    inputs = input_specs(network)
    if inputs is not None:
        build(copy, inputs)
    return copy


def own_config(network):
    """`get_config`, or what a class without one of its own is made by.

    Raises:
        NotImplementedError: if Keras cannot take an argument down.
        ValueError: if the arguments cannot be told.
    """
    if type(network).get_config is not keras.Model.get_config:
        return network.get_config()
    return own_arguments(network)


def serialize_network(network):
    """The config of a network; of a subclassed one also what it is built by.

    Raises:
        ValueError: if the network cannot be described.
    """
    if network is None or is_functional(network):
        return keras.saving.serialize_keras_object(network)
    if type(network).get_config is keras.Model.get_config:
        arguments = own_arguments(network)
        config = described(network) | {
            "config": keras.saving.serialize_keras_object(arguments)
        }
    else:
        config = keras.saving.serialize_keras_object(network)
    # Keras would build it by floats alone, and hide that it failed.
    config.pop("build_config", None)
    inputs = input_specs(network)
    if inputs is not None:
        config["inputs"] = tree.map_structure(
            lambda s: {"shape": list(s.shape), "dtype": s.dtype}, inputs
        )
    return config


def deserialize_network(config, custom_objects=None):
    """What `serialize_network` described, built; of any other config also."""
    network = keras.saving.deserialize_keras_object(
        config, custom_objects=custom_objects
    )
    if config.get("inputs"):
        build(network, _specs(config["inputs"]))
    return network


def _specs(inputs):
    if isinstance(inputs, (list, tuple)):
        return [_specs(part) for part in inputs]
    if set(inputs) == {"shape", "dtype"}:
        return Spec(tuple(inputs["shape"]), inputs["dtype"])
    return {key: _specs(part) for key, part in inputs.items()}


def fixed_copy(network, name, clone=clone_network):
    """What keeps values of a network and is called as it, but never trains.

    A clone of a functional network; of a subclassed one, or of layers that
    Keras cannot make again, `OtherValues`.

    Args:
        network: a built network.
        name: name scope of the copy.
        clone: `clone_network`, or what does as it.
    """
    _check_model(network)
    foreign = any(
        type(layer).__name__ in _FOREIGN for layer in network._flatten_layers()
    )
    if is_functional(network) or foreign:
        try:
            return clone(network, name)
        except (TypeError, NotImplementedError):
            if foreign:
                raise
    return OtherValues(network, name)


class OtherValues:
    """A network called with values of its own in the place of its weights.

    Nothing needs to describe the network's class. It is no
    layer; who makes it keeps its `variables`.

    Args:
        network: a built network.
        name: name scope of the values.
    """

    built = True
    trainable = False

    def __init__(self, network, name):
        self.network = network
        self.name = network.name
        self._live = list(network.variables)
        with keras.name_scope(name):
            self.variables = [_value_of(v) for v in self._live]
        share_contract(self, network)

    def get_weights(self):
        """NumPy arrays of the values."""
        return [ops.convert_to_numpy(v) for v in self.variables]

    def __call__(self, inputs, training=False):
        scope = keras.StatelessScope(
            list(zip(self._live, self.variables, strict=True))
        )
        given = dict(scope.state_mapping)
        with scope:
            if scope.original_scope is not None:
                # The inner scope hides the outer one.
                scope.state_mapping = {
                    **scope.original_scope.state_mapping, **given
                }  # fmt: skip
            output = self.network(inputs, training=training)
        # What the call moves, seeds and statistics, is moved here.
        for live, own in zip(self._live, self.variables, strict=True):
            value = scope.get_current_value(live)
            if value is not given[id(live)]:
                own.assign(ops.cast(value, own.dtype))
        return output


def _value_of(variable):
    """A variable of the same path and value, of float32 at least."""
    dtype = variable.dtype
    if dtype in ("bfloat16", "float16"):
        dtype = "float32"
    *scopes, name = variable.path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(
            np.asarray(ops.convert_to_numpy(variable)).astype(dtype),
            dtype=dtype,
            trainable=False,
            aggregation=variable.aggregation,
            name=name,
        )
