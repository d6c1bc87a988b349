"""The TensorFlow train step: a tape, and replicas that sum."""

import tensorflow as tf
from keras import ops

from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss


class TrainStep:
    """`train_step` for the TensorFlow trainer."""

    def train_step(self, data):
        optimizer = self.optimizer
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        with tf.GradientTape() as tape:
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
        norm = global_norm(gradients) * replicas / scale
        finite = tf.math.is_finite(means["loss"])
        before = tf.identity(inner_optimizer(optimizer).iterations)
        pairs = list(zip(gradients, variables, strict=True))
        if scales_loss(optimizer):
            optimizer.apply_gradients(pairs)
        else:
            finite = tf.logical_and(finite, tf.math.is_finite(norm))
            if replicas > 1:
                finite = self._on_all_replicas(finite)
                self._apply_and_restore(pairs, finite)
            else:
                tf.cond(
                    finite,
                    lambda: tf.identity(optimizer.apply_gradients(pairs)),
                    lambda: tf.identity(optimizer._iterations),
                )
        after = inner_optimizer(optimizer).iterations
        return self.finish_step(
            means,
            self.batch_size(data),
            norm,
            finite,
            ops.greater(after, before),
        )

    def test_step(self, data):
        return self.evaluate_batch(data)

    def _on_all_replicas(self, finite):
        context = tf.distribute.get_replica_context()
        count = context.all_reduce(
            tf.distribute.ReduceOp.SUM, tf.cast(finite, tf.float32)
        )
        return count >= context.num_replicas_in_sync

    def _apply_and_restore(self, pairs, finite):
        """Apply, then put the old values back where not finite.

        A conditional cannot hold the cross-replica call that applies
        gradients, so a bad step's gradients are replaced by zeros and the
        variables restored.
        """
        pairs = [(tf.where(finite, g, tf.zeros_like(g)), v) for g, v in pairs]
        state = [*(v for _, v in pairs), *self.optimizer.variables]
        old = [tf.identity(v.value) for v in state]
        self.optimizer.apply_gradients(pairs)

        def restore(strategy, finite, *old):
            for variable, value in zip(state, old, strict=True):
                strategy.extended.update(
                    variable.value,
                    lambda v, o, f: v.assign(tf.where(f, v, o)),
                    args=(value, finite),
                )

        tf.distribute.get_replica_context().merge_call(
            restore, args=(finite, *old)
        )
