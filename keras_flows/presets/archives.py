"""Presets out of tar and zip archives that may be hostile.

Only plain files and folders below the target are unpacked. A path that leads
outside, a link or a device refuses the whole archive, where
`keras.utils.get_file` skips the member with a warning and keeps some links;
so does an archive that unpacks to more than `limits()` allow.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import pathlib
import re
import stat
import tarfile
import zipfile
import zlib

from keras_flows.ops.files import move
from keras_flows.ops.files import workspace
from keras_flows.presets.files import CONFIG
from keras_flows.presets.files import check_files
from keras_flows.presets.limits import beyond
from keras_flows.presets.limits import limits

_CHUNK = 1 << 20
# What is read at once: headers and lists of names come in one piece.
_PIECE = 4 << 20
# Unpacked whatever the archive's size: small files may be all zeros.
_SMALL = 64 << 20
# Folders within folders, and bytes of one name.
_DEPTH = 8
_NAME = 255
_COMPRESSED = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    # Encryption, and compression that Python cannot undo.
    RuntimeError,
    NotImplementedError,
    # Of gzip and bz2, where the content is neither.
    gzip.BadGzipFile,
)


class _Bounded:
    """A file that is read up to a place, and in small pieces.

    tarfile and zipfile read headers of any size that an archive claims.
    """

    def __init__(self, file, most):
        self._file, self._most = file, most

    def __getattr__(self, name):
        return getattr(self._file, name)

    def read(self, size=-1):
        if size is None or size < 0:
            size = _PIECE
        if size > _PIECE or self._file.tell() > self._most:
            raise _too_large(self._most)
        return self._file.read(size)

    def seek(self, place, whence=os.SEEK_SET):
        if whence == os.SEEK_SET and place > self._most:
            raise _too_large(self._most)
        return self._file.seek(place, whence)


def _too_large(most):
    name = "expansion" if most < limits().unpacked_bytes else "unpacked_bytes"
    return ValueError(
        f"The archive is refused: it unpacks to more than {most:,} bytes, or "
        f"claims headers of more than {_PIECE:,}. {beyond(name)}"
    )


def unpack(archive, folder):
    """Unpack an archive of one preset, all of it or nothing.

    Args:
        archive: file, tar (also compressed) or zip. The preset's files lie at
            its top, or in its only folder.
        folder: new folder, written under a temporary name and then renamed.

    Raises:
        ValueError: if the archive is broken or unsafe, or holds no complete
            preset.
    """
    folder = pathlib.Path(folder)
    with workspace(folder) as temporary:
        try:
            _extract(archive, temporary / folder.name)
        except _BROKEN as error:
            raise ValueError(
                f"The archive is truncated or broken: {error}."
            ) from error
        root = temporary / folder.name
        inside = list(root.iterdir())
        if not (root / CONFIG).is_file() and len(inside) == 1:
            root = inside[0]
        check_files(root)
        move(root, folder)


def _extract(archive, folder):
    folder.mkdir()
    size = os.path.getsize(archive)
    most = int(max(_SMALL, limits().expansion * size))
    left = most = min(most, limits().unpacked_bytes)
    members = _members(archive, most)
    for count, (name, size, is_folder, opened) in enumerate(members):
        if count >= limits().archive_files:
            raise ValueError(
                "The archive is refused: it has more members. "
                f"{beyond('archive_files')}"
            )
        target = folder.joinpath(*_parts(name))
        # What it claims, and below what there is: the claim may be false.
        if size > left:
            raise _too_large(most)
        try:
            if is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # "x": the second of two members of one name is no update.
            with opened() as source, open(target, "xb") as file:
                while piece := source.read(_CHUNK):
                    left -= len(piece)
                    if left < 0:
                        raise _too_large(most)
                    file.write(piece)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"The archive holds {name!r} twice.") from None


def _members(archive, most):
    """(name, bytes, is a folder, function that opens it) of each member."""
    with open(archive, "rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        unpacked = raw
        for magic, opened in _COMPRESSED.items():
            if start.startswith(magic):
                unpacked = opened(raw)
        bounded = _Bounded(unpacked, most)
        try:
            tar = tarfile.open(fileobj=bounded, mode="r:")
        except (tarfile.TarError, EOFError) as error:
            # A tar may end in a zip, and would pass for one: it comes first.
            raw.seek(0)
            if unpacked is not raw or not zipfile.is_zipfile(raw):
                raise error
        else:
            with tar:
                yield from _tar_members(tar)
            return
        raw.seek(0)
        size = os.path.getsize(archive) + _PIECE
        with zipfile.ZipFile(_Bounded(raw, size)) as file:
            yield from _zip_members(file)


def _tar_members(file):
    for info in file:
        # Sparse files, too, are isreg().
        if not (info.isreg() or info.isdir()) or info.issparse():
            raise _refused(info.name, "a link, a device or a sparse file")
        opened = _opener(file.extractfile, info)
        yield info.name, info.size, info.isdir(), opened
    # tarfile takes a missing end, or half a header, for the end.
    file.fileobj.seek(file.offset)
    if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("its end is missing")
    while file.fileobj.read(_CHUNK):
        # To the end of a compressed stream, where its checksum is.
        pass


def _zip_members(file):
    for info in file.infolist():
        mode = stat.S_IFMT(info.external_attr >> 16)
        if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refused(info.filename, "a link or a device")
        # Others are unpacked by zipfile as a whole, however large.
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refused(info.filename, "neither stored nor deflated")
        opened = _opener(file.open, info)
        yield info.filename, info.file_size, info.is_dir(), opened


def _opener(open_member, info):
    return lambda: contextlib.closing(open_member(info))


def _parts(name):
    """The parts of a member's path, which must lead downwards."""
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
        raise _refused(name, "an absolute path")
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, "a path that leads upwards")
    longest = max((len(part.encode()) for part in parts), default=0)
    if len(parts) > _DEPTH or longest > _NAME:
        raise _refused(f"{name[:60]}...", "a path of too many or long parts")
    return parts


def _refused(name, what):
    return ValueError(
        f"The archive is refused: its member {name!r} is {what}. Only files "
        "and folders below the preset's own are unpacked."
    )
