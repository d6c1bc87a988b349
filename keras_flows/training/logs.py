"""Means of a loss's terms over the steps of an epoch.

What a compiled step logs leaves it as one vector (`packed`), and the host
reads that only where somebody looks (`Logs`).
"""

import functools
import operator

import keras
from keras import ops

from keras_flows.ops import ERROR
from keras_flows.ops import WEIGHTED
from keras_flows.ops import float_dtype
from keras_flows.ops import share_of


class Mean(keras.metrics.Mean):
    """As Keras's, and NaN where nothing has counted.

    0.0 would be the best loss that there is, for every callback.
    """

    def result(self):
        nothing = ops.equal(self.count, 0)
        return ops.where(nothing, float("nan"), super().result())


def trackers(terms):
    """{name: Mean} of what may be logged, "loss" first."""
    names = (
        "loss", *terms, WEIGHTED, "regularization", "gradient_norm",
    )  # fmt: skip
    return {name: Mean(name=name) for name in dict.fromkeys(names)}


def renamed(means):
    """Means by the names of the logs: see `keras_flows.ops.terms`."""
    if ERROR not in means:
        return dict(means)
    return {**means, WEIGHTED: means["loss"], "loss": means[ERROR]}


def update(trackers, means, weight, finite):
    """Add a step to the trackers that it has values for.

    Args:
        trackers: as of `trackers`.
        means: {term: mean}, shares among them.
        weight: number of examples.
        finite: whether the step counts.
    """
    for name, tracker in trackers.items():
        if name not in means:
            continue
        value = ops.cast(means[name], "float32")
        counts = ops.cast(weight, "float32") * ops.cast(finite, "float32")
        # A term of no rows in this step has no mean.
        share = ops.cast(means.get(share_of(name), 1.0), "float32")
        if name == "gradient_norm":
            # A loss scaler skips gradients that overflow, and goes on.
            share = ops.cast(ops.isfinite(value), "float32")
        counts = counts * share
        value = value / ops.where(share > 0, share, 1.0)
        tracker.update_state(
            ops.where(counts > 0, value, ops.zeros_like(value)),
            sample_weight=counts,
        )


def packed(found, **hidden):
    """{names: vector}: the logs of a step as one tensor, for `Logs`.

    Args:
        found: {name: scalar}.
        hidden: scalars that are no logs, see `Logs.hidden`.
    """
    found = {**found, **{f"_{name}": value for name, value in hidden.items()}}
    values = [ops.cast(value, float_dtype()) for value in found.values()]
    return {tuple(found): ops.stack(values)}


class Logs(dict):
    """{name: float} of a step, fetched from the device at the first look.

    Until then the host waits for nothing, and afterwards it is a plain dict.

    Args:
        names: the names.
        values: a vector of the backend, or tensors in the same order.
    """

    def __init__(self, names, values):
        super().__init__()
        self._unread = tuple(names), values
        self._hidden = {}

    @classmethod
    def of(cls, found):
        """The logs that a step returned, whatever it made of them."""
        if isinstance(found, cls):
            return found
        found = found or {}
        names, values = tuple(found), list(found.values())
        if len(names) == 1 and isinstance(names[0], tuple):
            return cls(names[0], values[0])
        return cls(names, values)

    def read(self):
        """Fetch the values, once."""
        unread = self._unread
        if unread is None:
            return self
        names, values = unread
        if not isinstance(values, list):
            values = ops.convert_to_numpy(values).tolist()
        found = zip(names, values, strict=True)
        for name, value in sorted(found, key=operator.itemgetter(0)):
            if name.startswith("_"):
                self._hidden[name[1:]] = _number(value)
            else:
                super().__setitem__(name, _number(value))
        # Last: Keras's own list of callbacks reads in another thread.
        self._unread = None
        return self

    def hidden(self, name, default=None):
        """A value that came along with the logs and is none of them."""
        return self.read()._hidden.get(name, default)

    def __bool__(self):
        unread = self._unread
        return bool(unread[0]) if unread else dict.__len__(self) > 0

    __hash__ = None

    def __reduce__(self):
        return dict, (dict(self),)


def _number(value):
    """As Keras: a float where it is one."""
    try:
        if keras.ops.is_tensor(value):
            value = ops.convert_to_numpy(value)
        return float(value)
    except (TypeError, ValueError):
        return value


def _after_reading(name):
    method = getattr(dict, name)

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        return method(self.read(), *args, **kwargs)

    return run


for _name in (
    "__contains__", "__delitem__", "__eq__", "__getitem__", "__ior__",
    "__iter__", "__len__", "__ne__", "__or__", "__repr__", "__reversed__",
    "__ror__", "__setitem__", "clear", "copy", "get", "items", "keys", "pop",
    "popitem", "setdefault", "update", "values",
):  # fmt: skip
    setattr(Logs, _name, _after_reading(_name))
