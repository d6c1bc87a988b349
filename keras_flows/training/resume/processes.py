"""Checkpoints of several processes: each keeps a checkpoint of its own.

The position in the data is each process's own, so every process writes all
that it has, in a folder of its own; where a run goes on, they agree on the
newest step that all of them have. Weights, averages and optimizer are the same
in each: a run goes on with another number of processes from the first one's.
"""

import pathlib

import keras
import numpy as np

from keras_flows.training.processes import gathered
from keras_flows.training.processes import place
from keras_flows.training.resume import files


def folder_of(directory):
    """Where this process keeps its checkpoints."""
    rank, count = place()
    return directory if count == 1 else directory / f"process_{rank}"


def newest(directory):
    """(path, meta) of what a run goes on from, or (None, None).

    Raises:
        ValueError: see `files.newest`; and if one process does not see what
            another goes on from.
    """
    _, count = place()
    own = folder_of(directory)
    intact = _intact(directory, own)

    def agreed(found):
        steps = [step for step, meta in found.items() if _here(meta)]
        common = set.intersection(*map(set, gathered(steps)))
        return sorted(common, reverse=True)

    path, meta = _last(intact)
    others = meta is not None and not _here(meta)
    seen = {one[0] for one in gathered([meta["step"] + 1 if others else 0])}
    if len(seen) > 1:
        raise ValueError(
            f"`directory` {directory} holds a run of another number of "
            f"processes, which not all of the {count} see, or not the same "
            "of it. Let it be on a disk that all share."
        )
    return (path, meta) if others else files.chosen(own, *intact[own], agreed)


def newest_of_any(directory):
    """The newest checkpoint, of one process or of the first of several.

    Raises:
        ValueError: if there are some, and none is whole.
    """
    intact = _intact(directory, folder_of(directory))
    path, meta = _last(intact)
    if meta is None:
        for folder, found in intact.items():
            files.chosen(folder, *found)
    return path, meta


def named(directory, step):
    """Path of the checkpoint after so many steps, wherever it is."""
    name = files.name_of(step)
    for folder in (directory, directory / "process_0"):
        if (folder / name).is_dir():
            return folder / name
    return directory / name


def _intact(directory, own):
    """{folder: (whole checkpoints, faults)} of where a run may be."""
    folders = (directory, directory / "process_0", own)
    return {f: files.intact(f) for f in dict.fromkeys(folders)}


def _last(intact):
    """(path, meta) of the newest whole one in all folders."""
    found = [
        (step, str(folder / files.name_of(step)), meta)
        for folder, (metas, _) in intact.items()
        for step, meta in metas.items()
    ]
    if not found:
        return None, None
    _, path, meta = max(found, key=lambda one: one[:2])
    return pathlib.Path(path), meta


def _here(meta):
    """Whether a checkpoint is of as many processes as there are."""
    _, count = place()
    return meta.get("processes", count) == count


def whole(value):
    """A variable's value on the host, gathered where others have parts."""
    if hasattr(value, "full_tensor"):
        value = value.full_tensor()
    if getattr(value, "is_fully_addressable", True):
        if hasattr(value, "read_value"):
            # NumPy reads no number from a variable of TensorFlow's replicas.
            value = value.read_value()
        return np.array(keras.ops.convert_to_numpy(value))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value, tiled=True))


def put(variable, value):
    """Assign a whole value, of which this process may have a part."""
    if hasattr(variable.value, "full_tensor"):
        from keras_flows.training import fsdp

        value = fsdp.scattered(value, variable.value)
    variable.assign(value)
