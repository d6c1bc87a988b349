"""What a PyTorch step does to all weights at once: one pass over memory."""

import contextlib
import functools

import numpy as np
import torch
from keras.src.backend.torch.optimizers.torch_adam import Adam

from keras_flows.training.steps import inner_optimizer


def is_plain(tensors):
    """Whether tensors are whole ones of one device: no `DTensor` among them."""
    return len({x.device for x in tensors}) == 1 and not any(
        hasattr(x, "full_tensor") for x in tensors
    )


def gradient_norm(gradients, scale=None):
    """`steps.global_norm`, by one kernel where the gradients are whole."""
    gradients = [g.to(torch.float32) for g in gradients]
    if scale is not None:
        gradients = torch._foreach_div(gradients, scale)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def move_averages(averages, values, rate):
    """average + rate (value - average), in place, of lists of tensors."""
    values = [v.to(a.dtype) for a, v in zip(averages, values, strict=True)]
    if averages[0].device.type == "cpu":
        torch._foreach_lerp_(averages, values, float(rate))
        return
    # The rate is on the device, and the host does not wait for it.
    steps = torch._foreach_sub(values, averages)
    torch._foreach_mul_(steps, rate)
    torch._foreach_add_(averages, steps)


@contextlib.contextmanager
def fused(optimizer):
    """Within, a Keras Adam or AdamW on a CPU takes its step in one pass.

    The formula and the slots are Keras's, so that checkpoints fit; PyTorch's
    kernel has another place for epsilon, which is scaled to agree. On a GPU
    Keras's own step stays, since the host does not know the number of steps.
    """
    optimizer = inner_optimizer(optimizer)
    step = getattr(type(optimizer), "_parallel_update_step", None)
    if step is not Adam._parallel_update_step:
        yield
        return
    optimizer.__dict__["_parallel_update_step"] = functools.partial(
        _adam_step, optimizer
    )
    try:
        yield
    finally:
        del optimizer.__dict__["_parallel_update_step"]


def _adam_step(optimizer, gradients, variables, learning_rate):
    values = [v.value for v in variables]
    tensors = [*values, *gradients]
    indices = [optimizer._get_variable_index(v) for v in variables]

    def slots(of):
        return [of[i].value for i in indices]

    if (
        {x.dtype for x in tensors} != {torch.float32}
        or not is_plain(tensors)
        or values[0].device.type != "cpu"
        or not all(
            x.is_contiguous()
            for x in [
                *values,
                *slots(optimizer._momentums),
                *slots(optimizer._velocities),
            ]
        )
    ):
        Adam._parallel_update_step(
            optimizer, gradients, variables, learning_rate
        )
        return
    # The kernel walks memory, whatever the strides: those of a convolution's
    # gradient are not its kernel's.
    gradients = [g.contiguous() for g in gradients]
    step = int(optimizer.iterations) + 1
    betas = np.array([optimizer.beta_1, optimizer.beta_2])
    # As Keras has it, in float32; then as PyTorch's kernel takes it apart.
    first, second = 1.0 - betas.astype("float32") ** np.float32(step)
    alpha = np.float32(float(learning_rate)) * np.sqrt(second) / first
    exact_first, exact_second = 1.0 - betas**step
    torch._fused_adam_(
        values,
        gradients,
        slots(optimizer._momentums),
        slots(optimizer._velocities),
        slots(optimizer._velocity_hats) if optimizer.amsgrad else [],
        [torch.tensor(float(step))] * len(values),
        lr=float(alpha * exact_first / np.sqrt(exact_second)),
        beta1=optimizer.beta_1,
        beta2=optimizer.beta_2,
        weight_decay=0.0,
        eps=float(optimizer.epsilon / np.sqrt(exact_second)),
        amsgrad=optimizer.amsgrad,
        maximize=False,
    )
