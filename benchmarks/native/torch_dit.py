"""`kf.networks.DiT` in PyTorch, of the kernels that a published SiT calls."""

import math

import numpy as np
import torch
from torch.nn import functional

PATCH = 2


def positions(side, width):
    """The table of MAE: the column's half first, (side^2, width)."""
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(side * side), side)
    angles = [p[:, None] * frequencies for p in (column, row)]
    table = [f(a) for a in angles for f in (np.sin, np.cos)]
    return torch.tensor(np.concatenate(table, 1).astype("float32"))


def dense(weights, name, x):
    return functional.linear(
        x, weights[f"{name}/kernel"].T, weights[f"{name}/bias"]
    )


def norm(x):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def attention(weights, name, x, heads):
    batch, tokens, width = x.shape
    qkv = dense(weights, f"{name}/qkv", x)
    qkv = qkv.reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    y = functional.scaled_dot_product_attention(q, k, v)
    y = y.transpose(1, 2).reshape(batch, tokens, width)
    return dense(weights, f"{name}/out", y)


def block(weights, name, x, c, heads):
    m = dense(weights, f"{name}/modulation", functional.silu(c))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = m.chunk(6, -1)
    h = norm(x) * (1 + scale1) + shift1
    x = x + gate1 * attention(weights, f"{name}/attention", h, heads)
    h = norm(x) * (1 + scale2) + shift2
    h = dense(weights, f"{name}/mlp_in", h)
    h = functional.gelu(h, approximate="tanh")
    return x + gate2 * dense(weights, f"{name}/mlp_out", h)


def velocity(weights, x, t, labels):
    """(B, S, S, C), (B,), (B,) -> (B, S, S, C)."""
    batch, side, _, channels = x.shape
    width = weights["patch_embedding/kernel"].shape[1]
    rows = side // PATCH
    angles = t[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    c = torch.cat([torch.cos(angles), torch.sin(angles)], 1)
    c = functional.silu(dense(weights, "t_embedding/hidden", c))
    c = dense(weights, "t_embedding/out", c)
    c = c + functional.embedding(labels, weights["label_embedding/embeddings"])
    x = x.reshape(batch, rows, PATCH, rows, PATCH, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch, rows * rows, -1)
    x = dense(weights, "patch_embedding", x) + positions(rows, width)
    depth = sum(k.endswith("mlp_in/kernel") for k in weights)
    for i in range(depth):
        x = block(weights, f"block_{i}", x, c, width // 64 or 1)
    m = dense(weights, "final/modulation", functional.silu(c))[:, None]
    shift, scale = m.chunk(2, -1)
    x = dense(weights, "final/out", norm(x) * (1 + scale) + shift)
    x = x.reshape(batch, rows, rows, PATCH, PATCH, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(batch, side, side, channels)


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None, None, None]
    x = (1 - time) * data + time * noise
    error = velocity(weights, x, t, labels) - (noise - data)
    return torch.mean(torch.square(error))
