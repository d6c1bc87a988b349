"""Zip archives of arrays, NumPy's and PyTorch's, that may be hostile."""

import contextlib
import io
import os
import zipfile
import zlib

import numpy as np

from keras_flows.presets.stored import Block
from keras_flows.presets.stored import add
from keras_flows.presets.stored import quoted

# Of the list of members, which Python reads at one stroke: some 90,000.
_LARGEST_LIST = 1 << 22
_CHUNK = 1 << 20
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    # Encryption, and what else Python cannot undo.
    RuntimeError,
)


class _Bounded(io.FileIO):
    """A file of which nothing large is read at one stroke."""

    def __init__(self, path):
        super().__init__(path)
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size=-1):
        if size < 0:
            size = self._size - self.tell()
        if size > _LARGEST_LIST:
            raise zipfile.BadZipFile(f"it wants to read {size} bytes at once")
        return super().read(size)

    def __del__(self):
        self.close()

    def seek(self, place, whence=0):
        if whence == 0 and place < 0:
            raise zipfile.BadZipFile(f"it wants to read at {place}")
        return super().seek(place, whence)


class Archive:
    """The members of a zip; the file is open as long as its blocks are there.

    Attributes:
        members: dict of name to `zipfile.ZipInfo`.

    Raises:
        ValueError: if it is damaged, has a name twice, or members that are
            neither stored nor deflated.
    """

    def __init__(self, path):
        self.members = {}
        with _told():
            self._zip = zipfile.ZipFile(_Bounded(path))
        for info in self._zip.infolist():
            add(self.members, info.filename, info)
            if info.compress_type not in (
                zipfile.ZIP_STORED,
                zipfile.ZIP_DEFLATED,
            ):
                raise ValueError(
                    f"{quoted(info.filename)} is compressed by the unknown "
                    f"method {info.compress_type}."
                )

    def head(self, info, most):
        """The first bytes of a member, at most so many."""
        with _told(), self._zip.open(info) as member:
            return member.read(min(info.file_size, most))

    def block(self, info, skip=0):
        """A member's bytes after the first few, as a `Block`.

        The member's sum is checked as it is read.
        """
        return Block(info.file_size - skip, lambda: self._content(info, skip))

    def _content(self, info, skip):
        data = np.empty(info.file_size - skip, np.uint8)
        view, place = memoryview(data), 0
        with _told(), self._zip.open(info) as member:
            member.read(skip)
            while place < len(data):
                got = member.readinto(view[place : place + _CHUNK])
                if not got:
                    raise EOFError("a member ends before its size")
                place += got
            # At its end the sum is checked.
            member.read(1)
        return data


@contextlib.contextmanager
def _told():
    try:
        yield
    except _BROKEN as error:
        raise ValueError(f"its archive is damaged: {error}.") from error
