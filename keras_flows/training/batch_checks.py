"""Labels on their way to a step: every batch is checked on the host.

Arrays are checked whole before the first step. Of a dataset each batch is,
where it is made, in the thread or the graph that makes it: inside a compiled
step labels could be looked at only by waiting for them.
"""

import copy
import re
import types

import keras
import numpy as np

from keras_flows.networks.labels import Labels
from keras_flows.networks.labels import check_labels
from keras_flows.networks.labels import to_host
from keras_flows.training.batches import Mapped
from keras_flows.training.batches import validation_with_weights
from keras_flows.training.batches import with_tuple_batches

# TensorFlow's way to show the values beside an assertion's message.
_VALUES = re.compile(r"\[(-?\d+)\]\s*\[to\]\s*\[(-?\d+)\]")


class BatchCheck:
    """Checks the labels of each batch that it is called on.

    Args:
        labels: of `networks.labels.labels_of`, or None.
        place: the condition's place in a batch.
        first: function of the first batch, or None.
    """

    def __init__(self, labels, place, first=None):
        self.labels, self.place, self.first = labels, place, first
        self.error = None

    def __call__(self, batch):
        try:
            if self.first is not None:
                first, self.first = self.first, None
                first(batch)
            return self._checked(batch)
        except ValueError as error:
            # What makes batches may wrap errors in others.
            self.error = error
            raise

    def _checked(self, batch):
        i = self.place
        if not isinstance(batch, (tuple, list)) or len(batch) <= i:
            return batch
        labels = check_labels(self.labels, batch[i])
        if labels is batch[i]:
            return batch
        return type(batch)((*batch[:i], labels, *batch[i + 1 :]))

    def plain(self, error):
        """The error of a batch, out of what TensorFlow made of it."""
        if isinstance(error, ValueError):
            return error
        if self.error is not None:
            return self.error
        found = _VALUES.search(str(error))
        if found and isinstance(self.labels, Labels):
            low, high = map(int, found.groups())
            try:
                self.labels.check(np.array([low, high]))
            except ValueError as plain:
                return plain
        return error


class _Then:
    """function(...), checked: a collate function of a torch DataLoader."""

    def __init__(self, function, check):
        self.function, self.check = function, check

    def __call__(self, rows):
        return self.check(self.function(rows))


def _in_graph(x, check):
    """A `tf.data.Dataset` whose labels are checked by its own graph."""
    import tensorflow as tf

    labels, i, spec = check.labels, check.place, x.element_spec
    if not isinstance(labels, Labels) or not isinstance(spec, tuple):
        return x
    if len(spec) <= i or not getattr(spec[i], "dtype", tf.string).is_integer:
        return x
    rank, shape = labels.rank, spec[i].shape
    column = rank is not None and shape.rank == rank + 2 and shape[-1] == 1

    def checked(*batch):
        given = tf.squeeze(batch[i], -1) if column else batch[i]
        low, high = tf.reduce_min(given), tf.reduce_max(given)
        inside = low >= 0
        if labels.highest is not None:
            inside = tf.logical_and(inside, high <= labels.highest)
        assertion = tf.debugging.Assert(
            inside, ["labels from", low, "to", high]
        )
        with tf.control_dependencies([assertion]):
            given = tf.identity(given)
        return (*batch[:i], given, *batch[i + 1 :])

    return x.map(checked)


def _module(x):
    return type(x).__module__.split(".")[0]


def checked_batches(x, check):
    """The dataset x whose batches are checked; arrays stay what they are."""
    if isinstance(x, types.GeneratorType):
        return (check(batch) for batch in x)
    if check.labels is None:
        return x
    if isinstance(x, keras.utils.PyDataset):
        return Mapped(x, check)
    if hasattr(x, "collate_fn"):
        x = copy.copy(x)
        x.collate_fn = _Then(x.collate_fn, check)
        return x
    if _module(x) == "tensorflow" and hasattr(x, "element_spec"):
        return _in_graph(x, check) if hasattr(x, "map") else x
    if _module(x) == "grain" and hasattr(x, "map"):
        return x.map(check)
    return x


def checked_condition(model, x, y, training=False):
    """The condition y beside the array x, its labels checked."""
    labels = model.labels()
    # Not where y is something else, such as the other end of a bridge.
    if labels is None or y is None or model.unpack((x, y))[1] is not y:
        return y
    y = check_labels(labels, y)
    if training and isinstance(labels, Labels):
        labels.check_whole(to_host(y))
    return y


def checked_input(model, x, y, training=True):
    """(x, y, `BatchCheck`) of what `fit` or `evaluate` was given."""
    y = checked_condition(model, x, y, training)
    model.check_fit(x, y)
    # Of a generator nothing can be read before it is used.
    first = model.check_first if isinstance(x, types.GeneratorType) else None
    _, place, _ = model.unpack((0, 1, 2))
    check = BatchCheck(model.labels(), place, first)
    return checked_batches(with_tuple_batches(x), check), y, check


def checked_validation(model, options):
    """(options of `fit` with `validation_data` checked, its `BatchCheck`)."""
    data = options.get("validation_data")
    if data is None:
        return options, BatchCheck(None, 1)
    arrays = isinstance(data, (tuple, list))
    x, y, *rest = (*data, None)[: max(2, len(data))] if arrays else (data, None)
    try:
        x, y, check = checked_input(model, x, y, training=False)
    except ValueError as error:
        raise ValueError(f"In `validation_data`: {error}") from error
    if arrays:
        x = validation_with_weights(model, (x, y, *rest)[: len(data)])
    return {**options, "validation_data": x}, check
