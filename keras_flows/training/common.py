"""What the three train steps share."""

import copy

import keras
import numpy as np
from keras import ops

from keras_flows.training.ema import EMA
from keras_flows.training.ema import settle
from keras_flows.training.guard import NonFiniteGuard
from keras_flows.training.seeds import SeedGenerator
from keras_flows.training.seeds import spread_seeds


def inner_optimizer(optimizer):
    """The optimizer inside a loss scaler, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scales_loss(optimizer):
    """Whether the optimizer is a `LossScaleOptimizer`, which skips steps."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def global_norm(gradients):
    """Global norm in float32, the sum of squares over all gradients."""
    total = 0.0
    for g in gradients:
        total = total + ops.sum(ops.square(ops.cast(g, "float32")))
    return ops.sqrt(total)


class CommonSteps:
    """State and bookkeeping of training; a mixin over `keras.Model`.

    The model provides `network`, `loss(x, condition, extras, training)` and
    `unpack(data)`.
    """

    def _init_training(self, terms, ema, max_skipped_steps, seed):
        if max_skipped_steps < 1:
            raise ValueError(
                "`max_skipped_steps` must be at least 1. "
                f"Received: {max_skipped_steps!r}."
            )
        self.max_skipped_steps = max_skipped_steps
        self.seed = seed
        self._seeds = spread_seeds(seed, 2)
        self.seed_generator = SeedGenerator(
            self._seeds[0], name="training_seed"
        )
        # Evaluation draws from its own generator, reset every time, so that
        # validation losses compare and training is not disturbed.
        self.evaluation_seed_generator = SeedGenerator(
            self._seeds[1], name="evaluation_seed"
        )
        self._rng = {"now": self.seed_generator}
        if ema is None:
            ema = []
        elif not isinstance(ema, (list, tuple)):
            ema = [ema]
        self.emas = [EMA.get(e) for e in ema]
        self._averaged = {"pairs": []}
        self._average(self.emas, self.network, "ema")
        self.skipped_steps = self._counter("skipped_steps")
        self.skipped_in_a_row = self._counter("skipped_in_a_row")
        self._trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("loss", *terms, "gradient_norm")
        }

    def _average(self, emas, network, name):
        """Let `emas` average `network` inside the train step."""
        for i, ema in enumerate(emas):
            ema.attach(network, f"{name}_{i}")
            self._averaged["pairs"].append((ema, network))

    def _counter(self, name):
        return self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    @property
    def metrics(self):
        return list(self._trackers.values())

    def compute(self, data, training):
        """(mean loss, {term: mean}) of a batch; what backends differentiate."""
        self._rng["now"] = (
            self.seed_generator if training else self.evaluation_seed_generator
        )
        try:
            x, condition, extras = self.unpack(data)
            terms = self.loss(x, condition, extras, training=training)
        finally:
            self._rng["now"] = self.seed_generator
        means = {name: ops.mean(term) for name, term in terms.items()}
        return means["loss"], means

    def _batch_size(self, data):
        return ops.shape(keras.tree.flatten(data)[0])[0]

    def record(self, means, batch_size, gradient_norm=None, finite=True):
        """Update the trackers, weighted by the examples that counted."""
        # A weight per batch, or an epoch of unknown length (TensorFlow) would
        # count the failing fetch at its end, and a short batch too much.
        weight = ops.cast(batch_size, "float32") * ops.cast(finite, "float32")
        values = dict(means)
        if gradient_norm is not None:
            values["gradient_norm"] = gradient_norm
        for name, tracker in self._trackers.items():
            if name in values:
                value = ops.cast(values[name], "float32")
                tracker.update_state(
                    ops.where(finite, value, ops.zeros_like(value)),
                    sample_weight=weight,
                )
        # Every name on every backend, in the order of construction.
        return {
            name: tracker.result()
            for name, tracker in self._trackers.items()
            if name in values
        }

    def finish_step(self, means, batch_size, gradient_norm, finite, updated):
        """After the optimizer: counters, EMA, logs."""
        skipped = ops.cast(ops.logical_not(finite), "int32")
        self.skipped_steps.assign_add(skipped)
        self.skipped_in_a_row.assign(
            (self.skipped_in_a_row + skipped) * skipped
        )
        for ema, network in self._averaged["pairs"]:
            ema.update(network, updated)
        self.after_update(updated)
        logs = self.record(means, batch_size, gradient_norm, finite)
        logs["skipped_steps"] = ops.cast(self.skipped_steps, "float32")
        return logs

    def after_update(self, updated):
        """Called in every step; `updated`: whether the optimizer moved."""

    def test_step(self, data):
        _, means = self.compute(data, training=False)
        return self.record(means, self._batch_size(data))

    def make_train_function(self, force=False):
        self._start_emas()
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        self._start_emas()
        return super().make_test_function(force)

    def _start_emas(self):
        """See `settle`."""
        settle(self)

    def fit(self, x=None, y=None, *, callbacks=None, **kwargs):
        """Train; takes what `keras.Model.fit` takes.

        x is numpy arrays, a tf.data.Dataset, torch DataLoader, grain
        dataset or loader, PyDataset or generator, yielding x or
        (x, condition).

        Raises:
            ValueError: if the data is empty, of a wrong dtype or shape, or
                the model was compiled with a loss or metrics.
            NonFiniteError: after `max_skipped_steps` non-finite steps in a
                row.
        """
        self._check_fit(x, y)
        x = _with_tuple_batches(x)
        guard = NonFiniteGuard(self.max_skipped_steps)
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            if callbacks is None:
                callbacks = []
            elif isinstance(callbacks, keras.callbacks.Callback):
                callbacks = [callbacks]
            callbacks = [guard, *callbacks]
        else:
            callbacks.append(guard)
        before = self.optimizer._iterations.numpy() if self.optimizer else 0
        try:
            history = super().fit(x, y, callbacks=callbacks, **kwargs)
        except Exception as error:
            if _is_empty_data_error(error):
                raise ValueError(_EMPTY) from error
            raise
        optimizer = inner_optimizer(self.optimizer)
        if int(optimizer._iterations.numpy()) == before and not int(
            self.skipped_steps.numpy()
        ):
            raise ValueError(_EMPTY)
        return history

    def evaluate(self, *args, **kwargs):
        """Loss on a dataset, with the same times and noise every time."""
        state = np.array([self._seeds[1], 0], dtype="uint32")
        self.evaluation_seed_generator.state.assign(state)
        return super().evaluate(*args, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        for name in ("seed_generator", "evaluation_seed_generator"):
            store[name] = getattr(self, name).state.numpy()

    def load_own_variables(self, store):
        own = {
            key: store[key]
            for key in store.keys()
            if not key.endswith("seed_generator")
        }
        super().load_own_variables(own)
        for name in ("seed_generator", "evaluation_seed_generator"):
            if name in store.keys():
                getattr(self, name).state.assign(store[name])


class _TupleBatches:
    """A torch collate function that wraps a bare batch in a tuple."""

    def __init__(self, collate):
        self.collate = collate

    def __call__(self, rows):
        batch = self.collate(rows)
        return batch if isinstance(batch, (tuple, list, dict)) else (batch,)


def _with_tuple_batches(x):
    """A torch DataLoader of bare arrays, as Keras wants it.

    Keras takes the rows of a bare batch for its parts on JAX, and fails on
    TensorFlow. The user's loader is left as it is.
    """
    if not (
        type(x).__module__.startswith("torch.utils.data")
        and hasattr(x, "collate_fn")
    ):
        return x
    x = copy.copy(x)
    x.collate_fn = _TupleBatches(x.collate_fn)
    return x


_EMPTY = (
    "`x` yielded no batch: the dataset is empty, or `steps_per_epoch` is 0. "
    "Pass at least one batch; a generator that was used up must be made anew."
)


# What the three trainers say when no batch came, none of it to the point.
_EMPTY_SIGNS = ("has length 0", "Empty Logs", "'logs'")


def _is_empty_data_error(error):
    return isinstance(error, (ValueError, UnboundLocalError)) and any(
        sign in str(error) for sign in _EMPTY_SIGNS
    )
