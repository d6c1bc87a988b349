"""What every converter ends with: all weights match, then all are assigned."""

import keras
import numpy as np

from keras_flows.presets.convert import Owned


def variables_of(network):
    """{path without the network's name: variable}, seeds left out."""
    return {
        v.path.removeprefix(f"{network.name}/"): v
        for v in network.variables
        if "seed" not in v.path
    }


def values_of(network):
    """{path: array}, the inverse of `assign`."""
    return {
        path: keras.ops.convert_to_numpy(variable)
        for path, variable in variables_of(network).items()
    }


def taken(state):
    """(name, array) of a dict, one after another; out of it where `Owned`."""
    for name in list(state):
        yield name, state.pop(name) if isinstance(state, Owned) else state[name]


def assign(values, network):
    """Assign {path: array} to the variables of a network, and empty the dict.

    Args:
        values: dict of a variable's path (without the network's name) to the
            array in our layout.
        network: a network with exactly these weights.

    Raises:
        ValueError: if a weight of either has no counterpart of its shape, or
            is not finite; nothing is assigned then.
    """
    variables = variables_of(network)
    wrong = sorted(set(values) ^ set(variables)) or sorted(
        f"{path}: {values[path].shape} for {tuple(v.shape)}"
        for path, v in variables.items()
        if values[path].shape != tuple(v.shape)
    )
    if wrong:
        raise ValueError(
            "`state` and `network` are of different architectures: "
            f"{len(wrong)} weights differ, such as {wrong[:3]}."
        )
    for path, value in values.items():
        # bfloat16 is no dtype of NumPy's own.
        if not np.isfinite(np.asarray(value, "float32")).all():
            raise ValueError(f"the weight {path!r} has NaN or infinity in it.")
    for path, variable in variables.items():
        variable.assign(values.pop(path))
