"""What `fit` is given, checked before the first step."""

import warnings

import numpy as np
from keras import ops

from keras_flows.networks import input_names
from keras_flows.networks.contract import check_condition
from keras_flows.networks.contract import check_data
from keras_flows.networks.contract import fits
from keras_flows.networks.labels import Labels
from keras_flows.networks.labels import check_labels
from keras_flows.networks.labels import host_condition
from keras_flows.networks.labels import to_host
from keras_flows.ops import float_dtype
from keras_flows.ops.scalars import FLAG
from keras_flows.training.first_batch import first_batch

# Of the standard deviation, and of the mean the upper one: latents of an
# autoencoder before their factor have 5, bytes 70, points of a board 1.2.
LEAST, MOST = 0.03, 4.0


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
    if (
        len(x.shape) < 2
        or not fits(shape[1:], x.shape[1:2])
        or shape[0] not in rows
    ):
        raise ValueError(
            "`mask` must have shape (batch, time), one number for each step "
            f"of x {tuple(x.shape)}. Received: {shape}."
        )
    return ops.cast(mask, float_dtype())


def check_loss(model, x, condition, extras, training):
    """What `loss` is given: (condition, mask or None)."""
    check_data(x, model.data_shape)
    FLAG("training", training)
    condition = host_condition(condition, model.network, x.shape[0])
    check_condition(condition, model.network, x.shape[0])
    return condition, check_extras(extras, x, model)


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


def check_scale(x, argument):
    """Warn of data that is far from unit size: an array, its first rows."""
    rows = np.asarray(x[:256], dtype="float64")
    mean, std = float(rows.mean()), float(rows.std())
    if max(abs(mean), std) <= MOST and (std >= LEAST or not rows.any()):
        return
    warnings.warn(
        f"`{argument}` has the mean {mean:.3g} and the standard deviation "
        f"{std:.3g} in its first {len(rows)} rows. Noise is of unit size, and "
        "so should data be: subtract the mean and divide by the standard "
        f"deviation; images of 0 to 255 become {argument} / 127.5 - 1.",
        stacklevel=2,
    )


def check_batch(data, interface):
    """A batch on the host: values, scale and labels, before its step."""
    x, condition, _ = interface.unpack(data)
    x = to_host(x)
    check_host_array(x, interface.data_shape, "x")
    if isinstance(x, np.ndarray) and x.size:
        check_scale(x, "x")
    labels = interface.labels()
    condition = check_labels(labels, condition)
    if isinstance(labels, Labels) and condition is not None:
        labels.warn_of_null(to_host(condition))


def check_first_batch(x, interface):
    """The first batch of a dataset that can be read again.

    A generator's is checked as it comes: what is read of it is lost.
    """
    if x is None or isinstance(x, (list, tuple, dict)):
        return
    data = first_batch(x)
    if data is not None:
        check_batch(data, interface)


def check_manifest(x, interface):
    """A dataset with a manifest, such as `Latents`, fits the model."""
    if hasattr(x, "manifest"):
        x.check(interface)


def check_fit(x, y, interface):
    """What `fit` was given, arrays whole and of a dataset the first batch."""
    check_host_array(x, interface.data_shape, "x")
    check_manifest(x, interface)
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        check_first_batch(x, interface)
        return
    if input_names(interface.network) is not None:
        check_condition(y, interface.network, x.shape[0])
    if isinstance(x, np.ndarray):
        check_scale(x, "x")
