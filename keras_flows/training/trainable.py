"""A model that trains on its own loss: what the three train steps share."""

from __future__ import annotations

import typing

import keras
from keras import ops

from keras_flows.ops import gather
from keras_flows.ops.replicas import check_whole
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.presets import from_preset
from keras_flows.presets import registered_config
from keras_flows.presets import save_to_preset
from keras_flows.training import batch_checks
from keras_flows.training import batches
from keras_flows.training import compiling
from keras_flows.training import data_checks
from keras_flows.training import first_batch
from keras_flows.training import fitting
from keras_flows.training import logs
from keras_flows.training.ema import EMA
from keras_flows.training.ema import settle
from keras_flows.training.regularization import regularization
from keras_flows.training.seeds import SeedGenerator
from keras_flows.training.seeds import spread_seeds
from keras_flows.training.step import TrainStep

if typing.TYPE_CHECKING:
    from typing import Any


class Averages:
    """Pairs of an `EMA` and the network that it averages.

    Not a list of the model's own: Keras would save the networks by it.
    """

    def __init__(self):
        self.pairs = []


class Trainable(TrainStep, keras.Model):
    """A `keras.Model` whose `fit` minimises its own `loss`.

    A subclass gives `loss(x, condition, extras, training)`, a dict of terms of
    shape (B,) with "loss" first. Averages, counters, the guard against steps
    that are not finite and the seed live here; a model that holds others
    names them in `held`, and whatever a step does to a model it does to those
    that it holds.

    Args:
        network: what trains and is averaged; None for a model that only holds
            others, whose state is theirs.
        terms: names of the loss's terms beside "loss", for the logs.
        ema: None, a decay, an `EMA`, or a list of these.
        max_skipped_steps: how many steps in a row may be non-finite.
        seed: int or None, the seed of times, noise and label dropping.
        name: model name.
    """

    @checked(max_skipped_steps=SIZE, seed=SEED)
    def __init__(
        self,
        network=None,
        *,
        terms=(),
        ema=None,
        max_skipped_steps=20,
        seed=None,
        name=None,
    ):
        super().__init__(name=name)
        self.autocast = False
        # Keras's Trainer sets `self.loss = None`, which hides the method.
        self.__dict__.pop("loss", None)
        if max_skipped_steps < 1:
            raise ValueError(
                "`max_skipped_steps` must be at least 1. "
                f"Received: {max_skipped_steps!r}."
            )
        self.averages = Averages()
        self._trackers = logs.trackers(terms)
        if network is None:
            return
        self.network = network
        self.max_skipped_steps = max_skipped_steps
        self.seed = seed
        training_seed, _ = spread_seeds(seed, 2)
        # Validation losses compare, also with those of a run that is resumed.
        _, self.evaluation_seed = spread_seeds(0 if seed is None else seed, 2)
        self.seed_generator = SeedGenerator(training_seed, name="training_seed")
        if ema is None:
            ema = []
        elif not isinstance(ema, (list, tuple)):
            ema = [ema]
        self.emas = [EMA.get(e) for e in ema]
        self.average(self.emas, network, "ema")
        self.skipped_steps = self.counter("skipped_steps")
        self.skipped_in_a_row = self.counter("skipped_in_a_row")

    def average(self, emas, network, name):
        """Let `emas` average `network` inside the train step."""
        for i, ema in enumerate(emas):
            ema.attach(network, f"{name}_{i}")
            self.averages.pairs.append((ema, network))

    def counter(self, name):
        """An int32 variable of the model, 0."""
        return self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
            name=name,
        )

    # What waits for a first batch: subclassed networks.

    def networks(self):
        """Networks of the model's own that are called."""
        return []

    def complete(self, x, condition=None):
        """Build by a batch what waits for one."""

    # What a step does to a model it does to those that it holds.

    def held(self):
        """Trainables that train along with this one."""
        return ()

    def everything(self):
        """This model and all that it holds."""
        return [self] + [
            model for inner in self.held() for model in inner.everything()
        ]

    def start_averages(self):
        """See `settle`."""
        settle(self)

    def after_update(self, updated):
        """Called in every step; `updated`: whether the optimizer moved."""

    # The step.

    @property
    def metrics(self):
        return list(self._trackers.values())

    def unpack(self, data):
        """(x, condition, extras) of a batch."""
        return batches.unpacked(data)

    def compute(self, data, training):
        """(mean loss, {term: mean}) of a batch; what backends differentiate.

        What regularisers, and `add_loss`, of all that trains give is added to
        the loss, as "regularization".
        """
        x, condition, extras = self.unpack(data)
        weight, extras = batches.split_weight(self, extras)
        with gather("losses") as notes:
            terms = self.loss(x, condition, extras, training=training)
        if weight is not None:
            terms = batches.weighted(terms, weight)
        means = {name: ops.mean(term) for name, term in terms.items()}
        added = regularization(self.trainable_variables, notes)
        if added is not None:
            for name in {"loss", logs.ERROR} & set(means):
                means[name] = means[name] + added
            means["regularization"] = added
        return means["loss"], means

    def batch_size(self, data):
        """Number of examples in a batch."""
        return ops.shape(keras.tree.flatten(data)[0])[0]

    def record(self, means, batch_size, gradient_norm=None, finite=True):
        """Update the trackers, weighted by the examples that counted."""
        # A weight per batch, or an epoch of unknown length (TensorFlow) would
        # count the failing fetch at its end, and a short batch too much.
        values = logs.renamed(means)
        if gradient_norm is not None:
            values["gradient_norm"] = gradient_norm
        logs.update(self._trackers, values, batch_size, finite)
        # Every name on every backend, in the order of construction.
        return {
            name: tracker.result()
            for name, tracker in self._trackers.items()
            if name in values
        }

    def finish_step(self, means, batch_size, gradient_norm, finite, updated):
        """After the optimizer: counters, averages, schedules, logs."""
        skipped = ops.cast(ops.logical_not(finite), "int32")
        self.skipped_steps.assign_add(skipped)
        self.skipped_in_a_row.assign(
            (self.skipped_in_a_row + skipped) * skipped
        )
        for model in self.everything():
            for ema, network in model.averages.pairs:
                ema.update(network, updated)
            model.after_update(updated)
        found = self.record(means, batch_size, gradient_norm, finite)
        found["skipped_steps"] = ops.cast(self.skipped_steps, "float32")
        return found

    def evaluate_batch(self, data):
        """Losses of a batch outside training, recorded."""
        _, means = self.compute(data, training=False)
        return self.record(means, self.batch_size(data))

    def _symbolic_build(self, iterator=None, data_batch=None):
        # Keras would call the model without its condition where any layer is
        # not built, also one that no call reaches. All that is called is.
        starting = self.__dict__.pop("starting_callbacks", None)
        if starting is not None and iterator is not None:
            steps = iterator.num_batches
            starting.set_params({**starting.params, "steps": steps})
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        self._post_build()

    def make_train_function(self, force=False):
        self.start_averages()
        # Before the first trace, which may fail and would leave half of it.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def make_test_function(self, force=False):
        self.start_averages()
        return super().make_test_function(force)

    # What users call.

    def compile(self, optimizer="rmsprop", *args, jit_compile="auto", **kwargs):
        """Configure training, as `keras.Model.compile`, with no loss.

        Raises:
            ValueError: on `jit_compile=True` on PyTorch.
        """
        compiling.check_jit(jit_compile)
        super().compile(optimizer, *args, jit_compile=jit_compile, **kwargs)
        self.forget_graphs()
        self._jit_asked = jit_compile

    def get_compile_config(self):
        config = super().get_compile_config()
        # What was asked: another backend may decide "auto" in its own way.
        return config and {**config, "jit_compile": self._jit_asked}

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**compiling.loaded_config(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *,
        callbacks: Any = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train; takes what `keras.Model.fit` takes.

        x is numpy arrays, a tf.data.Dataset, torch DataLoader, grain
        dataset or loader, PyDataset or generator, yielding x,
        (x, condition) or (x, condition, extras). A dataset with an order of
        its own keeps it.

        Weights of the examples, `sample_weight` (N,) or {"weight": (B,)} in a
        batch's extras, multiply each example's terms before the mean over the
        batch, in the loss and in the logs; `class_weight` has no meaning.

        Raises:
            ValueError: if the data is empty, of a wrong dtype or shape, or
                the model was not compiled, was compiled with a loss or
                metrics, or was frozen in part since.
            NonFiniteError: after `max_skipped_steps` non-finite steps in a
                row.
        """
        return fitting.fit(self, super().fit, x, y, callbacks, kwargs)

    def check_fit(self, x, y):
        """Refuse arrays that do not fit, before any work."""
        data_checks.check_host_array(x, None, "x")

    def check_first(self, batch):
        """The same for the first batch of a generator."""

    def labels(self):
        """What is known of the condition's labels, `networks.Labels`."""
        return None

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Loss on a dataset, with the same times and noise every time."""
        return fitting.evaluate(self, super().evaluate, x, y, args, kwargs)

    def forget_graphs(self):
        """Compile the step anew, PyTorch's: what it depends on may differ."""
        self.__dict__.pop("step_graphs", None)

    def train_on_batch(self, x, y=None, *args, class_weight=None, **kwargs):
        """One step on a batch, see `keras.Model.train_on_batch`."""
        batches.check_class_weight(class_weight)
        x = first_batch.completed(self, x, y)
        y = batch_checks.checked_condition(self, x, y)
        return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """The losses of a batch, see `keras.Model.test_on_batch`."""
        x = first_batch.completed(self, x, y)
        y = batch_checks.checked_condition(self, x, y)
        return super().test_on_batch(x, y, *args, **kwargs)

    def predict(self, *args, **kwargs):
        """Not defined: use `generate`, `pred` or `score`."""
        raise NotImplementedError(
            "`predict` has no meaning for a generative model: use "
            "`generate(...)` to sample, `pred(x_t, t)` for the velocity or "
            "`score(x_t, t)`."
        )

    # Saving.

    def save(self, filepath, *args, **kwargs):
        """As `keras.Model.save`, if Keras will find its classes again."""
        registered_config(self)
        super().save(filepath, *args, **kwargs)

    def save_own_variables(self, store):
        check_whole([self])
        super().save_own_variables(store)
        if "seed_generator" in self.__dict__:
            store["seed_generator"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store):
        own = {
            key: store[key]
            for key in store.keys()
            if not key.endswith("seed_generator")
        }
        super().load_own_variables(own)
        if "seed_generator" in self.__dict__ and "seed_generator" in store:
            self.seed_generator.state.assign(store["seed_generator"])

    def save_to_preset(self, preset_dir, metadata=None, **kwargs):
        """Save the model to a folder: see `presets.save_to_preset`."""
        save_to_preset(self, preset_dir, metadata, **kwargs)

    @classmethod
    def from_preset(cls, preset, load_weights=True, dtype=None, **arguments):
        """Load a model of this class: see `presets.from_preset`.

        Raises:
            ValueError: also if the preset holds another class.
        """
        return from_preset(preset, load_weights, dtype, cls, **arguments)
