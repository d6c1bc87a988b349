"""The JAX train step: everything is a pure function of the state."""

import jax
import keras
from keras import ops

from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss


def _scope(*pairs):
    mapping = []
    for variables, values in pairs:
        mapping.extend(zip(variables, values, strict=True))
    return keras.StatelessScope(state_mapping=mapping)


def _read(scope, variables):
    return [scope.get_current_value(v) for v in variables]


class TrainStep:
    """`train_step` and `test_step` for the JAX trainer."""

    def _loss_and_updates(self, tv, ntv, ov, data):
        with _scope(
            (self.trainable_variables, tv),
            (self.non_trainable_variables, ntv),
            (self.optimizer.variables, ov),
        ) as scope:
            loss, means = self.compute(data, training=True)
            scaled = self.optimizer.scale_loss(loss)
            scale = self.optimizer.scale_loss(ops.ones_like(loss))
            before = ops.convert_to_tensor(
                inner_optimizer(self.optimizer).iterations
            )
        ntv = _read(scope, self.non_trainable_variables)
        return scaled, (means, ntv, scale, before)

    def train_step(self, state, data):
        tv, ntv, ov, mv = state
        (_, aux), gradients = jax.value_and_grad(
            self._loss_and_updates, has_aux=True
        )(tv, ntv, ov, data)
        means, new_ntv, scale, before = aux
        norm = global_norm(gradients) / ops.cast(scale, "float32")
        finite = ops.isfinite(means["loss"])
        new_tv, new_ov = self.optimizer.stateless_apply(ov, gradients, tv)
        if not scales_loss(self.optimizer):
            # A loss scaler skips overflowing gradients itself; without one
            # a step that is not finite leaves everything as it was.
            finite = ops.logical_and(finite, ops.isfinite(norm))
            new_tv = self._keep(finite, new_tv, tv)
            new_ov = self._keep(finite, new_ov, ov)
            new_ntv = self._keep(finite, new_ntv, ntv, floats_only=True)
        with _scope(
            (self.trainable_variables, new_tv),
            (self.non_trainable_variables, new_ntv),
            (self.optimizer.variables, new_ov),
            (self.metrics_variables, mv),
        ) as scope:
            after = inner_optimizer(self.optimizer).iterations
            logs = self.finish_step(
                means,
                self.batch_size(data),
                norm,
                finite,
                ops.greater(after, before),
            )
        state = (
            new_tv,
            _read(scope, self.non_trainable_variables),
            new_ov,
            _read(scope, self.metrics_variables),
        )
        return logs, state

    @staticmethod
    def _keep(finite, new, old, floats_only=False):
        return [
            n
            if floats_only and not keras.backend.is_float_dtype(n.dtype)
            else ops.where(finite, n, o)
            for n, o in zip(new, old, strict=True)
        ]

    def test_step(self, state, data):
        tv, ntv, mv = state
        with _scope(
            (self.trainable_variables, tv),
            (self.non_trainable_variables, ntv),
            (self.metrics_variables, mv),
        ) as scope:
            logs = self.evaluate_batch(data)
        state = (
            tv,
            _read(scope, self.non_trainable_variables),
            _read(scope, self.metrics_variables),
        )
        return logs, state
