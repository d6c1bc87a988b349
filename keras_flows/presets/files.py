"""What is in a preset's folder, and whether all of it is there."""

import json
import re

import h5py
import numpy as np

from keras_flows.ops.files import replacing

CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Sharded weights, as Keras writes them: an index and model_00000.weights.h5 ...
INDEX = "model.weights.json"
METADATA = "metadata.json"
CARD = "README.md"
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


def _read_json(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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
        raise ValueError(f"{folder} is no preset: it has no {CONFIG}.")
    config = _read_json(path)
    if "class_name" not in config or "config" not in config:
        raise ValueError(
            f"{path} must have the keys 'class_name' and 'config'. Found: "
            f"{', '.join(sorted(config)) or 'none'}."
        )
    return config


def read_metadata(folder):
    """The dict of a preset's metadata.json, empty where there is none."""
    path = folder / METADATA
    return _read_json(path) if path.is_file() else {}


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
    content = _read_json(index)
    names = set()
    for value in content.get("weight_map", {}).values():
        names.update([value] if isinstance(value, str) else value)
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


def saved_shapes(files):
    """{layer's name: list of the shapes of its variables, for each}."""
    found = {}

    def visit(_, group):
        name = group.attrs.get("name")
        if name is not None:
            shapes = [group[k].shape for k in sorted(group, key=_number)]
            found.setdefault(name, []).append(shapes)

    for path in files:
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                file.visititems(visit)
    return found


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


def _number(key):
    return (0, int(key), "") if key.isdigit() else (1, 0, key)


def check_preset(folder):
    """Raise a ValueError unless config and weights are there."""
    read_config(folder)
    weights_files(folder)
