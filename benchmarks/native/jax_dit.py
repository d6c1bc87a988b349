"""`kf.networks.DiT` in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

PATCH = 2


def positions(side, width):
    """The table of MAE: the column's half first, (side^2, width)."""
    frequencies = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    row, column = np.divmod(np.arange(side * side), side)
    angles = [p[:, None] * frequencies for p in (column, row)]
    return np.concatenate(
        [f(a) for a in angles for f in (np.sin, np.cos)], 1
    ).astype("float32")


def dense(weights, name, x):
    """A product of rank 2, for which XLA on a CPU has its fastest kernel."""
    kernel = weights[f"{name}/kernel"]
    y = x.reshape(-1, x.shape[-1]) @ kernel + weights[f"{name}/bias"]
    return y.reshape(*x.shape[:-1], kernel.shape[1])


def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def attention(weights, name, x, heads):
    batch, tokens, width = x.shape
    qkv = dense(weights, f"{name}/qkv", x)
    qkv = qkv.reshape(batch, tokens, 3, heads, width // heads)
    q, k, v = (qkv[:, :, i] for i in range(3))
    y = jax.nn.dot_product_attention(q, k, v)
    return dense(weights, f"{name}/out", y.reshape(batch, tokens, width))


def block(weights, name, x, c, heads):
    m = dense(weights, f"{name}/modulation", jax.nn.silu(c))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(m, 6, -1)
    h = norm(x) * (1 + scale1) + shift1
    x = x + gate1 * attention(weights, f"{name}/attention", h, heads)
    h = norm(x) * (1 + scale2) + shift2
    h = jax.nn.gelu(dense(weights, f"{name}/mlp_in", h), approximate=True)
    return x + gate2 * dense(weights, f"{name}/mlp_out", h)


def velocity(weights, x, t, labels):
    """(B, S, S, C), (B,), (B,) -> (B, S, S, C)."""
    batch, side, _, channels = x.shape
    width = weights["patch_embedding/kernel"].shape[1]
    rows = side // PATCH
    angles = t[:, None] * np.exp(-np.log(10_000) * np.arange(128) / 128).astype(
        "float32"
    )
    c = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], 1)
    c = jax.nn.silu(dense(weights, "t_embedding/hidden", c))
    c = dense(weights, "t_embedding/out", c)
    c = c + weights["label_embedding/embeddings"][labels]
    x = x.reshape(batch, rows, PATCH, rows, PATCH, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * rows, -1)
    x = dense(weights, "patch_embedding", x) + positions(rows, width)
    depth = sum(k.endswith("mlp_in/kernel") for k in weights)
    for i in range(depth):
        x = block(weights, f"block_{i}", x, c, width // 64 or 1)
    m = dense(weights, "final/modulation", jax.nn.silu(c))[:, None]
    shift, scale = jnp.split(m, 2, -1)
    x = dense(weights, "final/out", norm(x) * (1 + scale) + shift)
    x = x.reshape(batch, rows, rows, PATCH, PATCH, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side, side, channels)


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None, None, None]
    x = (1 - time) * data + time * noise
    error = velocity(weights, x, t, labels) - (noise - data)
    return jnp.mean(jnp.square(error))
