"""Errors that name the argument, what came and what would do."""

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_flows.networks import input_names
from keras_flows.networks import is_functional
from keras_flows.ops import float_dtype


def _dtype(x):
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
    known = {"x", "t", "r", "condition"} | ({"guidance"} if guidance else set())
    if names - known:
        raise ValueError(
            f"`network` ('{network.name}') takes {sorted(names - known)}, "
            f"which nothing provides. Known inputs: {', '.join(sorted(known))}"
            "; 'guidance' with kf.MeanFlowInterface."
        )


def check_data(x, shape, argument="x"):
    """A floating tensor (B, *shape) in the library's float dtype."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise ValueError(
            f"`{argument}` must be a tensor or array. Received: {type(x)}."
        )
    dtype = _dtype(x)
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


def check_condition(condition, network, batch=None):
    """A condition exactly where the network takes one, of the right shape."""
    names = input_names(network)
    if names is None:
        return
    takes = "condition" in names
    if takes and condition is None:
        raise ValueError(
            f"`condition` is missing: `network` ('{network.name}') takes "
            "one. Pass (x, condition) to fit, or condition= to generate."
        )
    if not takes and condition is not None:
        raise ValueError(
            f"`condition` is left over: `network` ('{network.name}') takes "
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
                "`condition` must have shape (batch"
                f"{''.join(f', {d}' for d in expected.shape[1:])}), as the "
                f"network's input. Received: {tuple(leaf.shape)}."
            )
        if (
            batch is not None
            and leaf.shape[0] is not None
            and leaf.shape[0] != batch
        ):
            raise ValueError(
                f"`condition` must hold one row for each of the {batch} "
                f"examples. Received {leaf.shape[0]}."
            )


def check_teacher(teacher, student):
    """A frozen interface on the student's path, data and condition."""
    if not hasattr(teacher, "interpolant") or not hasattr(teacher, "pred"):
        raise ValueError(
            "`teacher` must be a trained Interface, such as "
            f"kf.SiTInterface. Received: {teacher!r}."
        )
    own, other = student.interpolant, teacher.interpolant
    if other != own:
        raise ValueError(
            f"`teacher` must have the student's interpolant. Received {other} "
            f"beside {own}; kf.ReparametrizedInterface(teacher, interpolant) "
            "carries a teacher over to another path."
        )
    for what in ("sample_shape", "n_mu", "n_sigma"):
        own, other = getattr(student, what), getattr(teacher, what)
        if own is not None and other is not None and own != other:
            raise ValueError(
                f"`teacher` must have the student's {what}. Received {other} "
                f"beside {own}."
            )
    own, other = (_condition_of(m.network) for m in (student, teacher))
    if None not in (own, other) and own != other:
        raise ValueError(
            "`teacher` must take the student's condition. Received "
            f"{other[0]} beside {own[0]}."
        )
    if teacher.trainable_variables:
        raise ValueError(
            "`teacher` is trainable, and the student's optimizer would move "
            f"its {len(teacher.trainable_variables)} variables. Set "
            "teacher.trainable = False first."
        )


def _condition_of(network):
    """(shapes and dtypes of the condition,), or None where unknown."""
    names = input_names(network)
    if names is None or not getattr(network, "inputs", None):
        return None
    if "condition" not in names:
        return ("none",)
    return (
        tree.map_structure(
            lambda c: f"{tuple(c.shape[1:])} {_dtype(c)}",
            network.input["condition"],
        ),
    )


def check_extras(extras, x, interface):
    """The mask of a batch's third element, or None."""
    if extras is None:
        return None
    if not isinstance(extras, dict) or set(extras) != {"mask"}:
        received = sorted(extras) if isinstance(extras, dict) else extras
        raise ValueError(
            "A third element of the batch may be {'mask': (batch, time)} for "
            f"{type(interface).__name__}; anything else would be lost. Pass "
            f"x or (x, condition). Received: {received!r}."
        )
    mask = extras["mask"]
    if len(x.shape) < 2 or tuple(mask.shape[1:]) != tuple(x.shape[1:2]):
        raise ValueError(
            "`mask` must have shape (batch, time), one number for each step "
            f"of x {tuple(x.shape)}. Received: {tuple(mask.shape)}."
        )
    return ops.cast(mask, float_dtype())


