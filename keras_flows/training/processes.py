"""Several processes that train one model: who this is, and how they meet."""

import contextlib

import keras
import numpy as np


def place():
    """(number of this process, number of processes)."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.process_index(), jax.process_count()
    if backend == "torch":
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def folded(seed, rank):
    """The seed of a process from the first one's, which keeps its own."""
    if rank == 0:
        return int(seed)
    sequence = np.random.SeedSequence([int(seed) & 0xFFFFFFFF, rank])
    return int(sequence.generate_state(1)[0] >> 1)


@contextlib.contextmanager
def together(model):
    """Within, the processes of PyTorch that train `model` wait for each other.

    XLA and `tf.distribute` see to that themselves.
    """
    if keras.backend.backend() != "torch" or place()[1] == 1:
        yield
        return
    from keras_flows.training import ranks

    with ranks.together(model):
        yield


@contextlib.contextmanager
def alone(model):
    """Within, `evaluate` is of this process, even where `together`."""
    if keras.backend.backend() != "torch" or place()[1] == 1:
        yield
        return
    from keras_flows.training import ranks

    with ranks.alone(model):
        yield


def check_equal_steps(steps):
    """Every process must have as many batches in an epoch; None: not known.

    Raises:
        ValueError: on every process, with the numbers.
    """
    if keras.backend.backend() == "torch" and place()[1] > 1:
        from keras_flows.training import ranks

        ranks.check_equal_steps(steps)


def on_any(*flags):
    """For each flag whether it is true on any process; each must ask."""
    _, count = place()
    if count == 1:
        return [bool(flag) for flag in flags]
    if keras.backend.backend() == "torch":
        from keras_flows.training import ranks

        return ranks.on_any(*flags)
    from jax.experimental import multihost_utils

    everyones = multihost_utils.process_allgather(np.array(flags, bool))
    return everyones.any(axis=0).tolist()


def gathered(numbers):
    """The integers from 0 on that each process has, a list for each."""
    _, count = place()
    if count == 1:
        return [list(numbers)]
    if keras.backend.backend() == "torch":
        from keras_flows.training import ranks

        return ranks.gathered(numbers)
    from jax.experimental import multihost_utils

    lengths = multihost_utils.process_allgather(np.array(len(numbers)))
    padded = np.full(int(np.max(lengths)), -1)
    padded[: len(numbers)] = numbers
    everyones = multihost_utils.process_allgather(padded).tolist()
    return [[n for n in one if n >= 0] for one in everyones]
