"""Forward- and reverse-mode derivatives that are right on every backend."""

from __future__ import annotations

import contextlib
import contextvars
import typing

import keras
from keras import ops

from keras_flows.ops.asides import carried
from keras_flows.ops.asides import gathering
from keras_flows.ops.asides import renote
from keras_flows.ops.kernels import choose_kernels

if typing.TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from keras_flows.ops.types import Tree

_in_jvp = contextvars.ContextVar("in_jvp", default=False)


def remat(fun: Callable[..., Any]) -> Any:
    """`fun`, whose activations the backward pass computes again.

    TensorFlow and PyTorch cannot do so through a derivative: inside `jvp`
    they keep the activations, where JAX does not.
    """

    def run(*args):
        if _in_jvp.get() and keras.backend.backend() != "jax":
            return fun(*args)
        return keras.remat(fun)(*args)

    return run


def in_jvp() -> bool:
    """Whether a forward derivative is taken of what runs here.

    By `jvp`; on PyTorch, whose fused kernels get it wrong without a word
    where others raise, by anyone.
    """
    if _in_jvp.get() or keras.backend.backend() != "torch":
        return _in_jvp.get()
    import torch

    return (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )


@contextlib.contextmanager
def _jvp_scope():
    """Keeps layers, Keras's and a user's too, to kernels that have a JVP."""
    choose_kernels(_in_jvp.get)
    token = _in_jvp.set(True)
    try:
        if keras.backend.backend() != "torch":
            yield
            return
        from keras_flows.ops.torch_kernels import formulas

        with formulas():
            yield
    finally:
        _in_jvp.reset(token)


def jvp(
    fun: Callable[..., Any],
    primals: Tree,
    tangents: Tree,
    has_aux: bool = False,
) -> Any:
    """Jacobian-vector product of `fun`, itself differentiable.

    `keras.ops.jvp` of any network: kernels whose derivatives are wrong or
    missing are replaced by their formulas, see `ops/torch_kernels.py` and
    `ops/kernels.py`. The tangents are checked: one of another shape would
    broadcast, one of another dtype raise deep in a backend.

    Args:
        fun: function of as many tensors as there are `primals`.
        primals: tuple of tensors at which the derivative is taken.
        tangents: tuple of tensors of the same shapes, the direction.
        has_aux: whether `fun` returns (output, aux).

    Returns:
        (fun(*primals), derivative of fun along tangents[, aux]).

    Raises:
        ValueError: if the tangents do not match the primals.
        NotImplementedError: if PyTorch has no forward derivative of an
            operation of `fun`, or a wrong one.
    """
    primals = tuple(ops.convert_to_tensor(p) for p in primals)
    if len(primals) != len(tangents):
        raise ValueError(
            f"`primals` and `tangents` must be as many. Received "
            f"{len(primals)} primals and {len(tangents)} tangents."
        )
    matched = []
    for i, (p, v) in enumerate(zip(primals, tangents, strict=True)):
        v = ops.cast(v, p.dtype)
        if tuple(p.shape) != tuple(v.shape):
            raise ValueError(
                f"`tangents[{i}]` must have the shape of `primals[{i}]`, "
                f"{tuple(p.shape)}. Received {tuple(v.shape)}."
            )
        matched.append(v)
    with _jvp_scope():
        if not gathering():
            return _jvp(fun, primals, matched, has_aux)
        run, parts = carried(fun)
        result, derivative, values = _jvp(
            _nested(run, has_aux), primals, matched, has_aux=True
        )
    values, aux = values
    renote(parts, values)
    if not has_aux:
        return result, derivative
    return result, derivative, aux


def _nested(run, has_aux):
    """run -> (output, notes) as (output, (notes, the function's own aux))."""

    def nested(*primals):
        output, values = run(*primals)
        output, aux = output if has_aux else (output, ())
        return output, (values, aux)

    return nested


def _jvp(fun, primals, tangents, has_aux):
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_jvp(fun, primals, tangents, has_aux)
    return ops.jvp(fun, primals, tuple(tangents), has_aux=has_aux)


def _tensorflow_jvp(fun, primals, tangents, has_aux):
    """A JVP from two reverse passes, the transpose of a transpose.

    The gradient g(d) = J^T d is linear in d, and the derivative of
    <g(d), tangents> by d is J tangents. In a graph nothing of g remains, so
    the cost is that of forward mode. `tf.autodiff.ForwardAccumulator` wraps
    every op's JVP in a function whose shapes XLA then wants as constants: a
    loss differentiated through it compiles anew in every step.
    """
    import tensorflow as tf

    # Copies, since a tape would also differentiate `fun`'s closure over a
    # primal, which is a constant.
    primals = tuple(tf.identity(p) for p in primals)
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            inner.watch(primals)
            output = fun(*primals)
            output, aux = output if has_aux else (output, None)
        direction = tf.ones_like(output)
        outer.watch(direction)
        transposed = inner.gradient(
            output,
            primals,
            output_gradients=direction,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
    derivative = outer.gradient(
        transposed,
        direction,
        output_gradients=list(tangents),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return (output, derivative, aux) if has_aux else (output, derivative)


def value_and_gradients(fun: Callable[..., Any], variables: Any) -> Any:
    """Value of the scalar `fun()` and its gradients by `variables`.

    Variables that `fun` does not reach get zeros on every backend.

    Args:
        fun: function without arguments that returns a scalar tensor.
        variables: list of `keras.Variable`.

    Returns:
        (value, list of tensors shaped like the variables).
    """
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        def run(values):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return fun()

        # One compilation, where op by op there would be hundreds.
        return jax.jit(jax.value_and_grad(run))([v.value for v in variables])
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = fun()
        gradients = tape.gradient(
            value,
            [v.value for v in variables],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return value, [tf.convert_to_tensor(g) for g in gradients]
    import torch

    value = fun()
    gradients = torch.autograd.grad(
        value, [v.value for v in variables], allow_unused=True
    )
    return value, [
        torch.zeros_like(v.value) if g is None else g
        for g, v in zip(gradients, variables, strict=True)
    ]
