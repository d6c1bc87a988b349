"""Files and folders that appear whole or not at all.

A writer works beside the target, under a temporary name. What it wrote is
brought to the disk and then renamed, which a file system does at one stroke:
a reader sees the old content or the new, and a failure leaves the old.
"""

import contextlib
import os
import pathlib
import shutil
import tempfile


@contextlib.contextmanager
def workspace(target):
    """A new empty folder beside `target`, removed in the end.

    Args:
        target: file or folder that is to be written; its parent is made.

    Yields:
        `pathlib.Path` on the target's file system, so that `move` works.
    """
    target = pathlib.Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing(target):
    """A path to write to, which takes the target's place in the end.

    Where the body raises, or writes nothing, the target stays as it was.

    Args:
        target: file or folder to write; its parent is made.

    Yields:
        `pathlib.Path` of the same name in a folder of its own, with nothing
        there yet: write a file, or make a folder.

    Example:

    ```python
    with replacing("figures.json") as temporary:
        temporary.write_text(text)
    ```
    """
    target = pathlib.Path(target)
    with workspace(target) as folder:
        temporary = folder / target.name
        yield temporary
        move(temporary, target)


def write_text(target, text):
    """Write a file of text (UTF-8) through `replacing`."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def move(source, target):
    """Put a file or folder in the place of `target`, whose content goes.

    Args:
        source: what was written, on the same file system.
        target: its new path; a folder is replaced by a folder, a file by a
            file.

    Raises:
        OSError: if it cannot be renamed; the target is then as it was.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    for path in (source, *source.rglob("*")):
        _flush(path)
    if target.is_dir():
        _exchange(source, target)
    else:
        os.replace(source, target)
    _flush(target.parent)


def remove(folder):
    """Remove a folder at one stroke: nobody sees a part of it."""
    folder = pathlib.Path(folder)
    with workspace(folder) as aside:
        os.rename(folder, aside / folder.name)


def _exchange(source, target):
    """A folder with content cannot be renamed over: it steps aside first."""
    aside = pathlib.Path(
        tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent)
    )
    old = aside / target.name
    try:
        os.rename(target, old)
        os.rename(source, target)
    except BaseException:
        if old.exists():
            os.rename(old, target)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush(path):
    """Bring a file, or a folder's list of names, to the disk."""
    if path.is_dir():
        if os.name != "posix":
            # Windows opens no folders; its renames are in the journal.
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
