"""Compiling a function whose weights stay arguments."""

import keras
from keras import tree


def compiled(fn, variables):
    """Compile `fn` so that it always sees the current value of `variables`.

    On JAX the values are an argument of the jitted function (a closure would
    bake them in), on TensorFlow they are read from the variables of a
    `tf.function`, on PyTorch `fn` runs eagerly without a graph. Tensors in
    `args` trace once per shape; Python values among them are not allowed.

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

        graph = tf.function(fn, reduce_retracing=True)

        def call(*args):
            return graph(*tree.map_structure(keras.ops.convert_to_tensor, args))

        return call
    import torch

    def run_eagerly(*args):
        with torch.no_grad():
            return fn(*tree.map_structure(keras.ops.convert_to_tensor, args))

    return run_eagerly
