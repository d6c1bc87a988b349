"""What a network takes and gives: read once, held to in every call.

A network is called with one dict, x (B, ...), t (B,)[, r (B,)]
[, condition][, guidance], and returns a tensor like x. A functional model
tells its inputs; a subclassed one once it was called, or built from a batch.
"""

import dataclasses
import inspect
import weakref

import keras
import numpy as np
from keras import tree

from keras_flows.networks.keys import check_keys
from keras_flows.ops import dtype_of
from keras_flows.ops import given

GUIDANCE = ("guidance", "guidance_interval")
INPUTS = ("x", "t", "r", "condition", *GUIDANCE)

_DICT = (
    "`network` must take one dict of inputs with the keys 'x', 't' and, "
    "where the objective needs them, 'r' and 'condition': "
    "`def call(self, inputs)` of a subclassed keras.Model, or "
    "keras.Model({'x': x, 't': t}, output)"
)


@dataclasses.dataclass(frozen=True)
class Spec:
    """One input: its shape without the batch, and its dtype or None."""

    shape: tuple
    dtype: str | None


@dataclasses.dataclass
class Contract:
    """What is known of a network.

    Attributes:
        functional: whether the network tells its inputs by itself.
        names: frozenset of the keys it takes; None where they are not known.
        inputs: {key: `Spec`, or a structure of them}; None before the first
            call of a subclassed network.
        checked: whether its output was compared with x.
    """

    functional: bool
    names: frozenset | None
    inputs: dict | None = None
    checked: bool = False


# By network: Keras's own properties cost more than the checks.
_CONTRACTS = weakref.WeakKeyDictionary()
# What is called in a network's place, and that network.
_OWNERS = weakref.WeakKeyDictionary()


def contract_of(network):
    """The `Contract` of a network."""
    if not hasattr(network, "built"):
        given.having("network", network, ("built",), "a keras.Model")
    contract = _CONTRACTS.get(network)
    if contract is None and network in _OWNERS:
        return contract_of(_OWNERS[network])
    if contract is None:
        contract = _CONTRACTS[network] = _read(network)
    if contract.inputs is None and network.built:
        contract.inputs = _called_with(network)
    return contract


def share_contract(other, network):
    """Let `other`, which is called in the network's place, have its own."""
    _OWNERS[other] = network


def _read(network):
    if is_functional(network):
        structure = network.input
        if not isinstance(structure, dict):
            raise ValueError(
                f"{_DICT}. Received a {type(network).__name__} whose input is "
                f"{structure}."
            )
        specs = tree.map_structure(
            lambda leaf: Spec(tuple(leaf.shape[1:]), dtype_of(leaf)), structure
        )
        return Contract(True, frozenset(structure), specs)
    declared = getattr(network, "input_names", None)
    # Keras gives models an `input_names` of their own in some versions.
    known = isinstance(declared, (tuple, list, set, frozenset)) and declared
    return Contract(False, frozenset(declared) if known else None)


def _called_with(network):
    """The inputs by which Keras built a subclassed network, or None."""
    shapes = (network.get_build_config() or {}).get("input_shape")
    if not isinstance(shapes, dict) or not {"x", "t"} <= set(shapes):
        return None
    return {
        key: _spec_of(shape, None if key == "condition" else "float32")
        for key, shape in shapes.items()
    }


def _spec_of(shape, dtype):
    if isinstance(shape, dict):
        return {key: _spec_of(part, dtype) for key, part in shape.items()}
    return Spec(tuple(shape[1:]), dtype)


def is_functional(network):
    """Whether the network tells its inputs by itself."""
    inputs = getattr(network, "inputs", None)
    return bool(inputs) and not callable(inputs)


def input_names(network: keras.Model) -> frozenset[str] | None:
    """The input keys of a network, or None where they cannot be known.

    A functional model tells; a subclassed one may, through an attribute
    `input_names`, e.g. `("x", "t", "r")`.
    """
    return contract_of(network).names


def input_specs(network):
    """{key: `Spec` or a structure of them}, or None where not known."""
    return contract_of(network).inputs


def sample_shape(network: keras.Model) -> tuple[int | None, ...] | None:
    """Shape of one example of x, or None where it is not known.

    Of a subclassed network that of the batch by which it was built.
    """
    inputs = contract_of(network).inputs
    return None if inputs is None else inputs["x"].shape


