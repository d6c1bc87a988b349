"""What PyTorch has one kernel for, and Keras calls several.

The kernels here have right derivatives of every order; the attention's are
replaced inside `jvp`, see `ops/torch_kernels.py`.
"""

import keras
from keras import ops


def _torch():
    return keras.backend.backend() == "torch"


def affine(x, kernel, bias):
    """x kernel + bias: (B, C), (C, D), (D,) -> (B, D), of one dtype."""
    if not _torch():
        return ops.add(ops.matmul(x, kernel), bias)
    import torch

    x, kernel, bias = map(ops.convert_to_tensor, (x, kernel, bias))
    same = x.dtype == kernel.dtype == bias.dtype and x.is_floating_point()
    # Which a CPU multiplies in float32, as Keras asks for.
    half = x.dtype == torch.float16 and x.device.type == "cpu"
    if not same or half or x.ndim != 2:
        return ops.add(ops.matmul(x, kernel), bias)
    return torch.addmm(bias, x, kernel)


def multiply_add(a, b, c):
    """a b + c of tensors that broadcast to the shape of the result."""
    if not _torch():
        return a * b + c
    import torch

    return torch.addcmul(c, a, b)


def dot_product_attention(q, k, v, mask, scale):
    """`keras.ops.dot_product_attention` without copies of q, k and v."""
    if not _torch():
        return ops.dot_product_attention(q, k, v, mask=mask, scale=scale)
    import torch

    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    y = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale
    )
    return y.transpose(1, 2)
