"""What processes share: sums over a batch, and weights that are split."""

import contextlib
import contextvars

import keras

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


def check_whole(layers):
    """Refuse weights of which this process has a part.

    Raises:
        ValueError: if `kf.training.fully_shard` has split them.
    """
    if keras.backend.backend() != "torch":
        return
    for layer in layers:
        for variable in layer.variables:
            if hasattr(variable.value, "full_tensor"):
                raise ValueError(
                    f"The weights of '{layer.name}' are split over processes "
                    "by `fully_shard`: sample, save and export `with "
                    "kf.training.whole(model):`, entered by every process."
                )
