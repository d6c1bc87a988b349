"""The few types of msgpack that flax's checkpoints use.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; arrays are
flax's extension 1, (shape, dtype, bytes).
"""

import struct

import numpy as np

from keras_flows.presets.stored import MOST_DEPTH
from keras_flows.presets.stored import MOST_ENTRIES
from keras_flows.presets.stored import Block
from keras_flows.presets.stored import Stored
from keras_flows.presets.stored import add
from keras_flows.presets.stored import dtype_named

_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I",
    0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_PARTS = "__msgpack_chunked_array__"


def read_msgpack(path):
    """The nested dict of a file, with a `Stored` for every array."""
    size = path.stat().st_size
    data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    reader = _Reader(data)
    tree = reader.value()
    if reader.place != size:
        raise ValueError(f"{size - reader.place} bytes follow its end.")
    return tree


class _Reader:
    def __init__(self, data):
        self.data = data
        self.place = self.values = self.depth = 0

    def _span(self, count):
        """Where the next bytes begin, which must all be there."""
        first = self.place
        if first + count > len(self.data):
            raise ValueError("it is cut off.")
        self.place += count
        return first

    def _take(self, count):
        first = self._span(count)
        return self.data[first : first + count].tobytes()

    def _number(self, kind):
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _size(self, exponent):
        return self._number((">B", ">H", ">I")[exponent])

    def _text(self, count):
        return str(self._take(count), "utf-8")

    def _list(self, count):
        return [self.value() for _ in range(count)]

    def _map(self, count):
        tree = {}
        for _ in range(count):
            name = self.value()
            if not isinstance(name, (str, int)):
                raise ValueError(f"a {type(name).__name__} is no name.")
            add(tree, str(name), self.value())
        return _joined(tree) if _PARTS in tree else tree

    def _bytes(self, count):
        first = self._span(count)
        data = self.data[first : first + count]
        # A copy, which outlives the file.
        return Block(count, lambda: np.array(data))

    def _extension(self, count):
        end = self.place + 1 + count
        code = self._number(">b")
        if code not in (1, 3):
            raise ValueError(f"it has the unknown extension {code}.")
        parts = self.value()
        if self.place != end or not isinstance(parts, list) or len(parts) != 3:
            raise ValueError("an array in it is damaged.")
        shape, name, block = parts
        if isinstance(name, Block):
            name = str(name.bytes()[:64].tobytes(), "utf-8")
        dtype = dtype_named(name)
        if not isinstance(block, Block):
            raise ValueError("an array in it has no bytes.")
        return Stored(block, dtype, shape)

    def value(self):
        """The next value."""
        self.values += 1
        self.depth += 1
        if self.values > MOST_ENTRIES or self.depth > MOST_DEPTH:
            raise ValueError("it is nested too deep, or has too many values.")
        try:
            return self._value()
        finally:
            self.depth -= 1

    def _value(self):
        tag = self._number(">B")
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 0x100
        if tag < 0x90:
            return self._map(tag & 0x0F)
        if tag < 0xA0:
            return self._list(tag & 0x0F)
        if tag < 0xC0:
            return self._text(tag & 0x1F)
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in _NUMBERS:
            return self._number(_NUMBERS[tag])
        if 0xC4 <= tag <= 0xC6:
            return self._bytes(self._size(tag - 0xC4))
        if 0xC7 <= tag <= 0xC9:
            return self._extension(self._size(tag - 0xC7))
        if 0xD4 <= tag <= 0xD8:
            return self._extension(1 << (tag - 0xD4))
        if 0xD9 <= tag <= 0xDB:
            return self._text(self._size(tag - 0xD9))
        if tag in (0xDC, 0xDD):
            return self._list(self._size(tag - 0xDB))
        if tag in (0xDE, 0xDF):
            return self._map(self._size(tag - 0xDD))
        raise ValueError(f"it has the unknown type {tag:#x}.")


def _joined(tree):
    """What is above a gigabyte comes in pieces: one array again."""
    shape, chunks = _ordered(tree, "shape"), _ordered(tree, "chunks")
    if not chunks or not all(isinstance(each, Stored) for each in chunks):
        raise ValueError("an array of several pieces lacks them.")
    dtype = chunks[0].dtype
    for each in chunks:
        each.check("a piece of an array")
    if any(each.dtype != dtype or len(each.shape) != 1 for each in chunks):
        raise ValueError("the pieces of an array are of several kinds.")
    sizes = [each.shape[0] * dtype.itemsize for each in chunks]

    def read():
        data = np.empty(sum(sizes), np.uint8)
        place = 0
        for each, size in zip(chunks, sizes, strict=True):
            data[place : place + size] = each.array().view(np.uint8)
            place += size
        return data

    return Stored(Block(sum(sizes), read), dtype, shape)


def _ordered(tree, key):
    """The values of flax's {"0": ..., "1": ...}, in order."""
    found = tree.get(key)
    if not isinstance(found, dict):
        raise ValueError(f"an array of several pieces has no {key}.")
    names = [str(i) for i in range(len(found))]
    if set(names) != set(found):
        raise ValueError(f"an array of several pieces lacks some {key}.")
    return [found[name] for name in names]
