"""What a step leaves as it is, and what a forward pass may move."""

import keras

from keras_flows.networks import Fixed


def moving_variables(model):
    """The floats that a forward pass may assign to: statistics, say.

    Those made with `trainable=False`, anywhere in the model but under a
    `Fixed` layer. A frozen kernel is none of them.
    """
    found, waiting = {}, [model]
    while waiting:
        layer = waiting.pop()
        if isinstance(layer, Fixed):
            continue
        for variable in layer._non_trainable_variables:
            if keras.backend.is_float_dtype(variable.dtype):
                found[id(variable)] = variable
        waiting.extend(
            layer._flatten_layers(include_self=False, recursive=False)
        )
    return list(found.values())
