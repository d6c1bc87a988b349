"""The TensorFlow train step: a tape, and replicas that sum."""

import numpy as np
import tensorflow as tf
from keras import ops
from keras import tree

from keras_flows.ops import float_dtype
from keras_flows.training import logs as training_logs
from keras_flows.training.ahead import read_ahead
from keras_flows.training.callback_list import next_batches
from keras_flows.training.callback_list import stacked
from keras_flows.training.ema import running_step
from keras_flows.training.fixed import moving_variables
from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss

# Keras's adapters whose batches come from Python one by one.
_OF_PYTHON = ("PyDatasetAdapter", "GeneratorDataAdapter")
# The most logs that a step may have: a loop needs to know before it runs.
_MOST_LOGS = 64


def _batches(adapter):
    """The batches of a Keras adapter, read ahead where nothing is lost."""
    batches = adapter.get_numpy_iterator()
    source = getattr(adapter, "py_dataset", None)
    if source is None or adapter.enqueuer is not None:
        return batches
    return read_ahead(batches)


def _whole(data):
    """A batch with None where tf.data has an empty optional."""
    return tree.map_structure(
        lambda leaf: (
            None if isinstance(leaf, tf.experimental.Optional) else leaf
        ),
        data,
    )


def _looped(step, several, names):
    """The steps of stacked batches; the last one's logs, in `_MOST_LOGS`.

    `names` gets what they are called.
    """

    def run(batches):
        def body(i, vector):
            data = tree.map_structure(lambda leaf: leaf[i], batches)
            ((found, vector),) = step(data).items()
            names.append(found)
            return i + 1, tf.pad(vector, [[0, _MOST_LOGS - len(found)]])

        start = tf.zeros((_MOST_LOGS,), float_dtype())
        _, vector = tf.while_loop(
            lambda i, _: i < several,
            body,
            (tf.constant(0), start),
            parallel_iterations=1,
        )
        return vector

    return run


def put_back(kept, variables, old, replicas):
    """The old values of variables, unless they are to be kept.

    Args:
        kept: boolean scalar, the same on all replicas.
        variables: Keras variables.
        old: their values from before.
        replicas: how many there are.
    """
    if not variables:
        return
    if replicas == 1:
        for variable, value in zip(variables, old, strict=True):
            variable.assign(tf.where(kept, variable.value, value))
        return

    def restore(strategy, kept, *old):
        for variable, value in zip(variables, old, strict=True):
            strategy.extended.update(
                variable.value,
                lambda v, o, k: v.assign(tf.where(k, v, o)),
                args=(value, kept),
            )

    tf.distribute.get_replica_context().merge_call(restore, args=(kept, *old))


def apply_where(kept, optimizer, gradients, variables):
    """A step of an optimizer on replicas, undone unless it is to be kept.

    A conditional cannot hold the exchange between replicas that applies
    gradients, so the step is always taken.
    """
    state = [*variables, *optimizer.variables]
    old = [tf.identity(v.value) for v in state]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    put_back(kept, state, old, replicas)


class TrainStep:
    """`train_step` for the TensorFlow trainer."""

    def train_step(self, data):
        optimizer = self.optimizer
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        moving = moving_variables(self)
        statistics = [tf.identity(v.value) for v in moving]
        with running_step(), tf.GradientTape() as tape:
            loss, means = self.compute(data, training=True)
            # Keras optimizers SUM gradients over replicas.
            scaled = optimizer.scale_loss(loss / replicas)
        variables = self.trainable_variables
        gradients = tape.gradient(
            scaled,
            [v.value for v in variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        scale = ops.cast(optimizer.scale_loss(ops.ones_like(loss)), "float32")
        norm = global_norm(gradients, scale / replicas)
        finite = tf.math.is_finite(means["loss"])
        applied = tf.logical_and(finite, tf.math.is_finite(norm))
        if replicas > 1:
            finite = self._on_all_replicas(finite)
            applied = self._on_all_replicas(applied)
        before = tf.identity(inner_optimizer(optimizer).iterations)
        if scales_loss(optimizer):
            # The scaler skips by the gradients, of one replica, alone.
            gradients = [
                tf.where(applied, g, tf.constant(np.nan, g.dtype))
                for g in gradients
            ]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        else:
            finite = applied
            self._apply_where(applied, gradients, variables, replicas)
        put_back(applied, moving, statistics, replicas)
        after = inner_optimizer(optimizer).iterations
        found = self.finish_step(
            means,
            self.batch_size(data),
            norm,
            finite,
            ops.greater(after, before),
        )
        if replicas > 1:
            return found
        return training_logs.packed(
            found, skipped_in_a_row=self.skipped_in_a_row
        )

    def test_step(self, data):
        with running_step():
            found = self.evaluate_batch(data)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return found
        return training_logs.packed(found)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        with self.distribute_strategy.scope():
            self._symbolic_build(iterator)
        if iterator is None or self.run_eagerly or self._several_replicas():
            # Keras's own function knows the end of its own iterator alone.
            return
        adapter = iterator.data_adapter
        if type(adapter).__name__ in _OF_PYTHON:
            # A tf.data pipeline around a Python generator costs .3 ms a batch.
            iterator._get_iterator = lambda: _batches(adapter)

    def _several_replicas(self):
        return self.distribute_strategy.num_replicas_in_sync > 1

    def _make_function(self, step_function):
        """The function of an iterator that `fit` calls.

        Keras's wraps the compiled step into another function, which takes as
        long as a small step; this one calls it with the next batch.
        """
        if self.run_eagerly or self._several_replicas():
            whole = super()._make_function(step_function)
            return lambda iterator: training_logs.Logs.of(whole(iterator))

        def compiled(function):
            return tf.function(
                function,
                jit_compile=self.jit_compile,
                reduce_retracing=True,
                # No Python branch of a step depends on a tensor.
                autograph=False,
            )

        several = self.steps_per_execution
        one, names = compiled(step_function), []
        many = compiled(_looped(step_function, several, names))

        def function(iterator):
            if several == 1:
                return training_logs.Logs.of(one(_whole(next(iterator))))
            batches = list(map(_whole, next_batches(self, iterator)))
            together = (
                stacked(tf.stack, batches) if len(batches) == several else None
            )
            if together is not None:
                vector = many(together)
                return training_logs.Logs(names[-1], vector[: len(names[-1])])
            for data in batches:
                found = one(data)
            return training_logs.Logs.of(found)

        return function

    def _on_all_replicas(self, finite):
        context = tf.distribute.get_replica_context()
        count = context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.cast(finite, tf.float32)
        )
        return count >= context.num_replicas_in_sync

    def _apply_where(self, finite, gradients, variables, replicas):
        """Apply the gradients where finite, else change nothing."""
        optimizer = self.optimizer
        if replicas == 1:
            pairs = list(zip(gradients, variables, strict=True))
            tf.cond(
                finite,
                lambda: tf.identity(optimizer.apply_gradients(pairs)),
                lambda: tf.identity(optimizer._iterations),
            )
            return
        gradients = [tf.where(finite, g, tf.zeros_like(g)) for g in gradients]
        apply_where(finite, optimizer, gradients, variables)
