"""Saving where it fails: one sentence, and the last good copy is whole."""

import errno
import os
import resource

import keras
import pytest
from helpers.handles import contents
from helpers.handles import same

import keras_flows as kf

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder of an older preset, model to be saved over it)."""
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("disk") / "preset"
    kf.SiTInterface(kf.networks.MLP(2, 48, 2), ema=None).save_to_preset(folder)
    return folder, kf.SiTInterface(kf.networks.MLP(2, 48, 2), ema=0.9)


def fails(saved, **options):
    """The error of saving; the folder is as it was, and alone."""
    folder, model = saved
    before = contents(folder)
    with pytest.raises(OSError) as caught:
        model.save_to_preset(folder, **options)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["preset"]
    kf.from_preset(folder)
    text = str(caught.value)
    assert text.startswith(f"Preset {str(folder)!r} cannot be saved (")
    assert text.endswith("; what was there is as it was.")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("most", [100, 5_000, 20_000, 60_000])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": 2e-5}])
def test_no_room(saved, most, options):
    """As on a full disk no file may grow beyond `most` bytes.

    HDF5 alone ends the process where it cannot write its file to the end.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        text = fails(saved, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.strerror(errno.EFBIG) in text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize(
    "call", ["mkdir", "fsync", "rename", "posix_fallocate"]
)
def test_any_call_that_fails(saved, monkeypatch, call, number):
    """A full or read-only disk, a permission that was taken away."""
    original, failed = getattr(os, call), []

    def refused(*args, **kwargs):
        # Renamed are the old folder, aside, and the new one into its place.
        # Where the latter fails the old one must get back.
        if call == "rename" and (failed or args[1] != saved[0]):
            return original(*args, **kwargs)
        failed.append(args)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refused)
    assert os.strerror(number) in fails(saved)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_is_read_only(saved):
    saved[0].parent.chmod(0o500)
    try:
        text = fails(saved)
    finally:
        saved[0].parent.chmod(0o700)
    assert os.strerror(errno.EACCES) in text


def test_then_it_saves(saved):
    saved[1].save_to_preset(saved[0])
    same(kf.from_preset(saved[0]), saved[1])
