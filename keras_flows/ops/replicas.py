"""Sums over the processes that share a batch."""

import contextlib
import contextvars

_summed = contextvars.ContextVar("summed", default=None)


@contextlib.contextmanager
def summing(function):
    """Within, `over_replicas` is `function`, a tensor to its sum."""
    token = _summed.set(function)
    try:
        yield
    finally:
        _summed.reset(token)


def over_replicas(tensor):
    """The sum of a tensor without gradient over all shares of a batch.

    In a training step of several PyTorch processes; as it is elsewhere. JAX
    has the whole batch. Replicas of TensorFlow keep to their own share, since
    they cannot exchange within a conditional.
    """
    function = _summed.get()
    return tensor if function is None else function(tensor)
