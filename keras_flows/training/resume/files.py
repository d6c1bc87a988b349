"""Checkpoints as folders: whole or not there, and checked when read.

    folder/step_00001200/state.npz      the variables' values
                         <others>       what the data needs, see `feeds`
                         meta.json      names, counters, SHA-256 of the files

A folder is written beside, brought to the disk and renamed; a reader takes
one only if every file has the digest that meta.json names.
"""

import hashlib
import json
import pathlib
import shutil
import warnings

import numpy as np

from keras_flows.ops.files import remove
from keras_flows.ops.files import replacing

FORMAT = 1
PREFIX = "step_"


def sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def name_of(step):
    """Name of the folder of the checkpoint after so many steps."""
    return f"{PREFIX}{step:08d}"


def write(folder, step, arrays, meta, others=()):
    """Write one checkpoint.

    Args:
        folder: of all checkpoints of a run.
        step: number of training steps done.
        arrays: {key: NumPy array}, of any dtype that Keras has.
        meta: JSON values.
        others: functions that write a file of their own into a folder.

    Returns:
        The checkpoint's `pathlib.Path`.

    Raises:
        OSError: if the disk is full or the folder cannot be written; what
            was there is then as it was.
    """
    target = pathlib.Path(folder) / name_of(step)
    with replacing(target) as temporary:
        temporary.mkdir()
        kinds = {key: value.dtype.name for key, value in arrays.items()}
        with open(temporary / "state.npz", "wb") as file:
            np.savez(file, **{k: _plain(v) for k, v in arrays.items()})
        for other in others:
            other(temporary)
        files = {
            str(path.relative_to(temporary)): sha256(path)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        content = {
            "format": FORMAT, "step": step, "files": files, "dtypes": kinds,
            **meta,
        }  # fmt: skip
        text = json.dumps(content, indent=1)
        digest = hashlib.sha256(text.encode()).hexdigest()
        (temporary / "meta.json").write_text(f"{digest}\n{text}\n")
    return target


def _plain(array):
    """As a dtype that .npy files have: bfloat16 and float8 go as bits."""
    if array.dtype.kind != "V" and array.dtype.isbuiltin == 1:
        return array
    return array.view(f"uint{8 * array.dtype.itemsize}")


def _typed(array, name):
    if array.dtype.name == name:
        return array
    import ml_dtypes

    return array.view(np.dtype(getattr(ml_dtypes, name)))


def check(path):
    """The meta of a checkpoint.

    Raises:
        ValueError: if it is not whole, with what is wrong.
    """
    path = pathlib.Path(path)
    try:
        digest, text = (path / "meta.json").read_text().split("\n", 1)
    except (OSError, ValueError) as error:
        raise ValueError(f"meta.json cannot be read ({error})") from error
    text = text.removesuffix("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError("meta.json is damaged")
    meta = json.loads(text)
    if meta["format"] != FORMAT:
        raise ValueError(
            f"its format is {meta['format']}, this version reads {FORMAT}"
        )
    for name, expected in meta["files"].items():
        try:
            found = sha256(path / name)
        except OSError as error:
            raise ValueError(f"{name} cannot be read ({error})") from error
        if found != expected:
            raise ValueError(f"{name} is damaged")
    return meta


def read(path, meta):
    """The arrays of a checkpoint that was checked."""
    with np.load(pathlib.Path(path) / "state.npz") as content:
        return {
            key: _typed(content[key], name)
            for key, name in meta["dtypes"].items()
        }


def saved(folder):
    """Paths of the checkpoints in a folder, the newest first."""
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        return []
    return sorted(folder.glob(f"{PREFIX}[0-9]*"), reverse=True)


def intact(folder):
    """({step: meta} of the whole checkpoints, what is wrong with others)."""
    found, faults = {}, []
    for path in saved(folder):
        try:
            meta = check(path)
        except ValueError as error:
            faults.append(f"{path.name}: {error}")
        else:
            found[meta["step"]] = meta
    return found, faults


def newest(folder, agree=sorted):
    """(path, meta) of the newest whole checkpoint, or (None, None).

    Each that is damaged is warned of.

    Args:
        folder: of the checkpoints.
        agree: function of the whole ones' steps to those that may be taken.

    Raises:
        ValueError: if there are checkpoints, and none can be taken.
    """
    return chosen(folder, *intact(folder), agree)


def chosen(folder, found, faults, agree=sorted):
    """`newest` of a folder that was looked through by `intact`."""
    steps = agree(found)
    if not steps:
        if found or faults:
            raise ValueError(
                f"None of the {len(found) + len(faults)} checkpoints in "
                f"{folder} is whole, or common to all processes: "
                f"{'; '.join(faults) or sorted(found)}. Remove the folder to "
                "start anew, or name another."
            )
        return None, None
    path = pathlib.Path(folder) / name_of(max(steps))
    for fault in faults:
        warnings.warn(
            f"A checkpoint in {folder} is not whole, {fault}. {path.name} is "
            "taken.",
            stacklevel=2,
        )
    return path, found[max(steps)]


def tidy(folder, keep, kept=()):
    """Remove all but the newest `keep`, and those whose names are kept.

    Also what a killed process left behind.
    """
    folder = pathlib.Path(folder)
    for path in saved(folder)[keep:]:
        if path.name not in kept:
            remove(path)
    for path in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
