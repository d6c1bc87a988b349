"""Compiling a function whose weights stay arguments."""

from __future__ import annotations

import contextlib
import typing

import keras
import numpy as np
from keras import tree

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def compiled(fn: Callable[..., Any], variables: Any) -> Any:
    """Compile `fn` so that it always sees the current value of `variables`.

    On JAX the values are an argument of the jitted function (a closure would
    bake them in), on TensorFlow they are read from the variables of a
    `tf.function`, on PyTorch they are an argument of a graph of operators,
    see `ops/torch_compiled.py`. Tensors in `args` trace once per shape; Python
    values among them are not allowed.

    Args:
        fn: function of tensors (or structures of them) to tensors.
        variables: the `keras.Variable`s that `fn` reads.

    Returns:
        A function with `fn`'s signature.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        @jax.jit
        def run(values, args):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return fn(*args)

        return lambda *args: run([v.value for v in variables], args)
    if backend == "tensorflow":
        import tensorflow as tf

        # No Python branch here depends on a tensor, and to look for one takes
        # longer than the trace.
        graph = tf.function(fn, reduce_retracing=True, autograph=False)

        def call(*args):
            return graph(*tree.map_structure(keras.ops.convert_to_tensor, args))

        return call
    from keras_flows.ops.torch_compiled import Compiled

    return Compiled(fn, variables)


def arguments(structure):
    """Arrays as arguments of a `compiled` function, a structure of them.

    PyTorch wants tensors, on its device; JAX and TensorFlow take arrays faster
    as they are.
    """
    if keras.backend.backend() != "torch":
        return structure
    return tree.map_structure(keras.ops.convert_to_tensor, structure)


@contextlib.contextmanager
def eager_float64():
    """Numbers out of `keras.ops`, even while a function is being traced.

    Gives a function (fn, array) -> NumPy float64 of fn(array), for what has
    to be known before a graph is made: the times of a sampler, say.
    """
    backend = keras.backend.backend()
    with contextlib.ExitStack() as stack:
        if backend == "jax":
            import jax

            stack.enter_context(jax.ensure_compile_time_eval())
            stack.enter_context(jax.enable_x64(True))
        elif backend == "tensorflow":
            import tensorflow as tf

            stack.enter_context(tf.init_scope())

        def number(fn, array):
            array = np.asarray(array, dtype="float64")
            array = keras.ops.convert_to_tensor(array, dtype="float64")
            return np.asarray(keras.ops.convert_to_numpy(fn(array)), "float64")

        yield number
