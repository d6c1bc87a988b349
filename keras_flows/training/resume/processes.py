"""Several processes that train one model: each keeps a checkpoint of its own.

Seeds and the position in the data are each process's own, so every process
writes all that it has, in a folder of its own; where a run goes on, they agree
on the newest step that all of them have.
"""

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


def common(steps):
    """The steps that every process has, the newest first.

    Args:
        steps: those that this one has.
    """
    _, count = place()
    if count == 1:
        return sorted(steps, reverse=True)
    if keras.backend.backend() == "torch":
        from torch import distributed

        everyones = [None] * count
        distributed.all_gather_object(everyones, list(steps))
    else:
        from jax.experimental import multihost_utils

        lengths = multihost_utils.process_allgather(np.array(len(steps)))
        padded = np.full(int(np.max(lengths)), -1)
        padded[: len(steps)] = steps
        everyones = multihost_utils.process_allgather(padded).tolist()
    found = set.intersection(*map(set, everyones)) - {-1}
    return sorted(found, reverse=True)


def whole(value):
    """A variable's value on the host, gathered where other hosts have parts."""
    if getattr(value, "is_fully_addressable", True):
        return np.array(keras.ops.convert_to_numpy(value))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value, tiled=True))
