"""What an interface needs to know about any Keras network."""

import keras
from keras import ops


def _input_structure(network):
    """The dict of inputs of a functional network, else None."""
    try:
        structure = network.input
    except (AttributeError, ValueError):
        return None
    if isinstance(structure, dict):
        return structure
    if network.inputs is None:
        return None
    raise ValueError(
        "`network` must take one dict of inputs with the keys 'x', 't' and, "
        "where the objective needs them, 'r' and 'condition'. Received a "
        f"functional model whose input is {structure}."
    )


def is_functional(network):
    """Whether the network tells its inputs by itself."""
    return _input_structure(network) is not None


def input_names(network):
    """The input keys of a network, or None where they cannot be known.

    A functional model tells; a subclassed one may, through an attribute
    `input_names`, e.g. `("x", "t", "r")`.
    """
    structure = _input_structure(network)
    if structure is not None:
        return frozenset(structure)
    declared = getattr(network, "input_names", None)
    # Keras gives models an `input_names` of their own in some versions.
    if isinstance(declared, (tuple, list, set, frozenset)) and declared:
        return frozenset(declared)
    return None


def sample_shape(network):
    """Shape of one example of x, or None where it cannot be known."""
    structure = _input_structure(network)
    if structure is None:
        return None
    return tuple(structure["x"].shape[1:])


def clone_network(network, name, config=None):
    """A copy with variables of its own, equal in value and not trainable.

    The copies' paths end in the originals', so that one layout rule shards
    both.

    Args:
        network: a built network that `get_config` describes.
        name: name scope of the copy.
        config: a config in the place of the network's own.

    Raises:
        ValueError: if the copy's variables do not match the network's.
    """
    with keras.name_scope(name):
        copy = type(network).from_config(config or network.get_config())
        if not copy.built:
            copy.build_from_config(network.get_build_config())
    shapes = [tuple(v.shape) for v in network.variables]
    if [tuple(v.shape) for v in copy.variables] != shapes:
        raise ValueError(
            "`network` cannot be copied from its config: the copy has other "
            "variables. A functional model always can; a subclassed one must "
            "return all its constructor arguments from `get_config` and "
            "create every variable in `__init__` or `build`."
        )
    copy.trainable = False
    for target, source in zip(copy.variables, network.variables, strict=True):
        target.assign(ops.copy(source.value))
    return copy