def check_host_array(x, shape, argument):
    """The checks of `check_data` on what `fit` was given, before any work."""
    if isinstance(x, np.ndarray) or (
        hasattr(x, "shape") and hasattr(x, "dtype")
    ):
        if len(x.shape) and x.shape[0] == 0:
            raise ValueError(f"`{argument}` is empty: shape {x.shape}.")
        check_data(x, shape, argument)
    if isinstance(x, np.ndarray):
        check_pixels(x, argument)


def check_pixels(x, argument):
    """Finite values, and images that are not 0 to 255 still: an array."""
    # A sum is not finite where an element is not, and takes no memory.
    if not np.isfinite(np.sum(x, dtype="float64")):
        bad = ~np.isfinite(x.reshape(len(x), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"`{argument}` holds NaN or infinite values in {bad.sum()} "
                f"of {len(x)} rows, row {bad.argmax()} first. Remove or "
                "repair them."
            )
    rows = x[:64]
    if (
        x.ndim == 4
        and x.shape[-1] in (1, 3)
        and rows.min() >= 0
        and rows.max() > 1
        and np.all(rows == np.round(rows))
    ):
        raise ValueError(
            f"`{argument}` holds images of whole numbers from "
            f"{rows.min():g} to {rows.max():g}: scale them to [-1, 1], e.g. "
            f"{argument} / 127.5 - 1 for 0 to 255."
        )


def check_labels(condition, network):
    """Labels of the network's embedding: ints, none outside it; an array."""
    inputs = getattr(network, "inputs", None)  # None for a subclassed model
    expected = network.input.get("condition") if inputs else None
    if not hasattr(expected, "dtype") or "int" not in _dtype(expected):
        return
    if condition.dtype.kind not in "iu":
        raise ValueError(
            f"`condition` must be integer labels for `network` "
            f"('{network.name}'). Received dtype {condition.dtype}; cast "
            "class numbers by y.astype('int32'), or one-hot rows by "
            "y.argmax(-1)."
        )
    null_label = getattr(network, "null_label", None)
    low, high = condition.min(), condition.max()
    if low < 0 or (null_label is not None and high > null_label):
        most = "" if null_label is None else f" to {null_label - 1}"
        raise ValueError(
            f"`condition` must hold labels from 0{most} for `network` "
            f"('{network.name}'). Received labels from {low} to {high}; "
            "number the classes from 0, or build the network with a larger "
            "`num_classes`."
        )


def _to_host(x):
    """A tensor of any framework as an array; what is no tensor stays."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x.numpy() if hasattr(x, "numpy") else x)


def _first_batch(x):
    """The first batch of a dataset that can be read again, else None."""
    rows = getattr(x, "dataset", None)
    if hasattr(x, "collate_fn"):  # a torch DataLoader
        # By hand: its iterator draws a seed and starts workers.
        if x.batch_size is None or not hasattr(rows, "__len__"):
            return None
        count = min(len(rows), x.batch_size)
        return x.collate_fn([rows[i] for i in range(count)]) if count else None
    if isinstance(x, keras.utils.PyDataset):
        return None if x.num_batches == 0 else x[0]
    if not hasattr(x, "__iter__") or iter(x) is x:  # a generator
        return None
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):
        return x[0] if len(x) else None
    return next(iter(x), None)


def check_first_batch(x, y, interface):
    """Arrays, or the first batch of a dataset, before the first step.

    Values of a generator's batches are not checked: what is read of it is
    lost.
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        if isinstance(y, np.ndarray):
            check_labels(y, interface.network)
        return
    if x is None or isinstance(x, (list, tuple, dict)):
        return
    data = _first_batch(x)
    if data is None:
        return
    x, condition, _ = interface.unpack(data)
    check_host_array(_to_host(x), interface.sample_shape, "x")
    condition = _to_host(condition)
    if isinstance(condition, np.ndarray) and condition.size:
        check_labels(condition, interface.network)


def check_manifest(x, interface):
    """A dataset with a manifest, such as `Latents`, fits the model."""
    if hasattr(x, "manifest"):
        x.check(interface)
