"""Arrays of a file: what it declares of them, checked before they are read.

Every reader of foreign weights ends here. An array is declared (shape, dtype,
offset, strides in a block of bytes of the file), the declaration is held
against the bytes that there are, the blocks of all arrays that are wanted are
added up and held against a limit, and only then is anything read.
"""

import json

import ml_dtypes
import numpy as np

# By the names of safetensors.
DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "U16": np.uint16,
    "U32": np.uint32, "U64": np.uint64, "BOOL": np.bool_,
}  # fmt: skip
# By the names of NumPy, PyTorch and flax.
NAMED = {np.dtype(dtype).name: np.dtype(dtype) for dtype in DTYPES.values()}
# Of a file's arrays together, where `max_bytes` is None: 16 GiB, and this many
# times the file, which may be compressed, or 64 MiB.
MOST_BYTES = 1 << 34
MOST_INFLATED = 20
SMALL = 1 << 26
# A nested dict that is deeper, or has more entries, is no model's weights.
MOST_DEPTH = 32
MOST_ENTRIES = 1 << 18
_LONGEST_NAME = 1000
_MOST_DIMENSIONS = 8


def quoted(name):
    """A name out of a file for a message, cut where it is long."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} signs)"


class Block:
    """Bytes that lie in a file, read when they are first asked for.

    Args:
        size: how many there are.
        read: function that gives them as an array of uint8.
    """

    def __init__(self, size, read):
        self.size = size
        self.read, self._bytes = read, None

    def bytes(self):
        if self._bytes is None:
            self._bytes = self.read()
        return self._bytes


class Stored:
    """An array that lies in a block, declared but neither checked nor read.

    Args:
        block: `Block` it lies in.
        dtype: NumPy's.
        shape: sizes as the file has them: a list or tuple.
        offset: of its first element in the block, in bytes.
        strides: steps in elements, or None where the block is the array, row
            after row.
    """

    def __init__(self, block, dtype, shape, offset=0, strides=None):
        self.block, self.dtype = block, np.dtype(dtype)
        self.shape, self.offset, self.strides = shape, offset, strides

    def check(self, name):
        """Hold what is declared against the block.

        Raises:
            ValueError: if the shape is none, or an element lies outside the
                block, or two lie in one place, or the block is larger.
        """
        name = quoted(name)
        sizes = self.shape if isinstance(self.shape, (list, tuple)) else [None]
        if len(sizes) > _MOST_DIMENSIONS or not all(map(_is_size, sizes)):
            raise ValueError(
                f"{name} has the shape {quoted(self.shape)}, and not one of "
                "whole numbers."
            )
        self.shape = tuple(sizes)
        if 0 in sizes and max(sizes) > 1:
            raise ValueError(
                f"{name} has the shape {self.shape}, of no element: sizes "
                "cannot be taken from it."
            )
        whole = self.strides is None
        if whole:
            self.strides = row_after_row(self.shape)
        if (
            not isinstance(self.strides, (list, tuple))
            or len(self.strides) != len(sizes)
            or not all(map(_is_size, self.strides))
        ):
            raise ValueError(
                f"{name} has the strides {quoted(self.strides)}, and not one "
                f"number from 0 for each of {self.shape}."
            )
        reach = self._reach(name)
        end = self.offset + reach * self.dtype.itemsize
        if not 0 <= self.offset <= end <= self.block.size or (
            whole and end != self.block.size
        ):
            raise ValueError(
                f"{name} does not lie in the file: it takes the bytes "
                f"{self.offset} to {end}, where there are {self.block.size}."
            )

    def _reach(self, name):
        """How many elements of the block it spans, each used at most once."""
        reach = 0 if 0 in self.shape else 1
        for step, size in sorted(zip(self.strides, self.shape, strict=True)):
            if size > 1:
                # A step is at least as long as all that lies within it.
                if step < reach:
                    raise ValueError(
                        f"{name} has elements that lie in one place: shape "
                        f"{self.shape}, strides {quoted(self.strides)}."
                    )
                reach += step * (size - 1)
        return reach

    def array(self):
        """The array, a view of the block where the machine's order is its."""
        found = np.ndarray(
            self.shape,
            self.dtype,
            self.block.bytes(),
            self.offset,
            [step * self.dtype.itemsize for step in self.strides],
        )
        return found.astype(self.dtype.newbyteorder("="), copy=False)


def _is_size(value):
    return type(value) is int and 0 <= value < 2**63


def row_after_row(shape):
    strides = [1]
    for size in shape[:0:-1]:
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()


def dtype_named(name, table=NAMED):
    """A dtype by its name in a file.

    Raises:
        ValueError: if it is none that holds numbers.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(
            f"the dtype {quoted(name)} is none of {', '.join(table)}."
        )
    return np.dtype(table[name])


def flat(tree):
    """{path with dots: `Stored`} of a nested dict; other values are left out.

    Raises:
        ValueError: if it is too deep or too large, a name is there twice, or
            an array does not lie in its block.
    """
    found, seen = {}, 0
    left = [((), tree)]
    while left:
        path, branch = left.pop()
        if len(path) > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep.")
        seen += len(branch)
        if seen > MOST_ENTRIES:
            raise ValueError(f"it has more than {MOST_ENTRIES} entries.")
        branches = []
        for key, value in branch.items():
            if isinstance(value, dict):
                branches.append(((*path, str(key)), value))
            elif isinstance(value, Stored):
                name = ".".join((*path, str(key)))
                add(found, name, value)
                value.check(name)
        left += reversed(branches)
    return found


def add(found, name, value):
    """Put a value under a name that must be new, and not endless."""
    if len(name) > _LONGEST_NAME:
        raise ValueError(f"the name {quoted(name)} is too long.")
    if name in found:
        raise ValueError(f"{quoted(name)} is there twice.")
    found[name] = value


def limit_of(max_bytes, file_bytes):
    """How many bytes the arrays may take: see `read_checkpoint`."""
    if max_bytes is not None:
        return max_bytes
    return min(MOST_BYTES, max(SMALL, MOST_INFLATED * file_bytes))


def read_all(state, limit):
    """{name: array} of {name: `Stored`}, together within a limit of bytes.

    Raises:
        ValueError: before anything is read, if they are larger.
    """
    blocks = {id(each.block): each.block for each in state.values()}
    total = sum(block.size for block in blocks.values())
    if total > limit:
        raise ValueError(
            f"its arrays take {total:,} bytes, more than the {limit:,} that "
            "are read of such a file. Where you trust it, pass "
            f"`max_bytes={total}`."
        )
    return {name: each.array() for name, each in state.items()}


def plain_json(text):
    """A JSON value: no name twice, no NaN, and not too deep for Python.

    Args:
        text: bytes or str.

    Raises:
        ValueError: saying which of these it is.
    """

    def pairs(items):
        found = {}
        for name, value in items:
            add(found, name, value)
        return found

    def constant(word):
        raise ValueError(f"it holds {word}.")

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return json.loads(
            text, object_pairs_hook=pairs, parse_constant=constant
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deep.") from None
