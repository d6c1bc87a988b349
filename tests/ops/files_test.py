"""What is written appears whole or not at all."""

import ast
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras_flows as kf
from keras_flows.callbacks.sample_grid import write_image
from keras_flows.metrics.images import write_npz
from keras_flows.ops import files

pytestmark = pytest.mark.once
ROOT = pathlib.Path(kf.__file__).parent
KINDS = ("file", "folder")


def write(path, kind, text):
    if kind == "file":
        path.write_text(text)
    else:
        path.mkdir()
        (path / "inside").mkdir()
        (path / "inside" / "a.txt").write_text(text)


def read(path):
    if path.is_dir():
        path = path / "inside" / "a.txt"
    return path.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_new_takes_the_place_of_the_old(tmp_path, kind):
    target = tmp_path / "deep" / "target.txt"
    for text in ("old", "new"):
        with files.replacing(target) as temporary:
            assert temporary.name == target.name
            assert temporary.parent.parent == target.parent
            write(temporary, kind, text)
            assert not target.exists() or read(target) == "old"
        assert read(target) == text
        assert list(target.parent.iterdir()) == [target]
    expected = 0o777 if kind == "folder" else 0o666
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == expected & ~mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("before", [True, False])
def test_an_interrupted_write_changes_nothing(tmp_path, kind, error, before):
    target = tmp_path / "target"
    if before:
        write(target, kind, "old")
    with pytest.raises(error), files.replacing(target) as temporary:
        write(temporary, kind, "half")
        raise error
    assert list(tmp_path.iterdir()) == ([target] if before else [])
    assert not before or read(target) == "old"


def test_a_body_that_writes_nothing_changes_nothing(tmp_path):
    target = tmp_path / "target"
    write(target, "file", "old")
    with pytest.raises(OSError), files.replacing(target):
        pass
    assert list(tmp_path.iterdir()) == [target] and read(target) == "old"


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_process_changes_nothing(tmp_path, kind):
    target = tmp_path / "target"
    write(target, kind, "old")
    code = (
        "import os, runpy, sys\n"
        "files = runpy.run_path(sys.argv[1])\n"
        "with files['replacing'](sys.argv[2]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, files.__file__, str(target)], check=False
    )
    assert done.returncode == 9 and read(target) == "old"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("failing", ["aside", "into place"])
def test_a_failing_rename_leaves_the_old(tmp_path, kind, failing, monkeypatch):
    target = tmp_path / "target"
    write(target, kind, "old")
    calls = []

    def failing_rename(source, to, rename=os.rename):
        calls.append(to)
        into_place = pathlib.Path(to) == target
        if len(calls) < 3 and into_place == (failing == "into place"):
            raise OSError("disk full")
        rename(source, to)

    monkeypatch.setattr(os, "rename", failing_rename)
    monkeypatch.setattr(os, "replace", failing_rename)
    if kind == "file" and failing == "aside":
        # A file is renamed over the old one.
        files.write_text(target, "new")
        assert len(calls) == 1 and read(target) == "new"
        return
    with pytest.raises(OSError, match="disk full"):
        with files.replacing(target) as temporary:
            write(temporary, kind, "new")
    assert list(tmp_path.iterdir()) == [target] and read(target) == "old"


@pytest.mark.parametrize("kind", KINDS)
def test_content_is_on_the_disk_before_it_is_renamed(
    tmp_path, kind, monkeypatch
):
    target, order = tmp_path / "target", []
    fsync = os.fsync

    def spy(descriptor):
        order.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("no /proc to tell files by")
    monkeypatch.setattr(os, "fsync", spy)
    for name in ("rename", "replace"):
        rename = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, f=rename: (order.append("renamed"), f(*a))
        )
    with files.replacing(target) as temporary:
        write(temporary, kind, "new")
    written = [temporary]
    if kind == "folder":
        written += [temporary / "inside", temporary / "inside" / "a.txt"]
    assert order == [*map(str, written), "renamed", str(tmp_path)]


def save_preset(path):
    kf.networks.MLP(2, width=4, depth=1).save_to_preset(path)


WRITERS = {
    "preset": save_preset,
    "picture": lambda path: write_image(path, np.zeros((4, 4, 3), "uint8")),
    "arrays": lambda path: write_npz(path, x=np.zeros(3)),
    "text": lambda path: files.write_text(path, "new"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_keeps_the_old_on_failure(tmp_path, writer, monkeypatch):
    target = tmp_path / "target"
    WRITERS[writer](target)
    old = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    rename = os.rename

    def fail(source, to):
        if pathlib.Path(to) == target and "aside" not in done:
            done.append("aside")
            raise OSError("disk full")
        rename(source, to)

    done = []
    monkeypatch.setattr(os, "rename", fail)
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        WRITERS[writer](target)
    after = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    assert [p for p, _ in after] == [p for p, _ in old]
    assert [t for p, t in after if p.is_file()] == [
        t for p, t in old if p.is_file()
    ]


def renames(path):
    """Lines that rename a file by themselves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        method = called.rpartition(".")[2]
        one = len(node.args) == 1 and not node.keywords
        if called in ("os.rename", "os.replace", "shutil.move") or (
            method in ("rename", "replace") and one and "." in called
        ):
            yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize("folder", sorted(p.name for p in ROOT.iterdir()))
def test_nobody_renames_by_hand(folder):
    # export/ is being rewritten.
    if folder == "export":
        return
    found = {
        str(path.relative_to(ROOT)): list(renames(path))
        for path in (ROOT / folder).rglob("*.py")
        if path != ROOT / "ops" / "files.py"
    }
    assert not {path: lines for path, lines in found.items() if lines}
