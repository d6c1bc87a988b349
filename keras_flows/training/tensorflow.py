"""The TensorFlow train step: a tape, and replicas that sum."""

import numpy as np
import tensorflow as tf
from keras import ops

from keras_flows.training.ema import running_step
from keras_flows.training.fixed import moving_variables
from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss


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
        return self.finish_step(
            means,
            self.batch_size(data),
            norm,
            finite,
            ops.greater(after, before),
        )

    def test_step(self, data):
        with running_step():
            return self.evaluate_batch(data)

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
