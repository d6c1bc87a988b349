"""Conditions that are dicts: their keys are the network's, and so ordered.

On PyTorch Keras 3.15 sorts the keys of the outermost dict of a call alone, and
hands the values of a dict inside it to a functional model by position: with
other keys, or in another order, they would be mixed up without a word.
"""

from keras import ops
from keras import tree


def as_tensors(condition, specs):
    """A condition of tensors; of a dict the keys are in the network's order.

    Args:
        condition: array, tensor or structure.
        specs: of `contract.input_specs`, or None.
    """
    expected = None if specs is None else specs.get("condition")
    return tree.map_structure(
        ops.convert_to_tensor, _ordered(condition, expected)
    )


def _ordered(condition, expected):
    if not isinstance(condition, dict) or not isinstance(expected, dict):
        return condition
    return {key: _ordered(condition[key], expected[key]) for key in expected}


def check_keys(condition, expected, network, argument):
    """Refuse other keys than the network's, where it takes a dict.

    Raises:
        ValueError: if keys are missing or left over, or it is no dict.
    """
    if not isinstance(expected, dict):
        return
    found = type(condition).__name__
    if isinstance(condition, dict):
        if set(condition) == set(expected):
            return
        found = sorted(condition)
    raise ValueError(
        f"`{argument}` must be a dict of {sorted(expected)} for `network` "
        f"('{network.name}'). Received: {found}."
    )
