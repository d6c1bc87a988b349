"""The loop of a TensorFlow user: a tf.function with a tape, under XLA."""

import numpy as np
import tensorflow as tf


def trainer(loss, weights, trained, seed=0, learning_rate=1e-3):
    """A function from a batch to the loss of a step of Adam.

    Args: as of `jax_training.trainer`.
    """
    fixed = {k: tf.constant(v) for k, v in weights.items() if k not in trained}
    moving = {k: tf.Variable(weights[k]) for k in trained}
    first, second = (
        {k: tf.Variable(np.zeros_like(weights[k])) for k in trained}
        for _ in range(2)
    )
    count = tf.Variable(0)
    drawn = tf.Variable([seed, 0])

    @tf.function(jit_compile=True)
    def step(data, labels):
        seeds = [drawn + [0, i] for i in range(2)]
        drawn.assign_add([0, 2])
        noise = tf.random.stateless_normal(tf.shape(data), seeds[0])
        t = tf.sigmoid(tf.random.stateless_normal(tf.shape(data)[:1], seeds[1]))
        with tf.GradientTape() as tape:
            value = loss({**fixed, **moving}, data, labels, noise, t)
        grads = tape.gradient(value, moving)
        n = tf.cast(count.assign_add(1), tf.float32)
        rate = learning_rate * tf.sqrt(1 - 0.999**n) / (1 - 0.9**n)
        for k, g in grads.items():
            g = tf.convert_to_tensor(g)
            m = first[k].assign_add(0.1 * (g - first[k]))
            v = second[k].assign_add(0.001 * (g * g - second[k]))
            moving[k].assign_sub(rate * m / (tf.sqrt(v) + 1e-7))
        return value

    def run(data, labels=None):
        labels = None if labels is None else tf.convert_to_tensor(labels)
        return step(tf.convert_to_tensor(data), labels)

    return run


def compiled(velocity, weights):
    """The compiled velocity of (x, t, labels)."""
    weights = {k: tf.constant(v) for k, v in weights.items()}
    jitted = tf.function(
        lambda x, t, labels: velocity(weights, x, t, labels), jit_compile=True
    )

    def run(x, t, labels=None):
        x, t = tf.convert_to_tensor(x), tf.convert_to_tensor(t)
        return jitted(x, t, labels)

    return run
