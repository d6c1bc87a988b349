"""Class labels: the one check of what users hand in as such."""

import dataclasses
import warnings

import keras
import numpy as np

from keras_flows.networks.contract import input_names

_HOST = (bool, int, float, str, list, tuple, range, np.ndarray, np.generic)


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a network takes as labels, without the network.

    Attributes:
        network: its name, for messages.
        highest: the highest label, the null label counted, or None where it
            is not known.
        null: the label that stands for none, or None.
        rank: of one example's labels, or None where it is not known.
    """

    network: str
    highest: int | None = None
    null: int | None = None
    rank: int | None = 0

    def check(self, labels, argument="condition"):
        """Labels (B, ...) that may go into the network.

        Lists, tuples, ranges and numbers become int32 arrays, and a column
        (B, 1) becomes (B,). Arrays and tensors stay what they are; the values
        of a tensor are read.

        Raises:
            ValueError: on strings, booleans, floats, one-hot rows, and on
                labels that the network does not have.
        """
        if isinstance(labels, _HOST) and not hasattr(labels, "dtype"):
            labels = _array(labels, argument)
        host = to_host(labels)
        if not isinstance(host, np.ndarray):
            return labels
        self._check_kind(host, argument)
        if self.rank is not None and host.ndim == self.rank + 2:
            if host.shape[-1] != 1:
                raise ValueError(
                    f"`{argument}` must hold one label for each example, of "
                    f"shape (batch,). Received shape {host.shape}; of one-hot "
                    "rows take y.argmax(-1)."
                )
            labels, host = labels[..., 0], host[..., 0]
        self._check_range(host, argument)
        return labels

    def _check_kind(self, host, argument):
        kind = host.dtype.kind
        if kind in "iu":
            return
        remedy = "cast class numbers by y.astype('int32')"
        if kind == "f" and host.ndim > 1:
            remedy += ", or one-hot rows by y.argmax(-1)"
        elif kind in "USO":
            remedy = "number them by np.unique(y, return_inverse=True)[1]"
        raise ValueError(
            f"`{argument}` must be integer labels for `network` "
            f"('{self.network}'). Received dtype {host.dtype}; {remedy}."
        )

    def _check_range(self, host, argument):
        if not host.size:
            return
        low, high = host.min(), host.max()
        if low >= 0 and (self.highest is None or high <= self.highest):
            return
        raise ValueError(
            f"`{argument}` must hold labels from {self.span()} for `network` "
            f"('{self.network}'). Received labels from {low} to {high}; "
            "number the classes from 0, or build the network with a larger "
            "`num_classes`."
        )

    def span(self):
        """The classes in words; the null label is none of them."""
        if self.highest is None:
            return "0 on"
        return f"0 to {self.highest - (self.null == self.highest)}"

    def check_whole(self, host, argument="condition"):
        """Labels of training: the null label in them is hardly ever meant.

        Args:
            host: all labels, an integer array.

        Raises:
            ValueError: if they are numbered from 1, so that the last class
                would be the null label.
        """
        if self.null is None or not np.any(host == self.null):
            return
        if host.min() == 1 and self.null == self.highest:
            raise ValueError(
                f"`{argument}` holds labels from 1 to {self.null}, of which "
                f"{self.null} is the null label of `network` "
                f"('{self.network}'): number the classes from 0, by y - 1."
            )
        self.warn_of_null(host, argument)

    def warn_of_null(self, host, argument="condition"):
        """Tell how many examples would train as unlabelled."""
        count = int(np.sum(host == self.null))
        if not count:
            return
        warnings.warn(
            f"{count} of {host.size} labels in `{argument}` are {self.null}, "
            f"the null label of `network` ('{self.network}'): these examples "
            "train the unconditional model. If it is a class, number the "
            "classes from 0, or build the network with a larger `num_classes`.",
            stacklevel=2,
        )


def _array(labels, argument):
    try:
        found = np.asarray(labels)
    except ValueError as error:
        raise ValueError(
            f"`{argument}` must be an array of labels. Received rows of "
            "different lengths."
        ) from error
    return found.astype("int32") if found.dtype.kind == "i" else found


def to_host(x):
    """A tensor of any framework as an array; what is no tensor stays."""
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        return x
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    return np.asarray(x.numpy() if hasattr(x, "numpy") else x)


def labels_of(network, null_label=None):
    """The `Labels` that a network takes as its condition, or None.

    A functional network tells by its input's dtype, and the number of labels
    by the `keras.layers.Embedding` of that input; one that does not tell takes
    labels if it has a null label.

    Args:
        network: a `keras.Model`.
        null_label: the label that stands for none, or None.

    Returns:
        `Labels`; of a condition that is a dict a dict of those of its labels.
    """
    inputs = getattr(network, "inputs", None)  # None for a subclassed model
    expected = network.input if inputs else None
    if not isinstance(expected, dict):
        names = input_names(network)
        takes = names is None or "condition" in names
        if not takes or not isinstance(null_label, int):
            return None
        return Labels(network.name, null_label, null_label, None)
    expected = expected.get("condition")
    if not isinstance(expected, dict):
        return _labels_of(expected, network, null_label)
    nulls = null_label if isinstance(null_label, dict) else {}
    found = {
        key: _labels_of(part, network, nulls.get(key))
        for key, part in expected.items()
    }
    return {key: labels for key, labels in found.items() if labels} or None


def _labels_of(expected, network, null):
    if "int" not in str(getattr(expected, "dtype", None)):
        return None
    highest = null
    for layer in network.layers:
        if isinstance(layer, keras.layers.Embedding):
            # One that is called twice does not tell its input.
            if getattr(layer, "input", None) is expected:
                highest = layer.input_dim - 1
    return Labels(network.name, highest, null, len(expected.shape) - 1)


def check_labels(labels, condition, argument="condition"):
    """A condition whose labels are checked, see `Labels.check`.

    Args:
        labels: of `labels_of`.
        condition: array, list, number or tensor; or a dict of these.
        argument: its name, for messages.
    """
    if labels is None or condition is None:
        return condition
    if isinstance(labels, Labels):
        if isinstance(condition, dict):
            return condition
        return labels.check(condition, argument)
    if not isinstance(condition, dict):
        return condition
    return {
        key: labels[key].check(value, f"{argument}[{key!r}]")
        if key in labels
        else value
        for key, value in condition.items()
    }


def host_condition(condition, network, batch, argument="condition"):
    """A condition whose labels are checked where they are on the host.

    Tensors are left alone: their values may not be known yet, and to wait for
    them would cost a step its lead.
    """
    if not isinstance(condition, _HOST):
        return condition
    labels = labels_of(network, getattr(network, "null_label", None))
    if not isinstance(labels, Labels):
        return condition
    condition = labels.check(condition, argument)
    if condition.ndim == 0 and batch is not None:
        condition = np.full((batch,), condition)
    return condition
