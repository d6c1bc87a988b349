"""The callbacks of a `fit`, to which a step's logs cost nothing unread."""

import itertools
import time

import keras
import numpy as np
from keras import tree

from keras_flows.training.logs import Logs

_BATCH = {
    f"on_{kind}_batch_{end}": f"on_batch_{end}" if kind == "train" else None
    for kind in ("train", "test", "predict")
    for end in ("begin", "end")
}


class CallbackList(keras.callbacks.CallbackList):
    """Keras's, but for the hooks of batches.

    Keras turns every log of every step into a float, for which the host waits
    for the device, unless no callback has a hook; then it starts a thread. Here
    the callbacks get `Logs`, which are read where one looks. The progress bar
    looks as often as it prints.
    """

    def __init__(self, *args, **kwargs):
        self._found = {}
        super().__init__(*args, **kwargs)

    def append(self, callback):
        self._found = {}
        super().append(callback)

    def on_train_begin(self, logs=None):
        self._found = {}
        super().on_train_begin(logs)

    def on_test_begin(self, logs=None):
        self._found = {}
        super().on_test_begin(logs)

    def _acting(self, hook):
        """The callbacks that do something in a hook of batches."""
        if hook not in self._found:
            self._found[hook] = [
                callback
                for callback in self.callbacks
                if _has(callback, hook) or _has(callback, _BATCH[hook])
            ]
        return self._found[hook]

    def _call(self, hook, batch, logs):
        logs = Logs.of(logs)
        for callback in self._acting(hook):
            if isinstance(callback, keras.callbacks.ProgbarLogger) and (
                not _is_due(callback)
            ):
                callback.seen = batch + 1
                continue
            getattr(callback, hook)(batch, logs=logs)

    def set_model(self, model):
        super().set_model(model)
        # Not `self.model`, which on JAX waits for the step.
        self._trained = model

    def on_train_batch_begin(self, batch, logs=None):
        steps = self.params.get("steps")
        if steps is not None:
            self._trained.__dict__["steps_left"] = steps - batch
        self._call("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self._call("on_train_batch_end", batch, logs)

    def on_test_batch_begin(self, batch, logs=None):
        self._call("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self._call("on_test_batch_end", batch, logs)


def _has(callback, name):
    """Whether a callback, or its class, has a hook of its own."""
    if name is None:
        return False
    method = getattr(callback, name)
    own = getattr(method, "__func__", None)
    return own is not getattr(keras.callbacks.Callback, name)


def _is_due(progress):
    """Whether the progress bar would print now."""
    bar = progress.progbar
    if bar is None or progress.verbose != 1:
        return bar is None
    return time.time() - bar._last_update >= bar.interval


def next_batches(model, iterator):
    """Those of one call of `steps_per_execution`, at least one.

    Not beyond the end of the epoch: Keras would read on where the data does
    not end there.

    Raises:
        StopIteration: if there is none.
    """
    several = model.steps_per_execution
    left = model.__dict__.pop("steps_left", several)
    batches = list(itertools.islice(iterator, min(several, left)))
    if not batches:
        raise StopIteration
    return batches


def stacked(stack, batches):
    """Batches of one shape as one that has them along a new first axis.

    Args:
        stack: the backend's, for tensors; arrays stay NumPy's.
        batches: list of structures.

    Returns:
        The structure, or None where the batches differ.
    """
    leaves = [tree.flatten(batch) for batch in batches]
    if any(len(each) != len(leaves[0]) for each in leaves):
        return None
    found = []
    for column in zip(*leaves, strict=True):
        if len({np.shape(leaf) for leaf in column}) > 1:
            return None
        host = all(isinstance(leaf, np.ndarray) for leaf in column)
        found.append((np.stack if host else stack)(column))
    return tree.pack_sequence_as(batches[0], found)


def last_batch(batch, callback):
    """The index of the last batch of a call of several steps.

    Keras names the one that a full call would end with, also where an epoch
    had fewer steps left.
    """
    steps = (callback.params or {}).get("steps")
    return batch if steps is None else min(batch, steps - 1)
