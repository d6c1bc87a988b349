"""`kf.networks.DiT` in TensorFlow."""

import numpy as np
import tensorflow as tf

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
    y = tf.reshape(x, (-1, x.shape[-1])) @ kernel + weights[f"{name}/bias"]
    return tf.reshape(y, (-1, *x.shape[1:-1], kernel.shape[1]))


def norm(x):
    x = x - tf.reduce_mean(x, -1, keepdims=True)
    return x * tf.math.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)


def attention(weights, name, x, heads):
    _, tokens, width = x.shape
    qkv = dense(weights, f"{name}/qkv", x)
    qkv = tf.reshape(qkv, (-1, tokens, 3, heads, width // heads))
    q, k, v = (tf.transpose(qkv[:, :, i], (0, 2, 1, 3)) for i in range(3))
    logits = tf.matmul(q, k, transpose_b=True) * (width // heads) ** -0.5
    y = tf.transpose(tf.nn.softmax(logits) @ v, (0, 2, 1, 3))
    return dense(weights, f"{name}/out", tf.reshape(y, (-1, tokens, width)))


def block(weights, name, x, c, heads):
    m = dense(weights, f"{name}/modulation", tf.nn.silu(c))[:, None]
    shift1, scale1, gate1, shift2, scale2, gate2 = tf.split(m, 6, -1)
    h = norm(x) * (1 + scale1) + shift1
    x = x + gate1 * attention(weights, f"{name}/attention", h, heads)
    h = norm(x) * (1 + scale2) + shift2
    h = tf.nn.gelu(dense(weights, f"{name}/mlp_in", h), approximate=True)
    return x + gate2 * dense(weights, f"{name}/mlp_out", h)


def velocity(weights, x, t, labels):
    """(B, S, S, C), (B,), (B,) -> (B, S, S, C)."""
    _, side, _, channels = x.shape
    width = weights["patch_embedding/kernel"].shape[1]
    rows = side // PATCH
    angles = t[:, None] * np.exp(-np.log(10_000) * np.arange(128) / 128).astype(
        "float32"
    )
    c = tf.concat([tf.cos(angles), tf.sin(angles)], 1)
    c = tf.nn.silu(dense(weights, "t_embedding/hidden", c))
    c = dense(weights, "t_embedding/out", c)
    c = c + tf.gather(weights["label_embedding/embeddings"], labels)
    x = tf.reshape(x, (-1, rows, PATCH, rows, PATCH, channels))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    x = tf.reshape(x, (-1, rows * rows, PATCH * PATCH * channels))
    x = dense(weights, "patch_embedding", x) + positions(rows, width)
    depth = sum(k.endswith("mlp_in/kernel") for k in weights)
    for i in range(depth):
        x = block(weights, f"block_{i}", x, c, width // 64 or 1)
    m = dense(weights, "final/modulation", tf.nn.silu(c))[:, None]
    shift, scale = tf.split(m, 2, -1)
    x = dense(weights, "final/out", norm(x) * (1 + scale) + shift)
    x = tf.reshape(x, (-1, rows, rows, PATCH, PATCH, channels))
    x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
    return tf.reshape(x, (-1, side, side, channels))


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None, None, None]
    x = (1 - time) * data + time * noise
    error = velocity(weights, x, t, labels) - (noise - data)
    return tf.reduce_mean(tf.square(error))
