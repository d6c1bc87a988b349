"""The loop of a JAX user: a jitted step, Adam, a key that is split."""

import functools

import jax
import jax.numpy as jnp


def trainer(loss, weights, trained, seed=0, learning_rate=1e-3):
    """A function from a batch to the loss of a step of Adam.

    Args:
        loss: function (weights, data, labels, noise, t) to a scalar.
        weights: {path: array}.
        trained: the paths that Adam moves.
        seed: int, of noise and times.
        learning_rate: Adam's.
    """
    fixed = {k: jnp.asarray(v) for k, v in weights.items() if k not in trained}
    moving = {k: jnp.asarray(weights[k]) for k in trained}
    zeros = [jax.tree.map(jnp.zeros_like, moving) for _ in range(2)]
    state = moving, *zeros, jnp.zeros((), "int32"), jax.random.key(seed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, data, labels):
        moving, first, second, count, key = state
        key, for_noise, for_time = jax.random.split(key, 3)
        noise = jax.random.normal(for_noise, data.shape)
        t = jax.nn.sigmoid(jax.random.normal(for_time, data.shape[:1]))
        value, grads = jax.value_and_grad(
            lambda moving: loss({**fixed, **moving}, data, labels, noise, t)
        )(moving)
        count = count + 1
        first = jax.tree.map(lambda m, g: m + 0.1 * (g - m), first, grads)
        second = jax.tree.map(
            lambda v, g: v + 0.001 * (g * g - v), second, grads
        )
        rate = learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        moving = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) + 1e-7),
            moving, first, second,
        )  # fmt: skip
        return (moving, first, second, count, key), value

    def run(data, labels=None):
        nonlocal state
        state, value = step(state, data, labels)
        return value

    return run


def compiled(velocity, weights):
    """The jitted velocity of (x, t, labels)."""
    weights = {k: jnp.asarray(v) for k, v in weights.items()}
    jitted = jax.jit(velocity)
    return lambda x, t, labels=None: jitted(weights, x, t, labels)
