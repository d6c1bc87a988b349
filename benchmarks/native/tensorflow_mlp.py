"""`kf.networks.MLP` in TensorFlow."""

import numpy as np
import tensorflow as tf

FREQUENCIES = np.geomspace(1.0, 8.0, 4).astype("float32")


def velocity(weights, x, t, labels=None):
    """(B, d), (B,) -> (B, d)."""
    turned = x @ weights["fourier/directions"]
    angles = t[:, None] * FREQUENCIES
    h = tf.concat(
        [x, tf.sin(turned), tf.cos(turned),
         t[:, None], tf.sin(angles), tf.cos(angles)],
        axis=1,
    )  # fmt: skip
    depth = sum(name.endswith("kernel") for name in weights) - 1
    for i in range(depth):
        h = tf.nn.silu(
            h @ weights[f"hidden_{i}/kernel"] + weights[f"hidden_{i}/bias"]
        )
    return h @ weights["output/kernel"] + weights["output/bias"]


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None]
    x = (1 - time) * data + time * noise
    error = velocity(weights, x, t) - (noise - data)
    return tf.reduce_mean(tf.square(error))
