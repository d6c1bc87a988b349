"""Seeds that differ where they must: generators, replicas, ranks."""

import random

import keras
import numpy as np

from keras_flows.ops import register
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked


@register
class SeedGenerator(keras.random.SeedGenerator):
    """A `keras.random.SeedGenerator` that differs on every TF replica.

    Under a `tf.distribute` strategy Keras's own gives each replica the same
    noise, which halves the effective batch without a word.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        if keras.backend.backend() != "tensorflow":
            return seed
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return seed
        offset = 1000003 * context.replica_id_in_sync_group
        return seed + tf.cast(tf.stack([offset, 0]), seed.dtype)


@checked(seed=SEED, count=SIZE)
def spread_seeds(seed, count):
    """`count` far-apart int seeds from one.

    From None, random ones of Python's generator, as Keras's own are, which
    `keras.utils.set_random_seed` seeds. Keras seeds PyTorch by seed + counter,
    so neighbouring seeds would repeat each other's draws.
    """
    if seed is None:
        seed = random.getrandbits(64)
    sequence = np.random.SeedSequence(seed)
    return [int(s) for s in sequence.generate_state(count) >> 1]
