"""What is in a preset's folder, and whether all of it is there."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile

import h5py
import numpy as np

from keras_flows.ops.files import replacing
from keras_flows.presets.limits import beyond
from keras_flows.presets.limits import limits

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Sharded weights, as Keras writes them: an index and model_00000.weights.h5 ...
INDEX = "model.weights.json"
METADATA = "metadata.json"
CARD = "README.md"
CHECKSUMS = "sha256"
# What `save_to_preset` writes into metadata.json itself.
RESERVED = {
    "keras_version": str,
    "keras_flows_version": str,
    "parameter_count": int,
    "date_saved": str,
    "card": dict,
    CHECKSUMS: dict,
}
FILES = (CONFIG, METADATA, CARD, WEIGHTS, INDEX, "model_*.weights.h5")

_LARGEST_HALF = float(np.finfo("float16").max)
_SHARD = re.compile(r"model_\d+\.weights\.h5")
# Formats that others keep weights in; most of them are pickles.
_FOREIGN = (
    *(".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl"),
    *(".pt", ".pth", ".safetensors"),
)


def write_json(folder, name, content):
    """Write a dict as indented JSON."""
    text = json.dumps(content, indent=2, sort_keys=True)
    (folder / name).write_text(text + "\n")


# Without backtracking, whose record would be larger than the file.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"')


def read_json(path):
    """The dict of a JSON file.

    Raises:
        ValueError: if it is none, or beyond the limits of its size and depth.
    """
    if path.stat().st_size > limits().json_bytes:
        raise ValueError(
            f"{path} has {path.stat().st_size:,} bytes. {beyond('json_bytes')}"
        )
    data = path.read_bytes()
    depth = deepest = 0
    # Counted before: Python's reader gives up at a depth of its own.
    for bracket in re.findall(rb"[\[{\]}]", _TEXT.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    if deepest > limits().json_depth:
        raise ValueError(
            f"{path} is nested {deepest:,} deep. {beyond('json_depth')}"
        )
    try:
        content = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object.")
    return content


def read_config(folder):
    """The dict of a preset's config.json.

    Raises:
        ValueError: if it is missing, or no config of an object.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is no preset: it has no file {CONFIG}.")
    config = read_json(path)
    if "class_name" not in config or "config" not in config:
        raise ValueError(
            f"{path} must have the keys 'class_name' and 'config'. Found: "
            f"{', '.join(sorted(config)) or 'none'}."
        )
    return config


def read_metadata(folder):
    """The dict of a preset's metadata.json, empty where there is none.

    Raises:
        ValueError: if it is no JSON object, or what `save_to_preset` writes
            there is of another type.
    """
    path = folder / METADATA
    if not path.is_file():
        return {}
    metadata = read_json(path)
    for name, kind in RESERVED.items():
        found = metadata.get(name)
        if name not in metadata or type(found) is kind:
            continue
        raise ValueError(
            f"{path}: {name!r} must be of type {kind.__name__}. Found: "
            f"{found!r:.100}."
        )
    count = metadata.get("parameter_count", 0)
    if count < 0:
        raise ValueError(
            f"{path}: 'parameter_count' must be at least 0. Found: {count}."
        )
    return metadata


def reserve(folder, size):
    """Make sure that a folder's disk has room for so many bytes.

    HDF5 finds out as it closes its file, and takes the process with it.

    Raises:
        OSError: if it has not.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        elif shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def digest(path):
    """The SHA-256 of a file, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder):
    """{name: SHA-256} of the files that a model is loaded from.

    The card is for readers, who may edit it, and is not among them.
    """
    files = [folder / CONFIG, *weights_files(folder)[1]]
    return {path.name: digest(path) for path in files}


def check_files(folder, weights=True):
    """Hold the files to metadata.json, where that has their checksums.

    Presets that were saved without checksums are not checked.

    Args:
        folder: of the preset.
        weights: whether the weights are needed, and checked.

    Raises:
        ValueError: if a file is missing or was changed, or metadata.json is
            wrong.
    """
    read_config(folder)
    files = [folder / CONFIG]
    if weights:
        files += weights_files(folder)[1]
    saved = read_metadata(folder).get(CHECKSUMS)
    if saved is None:
        return
    names = {path.name for path in files}
    if not names <= set(saved) or (weights and set(saved) != names):
        raise ValueError(
            f"{folder / METADATA} has the checksums of "
            f"{', '.join(sorted(saved))}, and the preset the files "
            f"{', '.join(sorted(names))}."
        )
    for path in files:
        found = digest(path)
        if found != saved[path.name]:
            raise ValueError(
                f"{path} is damaged, or was changed after it was saved: its "
                f"SHA-256 is {found}, and {METADATA} has "
                f"{saved[path.name]!r:.80}. Download or save the preset again."
            )


def weights_files(folder):
    """(file that `load_weights` takes, all files of the weights).

    Raises:
        ValueError: if there are none, or shards are missing.
    """
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS, [folder / WEIGHTS]
    index = folder / INDEX
    if not index.is_file():
        foreign = sorted(
            p.name for p in folder.iterdir() if p.suffix.lower() in _FOREIGN
        )
        hint = ""
        if foreign:
            hint = (
                f" Found {', '.join(foreign)}: other formats, pickles above "
                "all, which run code as they load, are never read."
            )
        raise ValueError(
            f"Preset {folder} has no weights: neither {WEIGHTS} nor {INDEX} "
            f"is there.{hint}"
        )
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ValueError(
            f"{index} must have a 'weight_map', of places to shards."
        )
    names = set()
    for value in places.values():
        found = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in found):
            raise ValueError(
                f"{index} must name shards by strings. Found: {value!r:.100}."
            )
        names.update(found)
    for name in sorted(names):
        if not _SHARD.fullmatch(name) or not (folder / name).is_file():
            raise ValueError(
                f"{index} names the shard {name!r}, which is not a file "
                "model_<number>.weights.h5 beside it."
            )
    return index, [index, *(folder / name for name in sorted(names))]


def weights_size(folder):
    """Bytes of the weights."""
    return sum(path.stat().st_size for path in weights_files(folder)[1])


def halve(path):
    """Rewrite a file of weights with float16 in the place of float32.

    Raises:
        ValueError: if a weight is beyond what float16 holds.
    """

    def copy(name, item):
        if isinstance(item, h5py.Group):
            made = new.require_group(name)
        else:
            value = item[()]
            if value.dtype == "float32":
                if np.max(np.abs(value), initial=0.0) > _LARGEST_HALF:
                    raise ValueError(
                        f"`weights_dtype='float16'` holds numbers up to "
                        f"{_LARGEST_HALF:.0f}, and {name} has larger ones: "
                        "save without it."
                    )
                value = value.astype("float16")
            made = new.create_dataset(name, data=value)
        made.attrs.update(item.attrs)

    with replacing(path) as temporary:
        with h5py.File(path) as old, h5py.File(temporary, "w") as new:
            new.attrs.update(old.attrs)
            old.visititems(copy)