def data_shape(network):
    """The shape that x must have, None for free sizes; None for any."""
    contract = contract_of(network)
    return contract.inputs["x"].shape if contract.functional else None


def fits(shape, expected):
    """Whether two shapes agree wherever both are known."""
    return len(shape) == len(expected) and all(
        a == b or a is None or b is None
        for a, b in zip(shape, expected, strict=True)
    )


def agree(shape, other):
    """As `fits`, of shapes that may both be unknown, None."""
    return None in (shape, other) or fits(shape, other)


def listed(shape):
    """A shape without the batch as messages write it."""
    return "(batch" + "".join(f", {size}" for size in shape) + ")"


def check_network(network, needs_r, what, guidance=False, parts=1):
    """A Keras model whose inputs and output fit the objective.

    Keys are compared by name, since a functional model takes an extra key
    by position and mixes the inputs up.

    Args:
        network: what was given.
        needs_r: whether it must take `r`.
        what: who needs that, for the message.
        guidance: whether it may take `guidance`.
        parts: how many times x's channels it returns; None for any output.
    """
    if not isinstance(network, keras.Model):
        raise ValueError(
            "`network` must be a keras.Model called with a dict of 'x', 't' "
            "and, where the objective needs them, 'r' and 'condition'. "
            f"Received: {network!r}."
        )
    if isinstance(network, keras.Sequential):
        raise ValueError(
            f"{_DICT}. Received a Sequential, '{network.name}', which has one "
            "input: build a keras.Model around it that joins x and t."
        )
    contract = contract_of(network)
    names = contract.names
    if not contract.functional:
        _check_signature(network)
        policy = network.dtype_policy
        mixed = policy.compute_dtype != policy.variable_dtype
        if mixed and network.autocast:
            raise ValueError(
                f"`network` ('{network.name}') is a subclassed model under "
                f"the policy '{policy.name}' and would cast its times to "
                f"{policy.compute_dtype}. Pass autocast=False to its "
                "super().__init__ and cast inside."
            )
    if names is None:
        return
    missing = {"x", "t"} - names
    if needs_r:
        missing |= {"r"} - names
    if missing:
        raise ValueError(
            f"`network` ('{network.name}') takes {sorted(names)} but {what} "
            f"needs {sorted(missing)} as well"
            + (
                ": a flow map has two times, where x is (t) and where to go "
                "(r); for kf.networks.MLP pass two_times=True."
                if missing == {"r"}
                else "."
            )
        )
    known = set(INPUTS) - (set() if guidance else set(GUIDANCE))
    if names - known:
        raise ValueError(
            f"`network` ('{network.name}') takes {sorted(names - known)}, "
            f"which nothing provides. Known inputs: {', '.join(sorted(known))}"
            "; 'guidance' with kf.MeanFlowInterface, and 'guidance_interval'."
        )
    if contract.functional and parts is not None:
        check_output(network.output, network.input["x"], parts, network)


def _check_signature(network):
    """`call` takes one dict, not x and t one by one."""
    parameters = inspect.signature(network.call).parameters.values()
    positional = [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.name not in ("training", "mask")
    ]
    if positional[1:]:
        raise ValueError(
            f"{_DICT}. Received '{network.name}', whose call takes "
            f"({', '.join(positional)})."
        )


def check_output(output, x, parts, network):
    """The shape of an output against that of x: nothing is broadcast.

    Args:
        output, x: tensors (B, ...), or what has their `shape`.
        parts: how many times x's channels the network returns.
        network: for its name.
    """
    if not hasattr(output, "shape"):
        raise ValueError(
            f"`network` ('{network.name}') must return one tensor, of the "
            f"shape of its input 'x'. Received a {type(output).__name__}."
        )
    if parts == 1 and output.shape == x.shape:
        return
    output, x = tuple(output.shape), tuple(x.shape)
    if parts != 1 and x[-1] is not None:
        x = (*x[:-1], parts * x[-1])
    if not fits(output, x):
        times = f", with {parts} times its channels" if parts > 1 else ""
        raise ValueError(
            f"`network` ('{network.name}') must return a tensor of the shape "
            f"of its input 'x'{times}: {listed(x[1:])}. Received: "
            f"{listed(output[1:])}; change the network's last layer, or "
            "`learn_sigma` of a kf.DiscreteInterface."
        )


# A batch, and one call.


