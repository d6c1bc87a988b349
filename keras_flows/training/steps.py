"""What the three train steps ask of an optimizer and its gradients."""

import keras
from keras import ops


def inner_optimizer(optimizer):
    """The optimizer inside a loss scaler, or the optimizer itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def scales_loss(optimizer):
    """Whether the optimizer is a `LossScaleOptimizer`, which skips steps."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def global_norm(gradients, scale=1.0):
    """Global norm of gradients / scale, in float32.

    Divided before they are squared, which for a scaled loss is too large.
    """
    total = 0.0
    for g in gradients:
        total = total + ops.sum(ops.square(ops.cast(g, "float32") / scale))
    return ops.sqrt(total)
