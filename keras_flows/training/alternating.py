"""Two optimizers that take turns: one `fit`, two networks."""

from __future__ import annotations

import keras
from keras import ops

from keras_flows.ops import register
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked


def _optimizer(name, identifier):
    """An optimizer as Keras finds it, or an error that names the argument."""
    try:
        return keras.optimizers.get(identifier)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`{name}` must be a Keras optimizer. Received: {identifier!r}."
        ) from error


def _on_replicas():
    """Whether this is the step of one of several replicas of TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync > 1


@register
class AlternatingOptimizer(keras.optimizers.Optimizer):
    """`optimizer` moves one group of variables, then `second` the other.

    Of each `second_steps` + 1 steps the first is `optimizer`'s; neither sees
    the other's turns, in its slots and its schedule alike. Which variables
    are the second's, `second_group` says; all others are the first's.

    Args:
        optimizer: a `keras.optimizers.Optimizer` or its name.
        second: another, or None for one like `optimizer`.
        second_steps: steps of `second` for each of `optimizer`.
        name: optimizer name.
    """

    @checked(second_steps=SIZE)
    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        second: keras.optimizers.Optimizer | None = None,
        second_steps: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        optimizer = _optimizer("optimizer", optimizer)
        if second is None:
            second = type(optimizer).from_config(optimizer.get_config())
        second = _optimizer("second", second)
        for one in (optimizer, second):
            if isinstance(one, keras.optimizers.LossScaleOptimizer):
                raise ValueError(
                    "Two optimizers that take turns cannot scale the loss, as "
                    "float16 needs; train in bfloat16 or float32. "
                    f"Received: {one}."
                )
        if optimizer is second:
            raise ValueError(
                "`optimizer` and `second` must be two optimizers, each with "
                "slots of its own. Received the same one twice."
            )
        self.inner_optimizer = optimizer
        self.second = second
        self.second_steps = SIZE("second_steps", second_steps)
        self._second_ids = frozenset()

    def second_group(self, variables):
        """Name the variables that `second` moves."""
        self._second_ids = frozenset(id(v) for v in variables)

    def _split(self, values, variables):
        """`values` of the first and of the second group."""
        pairs = list(zip(values, variables, strict=True))
        return (
            [a for a, v in pairs if id(v) not in self._second_ids],
            [a for a, v in pairs if id(v) in self._second_ids],
        )

    def build(self, variables):
        """Make the slots of both."""
        self._turn = self.add_variable(
            shape=(),
            dtype="int32",
            initializer="zeros",
            aggregation="only_first_replica",
            name="turn",
        )
        first, second = self._split(variables, variables)
        self.inner_optimizer.build(first)
        self.second.build(second)
        super().build(variables)

    @property
    def variables(self):
        return [
            *self._variables,
            *self.inner_optimizer.variables,
            *self.second.variables,
        ]

    def first_turn(self):
        """Whether the next step is the first optimizer's, a scalar tensor."""
        return ops.equal(self._turn, 0)

    def _next_turn(self, turn):
        return (turn + 1) % (self.second_steps + 1)

    def apply(self, grads, trainable_variables=None):
        """One step of the one whose turn it is."""
        if not self.built:
            self.build(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        first, second = self._split(variables, variables)
        first_grads, second_grads = self._split(grads, variables)

        if _on_replicas():
            from keras_flows.training.tensorflow import apply_where

            turn = self.first_turn()
            apply_where(turn, self.inner_optimizer, first_grads, first)
            turn = ops.logical_not(turn)
            apply_where(turn, self.second, second_grads, second)
            self._turn.assign(self._next_turn(self._turn))
            return

        def move(optimizer, grads, variables):
            optimizer.apply(grads, variables)
            return ops.convert_to_tensor(optimizer._iterations)

        ops.cond(
            self.first_turn(),
            lambda: move(self.inner_optimizer, first_grads, first),
            lambda: move(self.second, second_grads, second),
        )
        self._turn.assign(self._next_turn(self._turn))

    def stateless_apply(self, optimizer_variables, grads, trainable_variables):
        """As `apply`, of values to values."""
        refs = self._trainable_variables
        first, second = self._split(trainable_variables, refs)
        first_grads, second_grads = self._split(grads, refs)
        own = len(self._variables)
        (place,) = (i for i, v in enumerate(self._variables) if v is self._turn)
        middle = own + len(self.inner_optimizer.variables)
        slots = optimizer_variables[own:middle]
        second_slots = optimizer_variables[middle:]
        turn = optimizer_variables[place]

        def move_first():
            new, new_slots = self.inner_optimizer.stateless_apply(
                slots, first_grads, first
            )
            return list(new), list(second), list(new_slots), list(second_slots)

        def move_second():
            new, new_slots = self.second.stateless_apply(
                second_slots, second_grads, second
            )
            return list(first), list(new), list(slots), list(new_slots)

        first, second, slots, second_slots = ops.cond(
            ops.equal(turn, 0), move_first, move_second
        )
        state = list(optimizer_variables[:own])
        state[place] = self._next_turn(turn)
        first, second = iter(first), iter(second)
        moved = [
            next(second if id(v) in self._second_ids else first) for v in refs
        ]
        return moved, [*state, *slots, *second_slots]

    @property
    def iterations(self):
        """Steps of the first optimizer."""
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        """Of the first optimizer."""
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    def finalize_variable_values(self, var_list):
        """Let both finish."""
        first, second = self._split(var_list, var_list)
        self.inner_optimizer.finalize_variable_values(first)
        self.second.finalize_variable_values(second)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.inner_optimizer),
            "second": serialize(self.second),
            "second_steps": self.second_steps,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = {
            key: keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
            for key in ("optimizer", "second")
        }
        return cls(**{**config, **parts})