def check_data(x, shape, argument="x"):
    """A floating tensor (B, *shape) in the library's float dtype."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise ValueError(
            f"`{argument}` must be a tensor or array. Received: {type(x)}."
        )
    dtype = dtype_of(x)
    allowed = {keras.config.floatx(), "bfloat16", "float16"}
    if keras.config.floatx() == "float64":
        allowed.add("float32")
    if dtype not in allowed:
        remedy = (
            "scale integers to floats of about unit size first, e.g. "
            "x.astype('float32') / 127.5 - 1"
            if "int" in dtype or dtype == "bool"
            else f"cast it: x.astype('{keras.config.floatx()}')"
        )
        raise ValueError(
            f"`{argument}` must be of dtype {keras.config.floatx()}. "
            f"Received {dtype}; {remedy}."
        )
    if shape is not None and not fits(tuple(x.shape[1:]), shape):
        remedy = ""
        if len(shape) == 3 and tuple(x.shape[1:]) == (*shape[:-1], 1):
            remedy = (
                " Give grey images the network's channels: rgb=True of a "
                f"pipeline, or np.repeat({argument}, {shape[-1]}, axis=-1)."
            )
        raise ValueError(
            f"`{argument}` must have shape {listed(shape)}, as the "
            f"network's input 'x'. Received: {tuple(x.shape)}.{remedy}"
        )


def check_time(t, x, argument):
    """A time of shape (B,)."""
    if len(t.shape) != 1:
        raise ValueError(
            f"`{argument}` must be one time per example, of shape (batch,). "
            f"Received shape {tuple(t.shape)}."
        )
    batch = x.shape[0]
    if t.shape[0] is not None and batch is not None and t.shape[0] != batch:
        raise ValueError(
            f"`{argument}` must hold one time for each of the {batch} "
            f"examples of `x`. Received {t.shape[0]} times."
        )


def check_call(x_t, t, condition, network):
    """x_t, its times and the condition of one call of a network."""
    check_data(x_t, data_shape(network), "x_t")
    check_time(t, x_t, "t")
    check_condition(condition, network, x_t.shape[0])


def check_order(interpolant, t, r):
    """r on the data side of t, where the values can be read on the host."""
    host = (float, int, list, tuple, np.ndarray, np.generic)
    if not all(isinstance(v, host) for v in (t, r)):
        return
    if not np.all(interpolant.toward_data(np.asarray(t), np.asarray(r))):
        raise ValueError(
            "`r` must not lie on the noise side of `t`: on this interpolant "
            f"time runs from {interpolant.t_noise} (noise) to "
            f"{interpolant.t_data} (data). Received t={t}, r={r}."
        )


def check_condition(condition, network, batch=None, argument="condition"):
    """A condition exactly where the network takes one, of the right shape."""
    contract = contract_of(network)
    names = contract.names
    if names is None:
        return
    takes = "condition" in names
    if takes and condition is None:
        raise ValueError(
            f"`{argument}` is missing: `network` ('{network.name}') takes "
            "one. Pass (x, condition) to fit, or condition= to generate."
        )
    if not takes and condition is not None:
        raise ValueError(
            f"`{argument}` is left over: `network` ('{network.name}') takes "
            f"{sorted(names)} only. Give the network a 'condition' input or "
            "leave the condition away."
        )
    if not takes or not contract.functional:
        return
    expected = contract.inputs["condition"]
    if not isinstance(expected, Spec):
        check_keys(condition, expected, network, argument)
        return
    for leaf in tree.flatten(condition):
        given.rows(argument, leaf)
        if not fits(tuple(leaf.shape[1:]), expected.shape):
            raise ValueError(
                f"`{argument}` must have shape {listed(expected.shape)}, as "
                f"the network's input. Received: {tuple(leaf.shape)}."
            )
        if (
            batch is not None
            and leaf.shape[0] is not None
            and leaf.shape[0] != batch
        ):
            raise ValueError(
                f"`{argument}` must hold one row for each of the {batch} "
                f"examples. Received {leaf.shape[0]}."
            )


def same_condition(network, other):
    """Whether two networks take the same condition, as far as is known."""
    own, others = contract_of(network), contract_of(other)
    if not (own.functional and others.functional):
        return True
    a, b = (c.inputs.get("condition") for c in (own, others))
    if isinstance(a, Spec) and isinstance(b, Spec):
        return fits(a.shape, b.shape) and a.dtype == b.dtype
    return a == b
