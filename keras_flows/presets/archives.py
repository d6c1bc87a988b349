"""Presets out of tar and zip archives that may be hostile.

Only plain files and folders below the target are unpacked. A path that leads
outside, a link or a device refuses the whole archive, where
`keras.utils.get_file` skips the member with a warning and keeps some links.
"""

import contextlib
import lzma
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
import zlib

from keras_flows.ops.files import move
from keras_flows.ops.files import workspace
from keras_flows.presets.files import CONFIG
from keras_flows.presets.files import check_preset

_CHUNK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    # Encryption, and compression that Python cannot undo.
    RuntimeError,
    NotImplementedError,
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
        check_preset(root)
        move(root, folder)


def _extract(archive, folder):
    folder.mkdir()
    for name, is_folder, opened in _members(archive):
        target = folder.joinpath(*_parts(name))
        try:
            if is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # "x": the second of two members of one name is no update.
            with opened() as source, open(target, "xb") as file:
                shutil.copyfileobj(source, file)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"The archive holds {name!r} twice.") from None


def _members(archive):
    """(name, is a folder, function that opens it) of each member."""
    # A tar may end in a zip, and would pass for one.
    if not tarfile.is_tarfile(archive) and zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            for info in file.infolist():
                mode = stat.S_IFMT(info.external_attr >> 16)
                if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _refused(info.filename, "a link or a device")
                yield info.filename, info.is_dir(), _opener(file.open, info)
        return
    with tarfile.open(archive) as file:
        for info in file:
            if not (info.isreg() or info.isdir()):
                raise _refused(info.name, "a link or a device")
            yield info.name, info.isdir(), _opener(file.extractfile, info)
        # tarfile takes a missing end, or half a header, for the end.
        file.fileobj.seek(file.offset)
        if file.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
        while file.fileobj.read(_CHUNK):
            # To the end of a compressed stream, where its checksum is.
            pass


def _opener(open_member, info):
    return lambda: contextlib.closing(open_member(info))


def _parts(name):
    """The parts of a member's path, which must lead downwards."""
    if name.startswith(("/", "\\")) or re.match("[A-Za-z]:", name):
        raise _refused(name, "an absolute path")
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if ".." in parts:
        raise _refused(name, "a path that leads upwards")
    return parts


def _refused(name, what):
    return ValueError(
        f"The archive is refused: its member {name!r} is {what}. Only files "
        "and folders below the preset's own are unpacked."
    )
