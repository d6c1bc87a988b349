"""The JAX train step: everything is a pure function of the state.

Keras's JAX trainer takes the values out of the variables while it runs, and
donates them to the step. `kept_on_error` puts them back after any error.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import keras
from keras import ops

from keras_flows.training import logs as training_logs
from keras_flows.training.callback_list import next_batches
from keras_flows.training.callback_list import stacked
from keras_flows.training.guard import spoil_unless_finite
from keras_flows.training.steps import global_norm
from keras_flows.training.steps import inner_optimizer
from keras_flows.training.steps import scales_loss

# In the order in which the trainer hands them to a step.
_KINDS = (
    "trainable_variables",
    "non_trainable_variables",
    "optimizer_variables",
    "metrics_variables",
)


def _scope(*pairs):
    mapping = []
    for variables, values in pairs:
        mapping.extend(zip(variables, values, strict=True))
    return keras.StatelessScope(state_mapping=mapping, collect_losses=True)


def _read(scope, variables):
    return [scope.get_current_value(v) for v in variables]


class _Held:
    """The newest state: what a step is given, then what it returns."""

    def __init__(self):
        self.kinds = ()
        self.last = []

    def take(self):
        """(kind, values) of the state, which is then no longer held."""
        if not self.last:
            return []
        _, state = self.last.pop()
        return list(zip(self.kinds, state, strict=True))


def _variables_of(model, kind):
    if kind == "optimizer_variables":
        return model.optimizer.variables if model.optimizer else []
    return getattr(model, kind)


def _is_alive(value):
    if value is None:
        return False
    try:
        value.block_until_ready()
    except Exception:
        return False
    return True


@contextlib.contextmanager
def kept_on_error(model):
    """Within, an error leaves every variable with a value.

    It is the one before the step that failed, or the step's own if that was
    done. Only a step that fails while it runs, for want of memory say, may
    have used its input up: floats are then NaN, integers 0, and the error
    has a note.
    """
    try:
        yield
    except BaseException as error:
        # What the sync did not reach is found below.
        with contextlib.suppress(Exception):
            model.jax_state_sync()
        lost = [
            v
            for kind in _KINDS
            for v in _variables_of(model, kind)
            if not _is_alive(v._value)
        ]
        for v in lost:
            nothing = jnp.nan if keras.backend.is_float_dtype(v.dtype) else 0
            v.assign(jnp.full(v.shape, nothing, v.dtype))
        if lost:
            error.add_note(
                f"{len(lost)} variables of '{model.name}' were lost with the "
                "step that failed: load the last checkpoint."
            )
        raise


def _kept(name):
    """The trainer's method `name`, within `kept_on_error`."""
    method = getattr(keras.Model, name)

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        with kept_on_error(self):
            return getattr(super(TrainStep, self), name)(*args, **kwargs)

    return run


def _scanned(step):
    """The steps of several batches, (state, batches) -> (last logs, state)."""

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state, batches):
        def body(state, data):
            found, state = step(state, data)
            return state, found

        state, found = jax.lax.scan(body, state, batches)
        return jax.tree.map(lambda values: values[-1], found), state

    return run


class TrainStep:
    """`train_step` and `test_step` for the JAX trainer."""

    @property
    def _held(self):
        return self.__dict__.setdefault("_held_state", _Held())

    def _get_jax_state(self, **kinds):
        state = super()._get_jax_state(**kinds)
        self._held.kinds = [kind for kind in _KINDS if kinds.get(kind)]
        self._held.last = [(None, state)]
        return state

    def __setattr__(self, name, value):
        if name in ("_jax_state", "_jax_state_synced"):
            # Set in every step: Keras would look through it for layers.
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _make_function(self, step_function, concatenate_outputs=False):
        held, several = self._held, self.steps_per_execution

        def one(state, data):
            held.last[:] = [(None, state)]
            # In one call of C, so that no Ctrl-C comes between the end of a
            # step, whose input is gone, and the hold on its output.
            held.last[:] = map(step_function, (state,), (data,))
            return held.last[0]

        if concatenate_outputs:
            return super()._make_function(one, concatenate_outputs)
        scanned = None
        # What `jax.jit` made; the layout of several batches over devices is
        # not known.
        if hasattr(step_function, "lower") and (
            keras.distribution.distribution() is None
        ):
            scanned = _scanned(step_function)

        def many(state, batches):
            held.last[:] = [(None, state)]
            held.last[:] = map(scanned, (state,), (batches,))
            return held.last[0]

        def function(state, iterator):
            if several == 1:
                found, state = one(state, next(iterator))
                return training_logs.Logs.of(found), state
            batches = next_batches(self, iterator)
            together = (
                stacked(jnp.stack, batches) if scanned is not None else None
            )
            if together is not None and len(batches) == several:
                found, state = many(state, together)
            else:
                for data in batches:
                    found, state = one(state, data)
            return training_logs.Logs.of(found), state

        return function

    def jax_state_sync(self):
        """Put the newest state back into the variables."""
        for kind, values in self._held.take():
            if self._jax_state_synced:
                break
            for variable, value in zip(
                _variables_of(self, kind), values, strict=True
            ):
                if not value.is_deleted():
                    variable.assign(value)
        self._jax_state_synced = True

    fit = _kept("fit")
    evaluate = _kept("evaluate")
    predict = _kept("predict")
    train_on_batch = _kept("train_on_batch")
    test_on_batch = _kept("test_on_batch")
    predict_on_batch = _kept("predict_on_batch")

    def _loss_and_updates(self, tv, ntv, ov, data):
        with _scope(
            (self.trainable_variables, tv),
            (self.non_trainable_variables, ntv),
            (self.optimizer.variables, ov),
        ) as scope:
            loss, means = self.compute(data, training=True)
            scaled = self.optimizer.scale_loss(loss)
            if scales_loss(self.optimizer):
                scaled = spoil_unless_finite(scaled, loss)
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
        norm = global_norm(gradients, ops.cast(scale, "float32"))
        finite = ops.isfinite(means["loss"])
        new_tv, new_ov = self.optimizer.stateless_apply(ov, gradients, tv)
        if not scales_loss(self.optimizer):
            # A loss scaler skips overflowing gradients itself; without one
            # a step that is not finite leaves everything as it was.
            finite = ops.logical_and(finite, ops.isfinite(norm))
            new_tv = self._keep(finite, new_tv, tv)
            new_ov = self._keep(finite, new_ov, ov)
        with _scope((self.optimizer.variables, new_ov)):
            after = ops.convert_to_tensor(
                inner_optimizer(self.optimizer).iterations
            )
        updated = ops.greater(after, before)
        applied = updated if scales_loss(self.optimizer) else finite
        new_ntv = self._keep(applied, new_ntv, ntv, floats_only=True)
        with _scope(
            (self.trainable_variables, new_tv),
            (self.non_trainable_variables, new_ntv),
            (self.optimizer.variables, new_ov),
            (self.metrics_variables, mv),
        ) as scope:
            logs = self.finish_step(
                means, self.batch_size(data), norm, finite, updated
            )
            logs = training_logs.packed(
                logs, skipped_in_a_row=self.skipped_in_a_row
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
            logs = training_logs.packed(self.evaluate_batch(data))
        state = (
            tv,
            _read(scope, self.non_trainable_variables),
            _read(scope, self.metrics_variables),
        )
        return logs, state
