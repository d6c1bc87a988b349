"""Weights in HDF5: looked over before anything is built, and loaded whole.

Keras goes through a model as it saves it and reads what it finds at the same
places: what the file has beside that is not seen, and an error at one of two
ways to a layer is forgotten. Here the arrays of the file must be those that
the model would save.
"""

import collections
import math
import warnings

import h5py
import keras
import numpy as np
from keras.src.saving import saving_lib

from keras_flows.presets.limits import beyond
from keras_flows.presets.limits import limits

_KINDS = {"f": "f", "i": "i", "u": "i", "b": "b"}
_NAMES = {"f": "float", "i": "int", "b": "bool"}
# Bytes of HDF5's records of one group or array, and more.
_HEADER = 1024
# Most places that an error names.
_NAMED = 3

Array = collections.namedtuple("Array", ["shape", "kind", "itemsize"])


def arrays(files):
    """{path: Array} of all that files of weights hold; nothing is read.

    Raises:
        ValueError: if an array is no numbers that lie in the file as they
            are: links, external and virtual storage, compression and shapes
            beyond the file's size are refused, each by name.
        OSError: if a file is not HDF5, or truncated.
    """
    found = {}
    for path in files:
        if path.suffix != ".h5":
            continue
        try:
            with h5py.File(path) as file:
                root = h5py.h5o.get_info(file.id).addr
                own = dict(_walk(file, "", path, {root}))
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise OSError(
                f"{path} cannot be read: truncated, damaged, or not HDF5 "
                f"({_line(error)})."
            ) from error
        declared = sum(math.prod(a.shape) * a.itemsize for a in own.values())
        if declared > path.stat().st_size:
            raise _refused(
                path,
                "",
                f"declares {declared:,} bytes, and the file has "
                f"{path.stat().st_size:,}",
            )
        twice = set(own) & set(found)
        if twice:
            raise _refused(path, min(twice), "is in another shard, too")
        found.update(own)
    return found


def _walk(group, place, path, seen):
    for name in group:
        inside = f"{place}/{name}".lstrip("/")
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = type(link).__name__
            words = {"ExternalLink": "an external link, to another file"}
            raise _refused(path, inside, f"is {words.get(kind, 'a soft link')}")
        item = group[name]
        where = h5py.h5o.get_info(item.id).addr
        if where in seen:
            raise _refused(path, inside, "is linked a second time")
        seen.add(where)
        if isinstance(item, h5py.Group):
            yield from _walk(item, inside, path, seen)
        elif isinstance(item, h5py.Dataset):
            yield inside, _array(item, inside, path)
        else:
            raise _refused(path, inside, "is no array")


def _array(item, place, path):
    if item.external:
        raise _refused(path, place, "is external: it lies in another file")
    if item.is_virtual:
        raise _refused(path, place, "is virtual: it lies in another file")
    kind, size = _KINDS.get(item.dtype.kind), item.dtype.itemsize
    if item.dtype.kind == "V" and size == 2:
        # How Keras writes bfloat16; it says so beside.
        kind = "f" if item.attrs.get("dtype") == "bfloat16" else None
    if kind is None or item.shape is None:
        raise _refused(path, place, f"is no numbers, but {item.dtype}")
    declared = math.prod(item.shape) * size
    if declared > limits().array_bytes:
        raise _refused(
            path,
            place,
            f"has the shape {item.shape}, {declared:,} bytes",
            beyond("array_bytes"),
        )
    if item.chunks is not None or item.id.get_storage_size() != declared:
        stored = item.id.get_storage_size()
        raise _refused(
            path,
            place,
            f"has the shape {item.shape}, {declared:,} bytes, of which "
            f"{stored:,} are stored: weights lie in a preset uncompressed "
            "and in full",
        )
    return Array(tuple(item.shape), kind, size)


def _refused(path, place, what, more="Save the preset anew."):
    where = f"its array {place!r} " if place else "it "
    return ValueError(f"{path} is refused: {where}{what}. {more}")


