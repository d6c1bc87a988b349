"""A subclassed network, built by a batch."""

import warnings

import keras
from keras import tree

from keras_flows.networks.contract import Spec
from keras_flows.networks.contract import check_output
from keras_flows.networks.contract import contract_of
from keras_flows.networks.contract import listed
from keras_flows.ops import dtype_of


def needs_batch(network):
    """Whether a network waits for a batch to be built, or looked at."""
    contract = contract_of(network)
    return not contract.functional and not contract.checked


def complete(network, x, condition, needs_r, parts=1):
    """Build a subclassed network by a batch, and note what it takes.

    Args:
        network: a network for which `needs_batch` is true.
        x: data (B, ...), an array or tensor.
        condition: with as many rows, or None.
        needs_r: whether it is called with `r`.
        parts: see `check_network`.

    Raises:
        ValueError: if it cannot be called so, or returns another shape.
    """
    float_type = keras.config.floatx()
    time = Spec((), float_type)
    inputs = {"x": Spec(tuple(x.shape[1:]), float_type), "t": time}
    names = contract_of(network).names or ()
    if needs_r or "r" in names:
        inputs["r"] = time
    if "guidance" in names:
        inputs["guidance"] = time
    if condition is not None:
        inputs["condition"] = tree.map_structure(
            lambda c: Spec(tuple(c.shape[1:]), dtype_of(c)), condition
        )
    build(network, inputs, parts)


def build(network, inputs, parts=None):
    """Build a subclassed network of `Spec`s, without computing anything.

    Args:
        network: subclassed, built or not.
        inputs: {key: `Spec` or a structure of them}.
        parts: see `check_network`.
    """
    symbols = tree.map_structure(
        lambda s: keras.KerasTensor((2, *s.shape), s.dtype or "float32"), inputs
    )
    try:
        with warnings.catch_warnings():
            # Keras warns before it calls; the error below says the same.
            warnings.filterwarnings("ignore", ".*unbuilt state.*")
            output = network(symbols)
    except Exception as error:
        given = ", ".join(f"'{key}'" for key in inputs)
        raise ValueError(
            f"`network` ('{network.name}') failed when called with a dict of "
            f"{given}, x of shape {listed(inputs['x'].shape)}. It is called "
            "with one dict, `def call(self, inputs)`, whose 'condition' is "
            "the batch's, if any; `input_names` on the class, such as "
            "('x', 't', 'condition'), lets a missing one be told by name. It "
            f"raised {type(error).__name__}: {str(error)[:500]}"
        ) from error
    if parts is not None:
        check_output(output, symbols["x"], parts, network)
    contract = contract_of(network)
    contract.inputs, contract.checked = inputs, True
