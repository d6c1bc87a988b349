"""`kf.networks.MLP` in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

FREQUENCIES = np.geomspace(1.0, 8.0, 4).astype("float32")


def velocity(weights, x, t, labels=None):
    """(B, d), (B,) -> (B, d)."""
    turned = x @ weights["fourier/directions"]
    angles = t[:, None] * FREQUENCIES
    h = jnp.concatenate(
        [x, jnp.sin(turned), jnp.cos(turned),
         t[:, None], jnp.sin(angles), jnp.cos(angles)],
        axis=1,
    )  # fmt: skip
    depth = sum(name.endswith("kernel") for name in weights) - 1
    for i in range(depth):
        h = jax.nn.silu(
            h @ weights[f"hidden_{i}/kernel"] + weights[f"hidden_{i}/bias"]
        )
    return h @ weights["output/kernel"] + weights["output/bias"]


def loss(weights, data, labels, noise, t):
    """Mean of |velocity(x_t, t) - (noise - data)|^2 over all elements."""
    time = t[:, None]
    x = (1 - time) * data + time * noise
    return jnp.mean(jnp.square(velocity(weights, x, t) - (noise - data)))