class _Layout(saving_lib.H5IOStore):
    """What a model saves: {path: Array}, and no file.

    Attributes:
        found: {path: Array}.
        names: {path: the variable's own path}, of those that have one.
        places: layers and other holders, those without arrays included.
    """

    def __init__(self):
        self.found, self.names = {}, {}
        self.place, self.places = "", 0

    def __bool__(self):
        return True

    def make(self, path, metadata=None):
        self.place = f"{path}/vars".lstrip("/")
        self.places += 1
        return self

    def __setitem__(self, key, value):
        dtype = getattr(value, "dtype", None) or np.asarray(value).dtype
        # A backend has names of its own, such as torch.float32.
        dtype = keras.backend.standardize_dtype(dtype)
        if dtype == "bfloat16":
            array = Array(tuple(value.shape), "f", 2)
        else:
            dtype = np.dtype(dtype)
            array = Array(
                tuple(np.shape(value)), _KINDS[dtype.kind], dtype.itemsize
            )
        place = f"{self.place}/{key}"
        self.found[place] = array
        self.names[place] = getattr(value, "path", place)


def _laid_out(model):
    layout = _Layout()
    with warnings.catch_warnings():
        # PyTorch's way to NumPy, of which nothing is used here.
        warnings.simplefilter("ignore", DeprecationWarning)
        saving_lib._save_state(model, layout, None, "", set())
    return layout


def needed(model):
    """Bytes of a model's weights on the disk, at most."""
    layout = _laid_out(model)
    size = sum(math.prod(a.shape) * a.itemsize for a in layout.found.values())
    return size + _HEADER * (2 * layout.places + len(layout.found) + 8)


def fit(model, saved, narrower):
    """Raise a ValueError unless arrays are those that a model saves.

    An optimizer's state, which a compiled model saves, is passed over.

    Args:
        model: built, and not compiled.
        saved: of `arrays`.
        narrower: whether numbers may be wider in the file.
    """
    if not model.built:
        raise ValueError(
            "it is not built, and has no weights yet: build it where it is "
            "made."
        )
    layout = _laid_out(model)
    wrong, absent = [], []
    for place, array in layout.found.items():
        name, found = layout.names[place], saved.get(place)
        wide = narrower or found is None or found.itemsize <= array.itemsize
        if found is None:
            absent.append(f"{name} is not in the file (as {place})")
        elif found.shape != array.shape:
            wrong.append(
                f"{name} has the shape {array.shape}, and the file holds "
                f"{found.shape}"
            )
        elif found.kind != array.kind or (array.kind == "f" and not wide):
            wrong.append(
                f"{name} is of {_type(array)}, and the file holds "
                f"{_type(found)}"
            )
    wrong += absent
    wrong += [
        f"{place} is in the file, and the model has no such weight"
        for place in saved
        if place not in layout.found and not _passed_over(place)
    ]
    if wrong:
        shown = "; ".join(wrong[:_NAMED])
        more = len(wrong) - _NAMED
        raise ValueError(f"{shown}{f'; and {more} more' if more > 0 else ''}.")


def _type(array):
    return f"{_NAMES[array.kind]}{8 * array.itemsize}"


def _passed_over(place):
    parts = place.split("/")
    # Older presets have the state of some that are gone.
    if parts[-1].endswith("seed_generator"):
        return True
    return any(part.endswith("optimizer") for part in parts)


def load(model, path):
    """Read the weights of a file, or of an index of shards, into a model.

    The first error is raised: `load_weights` collects them, and drops those
    of what it reaches a second time.
    """
    sharded = path.suffix == ".json"
    kind = saving_lib.ShardedH5IOStore if sharded else saving_lib.H5IOStore
    store = kind(path, mode="r")
    try:
        saving_lib._load_state(model, store, None, "", False, set())
    finally:
        store.close()


def _line(error):
    return (str(error) or type(error).__name__).partition("\n")[0]
