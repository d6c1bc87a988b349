"""PyTorch's files, read without PyTorch and without running any code.

A file is a pickle that describes tensors, and the numbers beside it. A pickle
is a program for a small machine; here is one that builds numbers, strings,
containers and descriptions of tensors, and has no operation that imports or
calls what the file names. What else a file names is refused.

Source: torch/serialization.py and torch/_utils.py of PyTorch 2.13; CPython's
pickletools, which explains the operations.
"""

import collections
import io
import pickletools

import numpy as np

from keras_flows.presets import zips
from keras_flows.presets.stored import DTYPES
from keras_flows.presets.stored import Block
from keras_flows.presets.stored import Stored
from keras_flows.presets.stored import dtype_named
from keras_flows.presets.stored import quoted

# Of a pickle; the largest training checkpoints have some 200,000 operations.
_LARGEST = 1 << 26
_MOST_OPERATIONS = 1 << 21
EXPORT_PICKLE = (
    "It is a pickle, which runs any code that its author put in. Where you "
    "trust it, load it with its own code, in a sandbox, and save the weights "
    "alone: torch.save(network.state_dict(), 'weights.pt'), or for NVIDIA's "
    "files torch.save(pickle.load(file)['ema'].state_dict(), 'weights.pt')."
)
_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "Float": "F32", "Double": "F64", "Half": "F16", "BFloat16": "BF16",
    "Long": "I64", "Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8",
    "Bool": "BOOL",
}  # fmt: skip
# Classes whose objects are here nothing more than what they were made of.
_DICTS = ("collections.OrderedDict", "collections.Counter")
_PLAIN = (
    "argparse.Namespace",
    "torch.Size",
    "torch.device",
    "builtins.set",
    "__builtin__.set",
    "_codecs.encode",
)
# The operations that push what stands behind them.
_PUSH = {
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2",
    "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

_Named = collections.namedtuple("_Named", "name")
_Storage = collections.namedtuple("_Storage", "block dtype")


def read_torch(path):
    """The nested dict of a file, with a `Stored` for every tensor.

    Raises:
        ValueError: if it is damaged, or names more than tensors need.
    """
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return _read_zip(path)
    return _read_legacy(path)


def _read_zip(path):
    archive = zips.Archive(path)
    members = archive.members
    roots = [
        name.removesuffix("data.pkl")
        for name in members
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(roots) != 1:
        raise ValueError("it is a zip, but not one of torch.save.")
    (root,) = roots
    if f"{root}constants.pkl" in members:
        raise ValueError(
            "it is TorchScript, which is a program. Save its "
            "state_dict() by torch.save."
        )
    pickled = members[f"{root}data.pkl"]
    if pickled.file_size > _LARGEST:
        raise ValueError(f"its pickle has {pickled.file_size:,} bytes.")
    order = members.get(f"{root}byteorder")
    if order and archive.head(order, 6) != b"little":
        raise ValueError("its numbers are big-endian.")
    data = archive.head(pickled, _LARGEST)
    blocks = {}

    def storage(key, size):
        info = members.get(f"{root}data/{key}")
        if info is None or info.file_size != size:
            raise ValueError(
                f"the storage {quoted(key)} should have {size} bytes, and "
                f"has {info and info.file_size}."
            )
        if key not in blocks:
            blocks[key] = archive.block(info)
        return blocks[key]

    return _Machine(storage).run(io.BytesIO(data))


def _read_legacy(path):
    """The format before 1.6: four pickles, the storages' keys, the storages."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        stream = io.BytesIO(file.read(_LARGEST))
    blocks = {}

    def storage(key, count):
        found = blocks.setdefault(key, Block(count, None))
        if found.size != count:
            raise ValueError(f"the storage {quoted(key)} has two sizes.")
        return found

    machine = _Machine(storage)
    if machine.run(stream) != _MAGIC:
        raise ValueError("it is no file of torch.save.")
    machine.run(stream)
    about = machine.run(stream)
    if isinstance(about, dict) and about.get("little_endian") is False:
        raise ValueError("its numbers are big-endian.")
    tree = machine.run(stream)
    keys = machine.run(stream)
    if not isinstance(keys, list) or set(keys) != set(blocks):
        raise ValueError("its list of storages is damaged.")
    place = stream.tell()
    for key in keys:
        block = blocks[key]
        place += 8
        if place + block.size > size:
            raise ValueError(
                f"the storage {quoted(key)} does not lie in the file."
            )
        block.read = _piece(path, place, block.size)
        place += block.size
    if place != size:
        raise ValueError(f"{size - place} bytes follow its end.")
    return tree


def _piece(path, place, size):
    return lambda: np.fromfile(path, np.uint8, size, offset=place)


class _Machine:
    """Builds what a pickle describes, of plain values alone.

    Args:
        storage: function of (key, bytes) to the `Block` of a storage.
    """

    def __init__(self, storage):
        self.storage = storage
        self.operations = 0

    def run(self, stream):
        """What the next pickle of a stream describes.

        Raises:
            ValueError: if it is damaged, or names what is refused.
        """
        self.stack, self.marks, self.memo = [], [], {}
        try:
            for operation, argument, _ in pickletools.genops(stream):
                self.operations += 1
                if self.operations > _MOST_OPERATIONS:
                    raise ValueError("its pickle has too many operations.")
                if operation.name == "STOP":
                    return self.stack.pop()
                self._do(operation.name, argument)
        except (IndexError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"its pickle is damaged ({type(error).__name__}: {error})."
            ) from error
        raise ValueError("its pickle has no end.")

    def _do(self, name, argument):
        if name in _PUSH:
            self.stack.append(_CONSTANTS.get(name, argument))
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(self.stack)
            self.stack = []
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            self.stack.append([])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "EMPTY_TUPLE":
            self.stack.append(())
        elif name in ("TUPLE", "LIST"):
            items = self._marked()
            self.stack.append(tuple(items) if name == "TUPLE" else items)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [self.stack.pop() for _ in range(int(name[-1]))]
            self.stack.append(tuple(reversed(items)))
        elif name == "DICT":
            items = self._marked()
            self.stack.append({})
            self._set(items)
        elif name == "SETITEM":
            value, key = self.stack.pop(), self.stack.pop()
            self._set([key, value])
        elif name == "SETITEMS":
            self._set(self._marked())
        elif name == "APPEND":
            value = self.stack.pop()
            self._extend([value])
        elif name in ("APPENDS", "ADDITEMS"):
            self._extend(self._marked())
        elif name == "GLOBAL":
            self._name(*argument.split(" ", 1))
        elif name == "STACK_GLOBAL":
            attribute, module = self.stack.pop(), self.stack.pop()
            self._name(module, attribute)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self.stack.pop(), self.stack.pop()
            self.stack.append(self._made(function, arguments))
        elif name == "BUILD":
            # Attributes of an object, of which none is needed.
            self.stack.pop()
        elif name == "BINPERSID":
            self.stack.append(self._storage(self.stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            raise _refused(f"the operation {name}")

    def _marked(self):
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _set(self, items):
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise TypeError("items of what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, (str, bytes, int, float, type(None))):
                raise TypeError(f"a {type(key).__name__} as a name")
            if key in target:
                raise ValueError(f"{quoted(key)} is there twice.")
            target[key] = value

    def _extend(self, items):
        if type(self.stack[-1]) is not list:
            raise TypeError("items of what is no list")
        self.stack[-1].extend(items)

    def _name(self, module, attribute):
        name = f"{module}.{attribute}"
        kind = attribute.removesuffix("Storage")
        known = (
            name in (*_DICTS, *_PLAIN, *_REBUILD)
            or (module in ("torch", "torch.cuda") and kind in _STORAGES)
            or name in ("torch.UntypedStorage", "torch.storage.UntypedStorage")
            or (module == "torch" and attribute in _TORCH_DTYPES)
        )
        if not known:
            raise _refused(quoted(name))
        self.stack.append(_Named(name))

    def _made(self, function, arguments):
        name = function.name
        if name in _REBUILD:
            return _REBUILD[name](*arguments)
        if name in _DICTS:
            made = {}
            self.stack.append(made)
            pairs = arguments[0] if arguments else []
            pairs = pairs.items() if isinstance(pairs, dict) else pairs
            self._set([part for pair in pairs for part in pair])
            return self.stack.pop()
        if name not in _PLAIN:
            raise TypeError(f"{name} is no function")
        return None

    def _storage(self, pid):
        kind, named, key, _, count, *view = pid
        if kind != "storage" or any(view) or type(count) is not int:
            raise TypeError("a storage of an unknown kind")
        attribute = named.name.rpartition(".")[2].removesuffix("Storage")
        dtype = np.dtype(DTYPES[_STORAGES.get(attribute, "U8")])
        if count < 0 or not isinstance(key, str):
            raise TypeError(f"a storage of {count} numbers")
        return _Storage(self.storage(key, count * dtype.itemsize), dtype)


_TORCH_DTYPES = {
    np.dtype(DTYPES[name]).name if name != "BOOL" else "bool": DTYPES[name]
    for name in DTYPES
}


def _tensor(storage, offset, size, stride, *_):
    return _strided(storage.block, storage.dtype, offset, size, stride)


def _tensor_of_dtype(storage, offset, size, stride, _, hooks, dtype, *more):
    found = dtype_named(dtype.name.removeprefix("torch."), _TORCH_DTYPES)
    return _strided(storage.block, found, offset, size, stride)


def _strided(block, dtype, offset, size, stride):
    if type(offset) is not int:
        raise TypeError("an offset that is no number")
    return Stored(block, dtype, size, offset * dtype.itemsize, tuple(stride))


def _same(value, *_):
    return value


# Functions that a file names for its tensors, and ours in their place.
_REBUILD = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _same,
    "torch._utils._rebuild_parameter_with_state": _same,
}


def _refused(what):
    return ValueError(
        "it holds more than tensors, and nothing of it was run (it names "
        f"{what}). {EXPORT_PICKLE}"
    )
