"""Formats of other people's weights, read without running any code.

safetensors, NumPy's archives and flax's msgpack are plain data; a PyTorch file
is a pickle and is read with `weights_only=True`, which builds tensors and
containers and refuses all else. Pickles of any other kind are never opened.
"""

import argparse
import importlib
import json
import math
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

TORCH = (".pt", ".pth", ".ckpt", ".bin")
PICKLES = (".pkl", ".pickle", ".joblib")
READABLE = (".safetensors", ".npz", ".msgpack", *TORCH)
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
EXPORT_PICKLE = (
    "It is a pickle, which runs any code that its author put in. Where you "
    "trust it, load it with its own code, in a sandbox, and save the weights "
    "alone: torch.save(network.state_dict(), 'weights.pt'), or for NVIDIA's "
    "files torch.save(pickle.load(file)['ema'].state_dict(), 'weights.pt')."
)
EXPORT_FLAX = (
    "Save its weights as an archive with its own code: "
    "numpy.savez('weights.npz', **flax.traverse_util.flatten_dict("
    "state.ema_params, sep='/'))."
)


def check_pickle(name):
    if name.endswith(PICKLES):
        raise ValueError(f"`source`: {name!r} is refused. {EXPORT_PICKLE}")


def read_weights(path):
    """The nested dict that a file holds."""
    check_pickle(path.name)
    # flax's files have no ending: checkpoint_40000.
    if path.suffix not in ("", *READABLE):
        raise ValueError(
            f"`source`: {path.name!r} has none of the known endings "
            f"{', '.join(READABLE)}."
        )
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        if path.suffix in TORCH:
            return _read_torch(path)
        return Msgpack(path.read_bytes()).value()
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"`source`: {str(path)!r} cannot be read: {error}"
        ) from error


def read_safetensors(path):
    """{name: array} of a file: a length, a header in JSON, the numbers.

    Source: https://huggingface.co/docs/safetensors.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    end = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:end].tobytes())
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
        if not 0 <= first <= last <= len(data) - end or (
            last - first != math.prod(shape) * dtype.itemsize
        ):
            raise ValueError(f"{name!r} does not lie in the file.")
        # A copy, which is aligned and outlives the file.
        piece = np.array(data[end + first : end + last])
        state[name] = piece.view(dtype).reshape(shape)
    return state


def _read_torch(path):
    # By name: presets import no backend.
    torch = importlib.import_module("torch")
    # DiT's and SiT's training saves its arguments beside the weights; they
    # are read as a plain list of values.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with allowed:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "it holds more than tensors, or is damaged, and nothing of it was "
            f"run ({reason}). {EXPORT_PICKLE}"
        ) from error

    def array(value):
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if value.dtype == torch.bfloat16:
                value = value.float()
            return value.numpy()
        if isinstance(value, dict):
            return {k: array(v) for k, v in value.items()}
        return None

    return array(tree)


class Msgpack:
    """The few types of msgpack that flax's checkpoints use.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md; arrays are
    flax's extension 1, (shape, dtype, bytes).
    """

    _NUMBERS = {
        0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I",
        0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
    }  # fmt: skip

    def __init__(self, data):
        self.data = data
        self.place = 0

    def _take(self, count):
        piece = self.data[self.place : self.place + count]
        if len(piece) < count:
            raise ValueError("it is cut off.")
        self.place += count
        return piece

    def _number(self, kind):
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _size(self, exponent):
        return self._number((">B", ">H", ">I")[exponent])

    def _map(self, count):
        tree = {self.value(): self.value() for _ in range(count)}
        if "__msgpack_chunked_array__" in tree:
            # What is above a gigabyte comes in pieces.
            shape, chunks = tree["shape"], tree["chunks"]
            pieces = [chunks[str(i)] for i in range(len(chunks))]
            shape = [shape[str(i)] for i in range(len(shape))]
            return np.concatenate(pieces).reshape(shape)
        return tree

    def _extension(self, count):
        code, data = self._number(">b"), self._take(count)
        if code not in (1, 3):
            raise ValueError(f"it has the unknown extension {code}.")
        shape, name, content = Msgpack(data).value()
        name = name if isinstance(name, str) else name.decode()
        dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
        return np.frombuffer(content, dtype).reshape(shape)

    def value(self):
        """The next value."""
        tag = self._number(">B")
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 0x100
        if tag < 0x90:
            return self._map(tag & 0x0F)
        if tag < 0xA0:
            return [self.value() for _ in range(tag & 0x0F)]
        if tag < 0xC0:
            return str(self._take(tag & 0x1F), "utf-8")
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in self._NUMBERS:
            return self._number(self._NUMBERS[tag])
        if 0xC4 <= tag <= 0xC6:
            return self._take(self._size(tag - 0xC4))
        if 0xC7 <= tag <= 0xC9:
            return self._extension(self._size(tag - 0xC7))
        if 0xD4 <= tag <= 0xD8:
            return self._extension(1 << (tag - 0xD4))
        if 0xD9 <= tag <= 0xDB:
            return str(self._take(self._size(tag - 0xD9)), "utf-8")
        if tag in (0xDC, 0xDD):
            count = self._size(tag - 0xDB)
            return [self.value() for _ in range(count)]
        if tag in (0xDE, 0xDF):
            return self._map(self._size(tag - 0xDD))
        raise ValueError(f"it has the unknown type {tag:#x}.")
