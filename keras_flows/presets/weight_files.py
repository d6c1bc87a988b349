"""Formats of other people's weights, read without running any code.

safetensors, NumPy's archives and flax's msgpack are plain data; a PyTorch file
is a pickle, of which `torch_files` reads the tensors and refuses all else.
Pickles of any other kind are never opened. What a file declares is checked
against its bytes before arrays are made: see `stored`.
"""

import contextlib
import io
import struct

import numpy as np

from keras_flows.presets import zips
from keras_flows.presets.msgpack import read_msgpack
from keras_flows.presets.stored import DTYPES
from keras_flows.presets.stored import Block
from keras_flows.presets.stored import Stored
from keras_flows.presets.stored import add
from keras_flows.presets.stored import dtype_named
from keras_flows.presets.stored import plain_json
from keras_flows.presets.stored import quoted
from keras_flows.presets.stored import row_after_row
from keras_flows.presets.torch_files import EXPORT_PICKLE
from keras_flows.presets.torch_files import read_torch

TORCH = (".pt", ".pth", ".ckpt", ".bin")
PICKLES = (".pkl", ".pickle", ".joblib")
READABLE = (".safetensors", ".npz", ".msgpack", *TORCH)
# Of a safetensors header; large models have a tenth of it.
_LARGEST_HEADER = 1 << 24
_LARGEST_NPY_HEADER = 1 << 14
EXPORT_FLAX = (
    "Save its weights as an archive with its own code: "
    "numpy.savez('weights.npz', **flax.traverse_util.flatten_dict("
    "state.ema_params, sep='/'))."
)


def check_pickle(name):
    if name.endswith(PICKLES):
        raise ValueError(f"`source`: {name!r} is refused. {EXPORT_PICKLE}")


def read_weights(path):
    """The nested dict that a file declares, with a `Stored` for every array.

    Raises:
        ValueError: if it cannot be read, naming the file and the reason.
    """
    check_pickle(path.name)
    # flax's files have no ending: checkpoint_40000.
    if path.suffix not in ("", *READABLE):
        raise ValueError(
            f"`source`: {path.name!r} has none of the known endings "
            f"{', '.join(READABLE)}."
        )
    read = {".safetensors": read_safetensors, ".npz": read_npz}.get(
        path.suffix, read_torch if path.suffix in TORCH else read_msgpack
    )
    with told(path):
        tree = read(path)
        if not isinstance(tree, dict):
            raise ValueError("it holds no dict of weights.")
        return tree


@contextlib.contextmanager
def told(path, argument="source"):
    """Whatever goes wrong is a ValueError that names `argument` and the file.

    What is damaged may be of any type anywhere; readers say what they expect
    and what they found, and the rest of Python's errors end here.
    """
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, ValueError):
            reason = f"it is damaged ({type(error).__name__}: {reason})."
        raise ValueError(
            f"`{argument}`: {str(path)!r} cannot be read: {reason}"
        ) from error


def read_safetensors(path):
    """{name: `Stored`} of a file: a length, a header in JSON, the numbers.

    Source: https://huggingface.co/docs/safetensors.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LARGEST_HEADER):
            raise ValueError(
                f"its header should have {length:,} bytes; the file has "
                f"{size:,}, and a header at most {_LARGEST_HEADER:,}."
            )
        header = plain_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object.")
    header.pop("__metadata__", None)
    first, state, pieces = 8 + length, {}, []
    for name, entry in header.items():
        if not isinstance(entry, dict) or set(entry) != {
            "dtype", "shape", "data_offsets",
        }:  # fmt: skip
            raise ValueError(f"{quoted(name)} has no dtype, shape and offsets.")
        dtype = dtype_named(entry["dtype"], DTYPES)
        span = entry["data_offsets"]
        if (
            not isinstance(span, list)
            or [type(place) for place in span] != [int, int]
            or not 0 <= span[0] <= span[1] <= size - first
        ):
            raise ValueError(
                f"{quoted(name)} does not lie in the file: its offsets are "
                f"{quoted(span)}."
            )
        pieces.append((*span, name))
        block = Block(span[1] - span[0], _piece(path, first + span[0], span))
        state[name] = Stored(block, dtype, entry["shape"])
    end = 0
    for begin, stop, name in sorted(pieces):
        # As the format has it: no holes, and nothing twice.
        if begin != end:
            raise ValueError(
                f"{quoted(name)} begins at {begin}, and what is before it "
                f"ends at {end}."
            )
        end = stop
    if end != size - first:
        raise ValueError(f"{size - first - end} bytes follow its arrays.")
    return state


def _piece(path, place, span):
    return lambda: np.fromfile(path, np.uint8, span[1] - span[0], offset=place)


def read_npz(path):
    """{name: `Stored`} of numpy.savez's archive."""
    state, archive = {}, zips.Archive(path)
    for name, info in archive.members.items():
        if not name.endswith(".npy"):
            raise ValueError(f"{quoted(name)} is no array of NumPy.")
        head = io.BytesIO(archive.head(info, _LARGEST_NPY_HEADER))
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            read = np.lib.format.read_array_header_1_0
        elif version == (2, 0):
            read = np.lib.format.read_array_header_2_0
        else:
            raise ValueError(f"{quoted(name)} is of a version {version}.")
        shape, fortran, dtype = read(head)
        if dtype.hasobject:
            raise ValueError(
                f"{quoted(name)} holds objects, which are pickled: NumPy would "
                "run code for them (allow_pickle)."
            )
        dtype_named(dtype.name)
        block = archive.block(info, head.tell())
        strides = row_after_row(shape[::-1])[::-1] if fortran else None
        array = Stored(block, dtype, shape, 0, strides)
        add(state, name.removesuffix(".npy"), array)
    return state
