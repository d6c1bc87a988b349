"""What `fit` is given, checked before the first step."""

import keras
import numpy as np
from keras import ops

from keras_flows.networks.checks import check_data
from keras_flows.networks.checks import dtype_of
from keras_flows.ops import float_dtype


def check_extras(extras, x, interface):
    """The mask of a batch's third element, or None."""
    if extras is None:
        return None
    if not isinstance(extras, dict) or set(extras) != {"mask"}:
        received = sorted(extras) if isinstance(extras, dict) else extras
        raise ValueError(
            "A third element of the batch may be {'mask': (batch, time)} for "
            f"{type(interface).__name__}, and in `fit` and `evaluate` "
            "{'weight': (batch,)} beside it; anything else would be lost. "
            f"Received: {received!r}."
        )
    mask = extras["mask"]
    shape = tuple(getattr(mask, "shape", ()))
    rows = {None, x.shape[0]} if x.shape[0] else {None, *shape[:1]}
    if len(x.shape) < 2 or shape[1:] != x.shape[1:2] or shape[0] not in rows:
        raise ValueError(
            "`mask` must have shape (batch, time), one number for each step "
            f"of x {tuple(x.shape)}. Received: {shape}."
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
    if not hasattr(expected, "dtype") or "int" not in dtype_of(expected):
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
