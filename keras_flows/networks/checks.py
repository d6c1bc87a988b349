"""Errors that name the argument, what came and what would do."""

import keras
import numpy as np
from keras import tree

from keras_flows.networks.contract import input_names
from keras_flows.networks.contract import is_functional


def dtype_of(x):
    """Name of the dtype, or None where there is none."""
    dtype = getattr(x, "dtype", None)
    return None if dtype is None else keras.backend.standardize_dtype(dtype)


def check_network(network, needs_r, what, guidance=False):
    """A Keras model whose inputs fit the objective.

    Keys are compared by name, since a functional model takes an extra key
    by position and mixes the inputs up.
    """
    if not isinstance(network, keras.Model):
        raise ValueError(
            "`network` must be a keras.Model called with a dict of 'x', 't' "
            "and, where the objective needs them, 'r' and 'condition'. "
            f"Received: {network!r}."
        )
    if not network.built:
        raise ValueError(
            f"`network` ('{network.name}') is not built: call it once on a "
            "batch, so that its variables exist before an EMA copies them."
        )
    names = input_names(network)
    policy = network.dtype_policy
    mixed = policy.compute_dtype != policy.variable_dtype
    if mixed and network.autocast and not is_functional(network):
        raise ValueError(
            f"`network` ('{network.name}') is a subclassed model under the "
            f"policy '{policy.name}' and would cast its times to "
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
    known = {"x", "t", "r", "condition"}
    if guidance:
        known |= {"guidance", "guidance_interval"}
    if names - known:
        raise ValueError(
            f"`network` ('{network.name}') takes {sorted(names - known)}, "
            f"which nothing provides. Known inputs: {', '.join(sorted(known))}"
            "; 'guidance' with kf.MeanFlowInterface, and 'guidance_interval'."
        )


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
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        remedy = ""
        if len(shape) == 3 and tuple(x.shape[1:]) == (*shape[:-1], 1):
            remedy = (
                " Give grey images the network's channels: rgb=True of a "
                f"pipeline, or np.repeat({argument}, {shape[-1]}, axis=-1)."
            )
        raise ValueError(
            f"`{argument}` must have shape (batch, "
            f"{', '.join(map(str, shape))}), as the network's input 'x'. "
            f"Received: {tuple(x.shape)}.{remedy}"
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


def check_call(x_t, t, shape, condition, network):
    """x_t, its times and the condition of one call of a network."""
    check_data(x_t, shape, "x_t")
    check_time(t, x_t, "t")
    check_condition(condition, network, x_t.shape[0])


def check_order(interpolant, t, r):
    """r on the data side of t, where the values can be read on the host."""
    if not all(isinstance(v, (float, int, np.ndarray)) for v in (t, r)):
        return
    if not np.all(interpolant.toward_data(np.asarray(t), np.asarray(r))):
        raise ValueError(
            "`r` must not lie on the noise side of `t`: on this interpolant "
            f"time runs from {interpolant.t_noise} (noise) to "
            f"{interpolant.t_data} (data). Received t={t}, r={r}."
        )


def check_condition(condition, network, batch=None, argument="condition"):
    """A condition exactly where the network takes one, of the right shape."""
    names = input_names(network)
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
    if not takes:
        return
    inputs = getattr(network, "inputs", None)  # None for a subclassed model
    expected = network.input["condition"] if inputs else None
    if expected is None or not hasattr(expected, "shape"):
        return
    for leaf in tree.flatten(condition):
        if tuple(leaf.shape[1:]) != tuple(expected.shape[1:]):
            raise ValueError(
                f"`{argument}` must have shape (batch"
                f"{''.join(f', {d}' for d in expected.shape[1:])}), as the "
                f"network's input. Received: {tuple(leaf.shape)}."
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


def condition_spec(network):
    """(shapes and dtypes of the condition,), or None where unknown."""
    names = input_names(network)
    if names is None or not getattr(network, "inputs", None):
        return None
    if "condition" not in names:
        return ("none",)
    return (
        tree.map_structure(
            lambda c: f"{tuple(c.shape[1:])} {dtype_of(c)}",
            network.input["condition"],
        ),
    )
