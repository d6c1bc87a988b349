"""A network of one time as one of two, with the same output to begin with."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_flows.networks.contract import input_names
from keras_flows.networks.contract import is_functional
from keras_flows.networks.copies import clone_network

# Of what a second time adds to a network, the weights that are zero at first.
ZERO = ("interval_embedding/out/", "map_interval/")


def with_second_time(
    network: keras.Model, values: Sequence[np.ndarray] | None = None
) -> keras.Model:
    """A trainable copy that takes `r` too, and does not look at it yet.

    The copy has the network's own weights; those that only the second time has
    are such that the output is that of the network, at every r.

    Args:
        network: a built network with an argument `two_times`, as ours have;
            one that takes `r` already is copied as it is.
        values: of `network.weights`, in their order; by default what
            they are.

    Raises:
        ValueError: if the network's class has no such argument.
    """
    if values is None:
        values = network.get_weights()
    names = input_names(network)
    if names is not None and "r" in names:
        copy = clone_network(network, network.name)
        copy.trainable = True
        copy.set_weights(values)
        return copy
    config = network.get_config() if is_functional(network) else {}
    if "two_times" not in config:
        raise ValueError(
            f"`network` ('{network.name}') takes no second time `r`, and its "
            "class has no argument `two_times` to be built with one. Give "
            "the student's network yourself."
        )
    copy = type(network).from_config({**config, "two_times": True})
    old = {
        variable.path: value
        for variable, value in zip(network.weights, values, strict=True)
    }
    for variable in copy.weights:
        value = old.get(variable.path)
        if value is not None and value.shape == tuple(variable.shape):
            variable.assign(value)
        elif variable.path.startswith(ZERO):
            variable.assign(ops.zeros_like(variable.value))
        elif value is not None:
            variable.assign(_with_rows(value, variable, copy))
    return copy


def _with_rows(old, variable, network):
    """A kernel with rows of zeros for the features of the second time."""
    wanted = network.get_layer("r_features").output
    start = 0
    for part in network.get_layer("features").input:
        if part is wanted:
            break
        start += part.shape[-1]
    rows = np.zeros((variable.shape[0] - old.shape[0], *old.shape[1:]))
    return np.concatenate([old[:start], rows, old[start:]]).astype(old.dtype)
