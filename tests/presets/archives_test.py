"""Presets in archives by https: resuming, tampering, hostile archives."""

import dataclasses
import io
import shutil
import stat
import tarfile
import threading
import zipfile

import pytest
from helpers.handles import left_in_cache
from helpers.handles import packed
from helpers.handles import same
from helpers.handles import sha256

import keras_flows as kf
from keras_flows.presets import download
from keras_flows.presets.archives import unpack

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("own_caches")]


@pytest.mark.parametrize(
    "kind, inside, prefix",
    [("tar.gz", "small/", "sha256="), ("zip", "", ""), ("tar", "./", "")],
)
def test_archive_is_downloaded_once(server, saved, kind, inside, prefix):
    folder, model = saved
    content = packed(folder, kind, inside)
    server.files[f"small.{kind}"] = content
    handle = f"{server.url}/files/small.{kind}#{prefix}{sha256(content)}"
    same(kf.SiTInterface.from_preset(handle), model)
    assert len(server.log) == 1
    same(kf.from_preset(handle), model)
    assert len(server.log) == 1
    # One folder, renamed into place; neither the archive nor a part of it.
    assert left_in_cache() == [sha256(content)]
    server.shutdown()
    same(kf.from_preset(handle), model)


def test_interrupted_archive_is_resumed(server, saved):
    folder, model = saved
    content = packed(folder)
    server.files["a.tgz"] = content
    server.cut["a.tgz"] = 1000
    handle = f"{server.url}/files/a.tgz#{sha256(content)}"
    with pytest.raises(ConnectionError, match="1000 of .* call again"):
        kf.from_preset(handle)
    assert left_in_cache() == [f"{sha256(content)}.part"]
    same(kf.from_preset(handle), model)
    assert server.asked("a.tgz") == [None, "bytes=1000-"]


def test_resuming_where_the_server_cannot_or_nothing_is_left(server, saved):
    """A server without ranges sends all; one with all of it answers 416."""
    folder, model = saved
    content = packed(folder)
    server.files["a.tgz"] = content
    handle = f"{server.url}/files/a.tgz#{sha256(content)}"
    cache = download.cache_folder()
    cache.mkdir(parents=True)
    part = cache / f"{sha256(content)}.part"
    server.ranges = False
    part.write_bytes(b"half of something")
    same(kf.from_preset(handle), model)
    shutil.rmtree(cache / sha256(content))
    server.ranges = True
    part.write_bytes(content)
    same(kf.from_preset(handle), model)
    assert server.asked("a.tgz") == ["bytes=17-", f"bytes={len(content)}-"]


def test_two_threads_download_once(server, saved):
    folder, _ = saved
    content = packed(folder)
    server.files["a.tgz"] = content
    handle = f"{server.url}/files/a.tgz#{sha256(content)}"
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(download.fetch(handle)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [download.cache_folder() / sha256(content)] * 4
    assert len(server.log) == 1


def test_tampered_archive_is_refused(server, saved):
    content = bytearray(packed(saved[0], "tar"))
    checksum = sha256(content)
    content[-20_000] ^= 1
    server.files["a.tar"] = bytes(content)
    with pytest.raises(ValueError, match=f"{sha256(content)}, not {checksum}"):
        kf.from_preset(f"{server.url}/files/a.tar#{checksum}")
    assert left_in_cache() == []


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_truncated_archive_is_refused(server, saved, kind, share):
    """Also where the checksum is that of what came; a tar pads with zeros."""
    content = packed(saved[0], kind).rstrip(b"\0")
    content = content[: int(share * len(content)) - 1]
    server.files["a"] = content
    with pytest.raises(ValueError, match="No preset from"):
        kf.from_preset(f"{server.url}/files/a#{sha256(content)}")
    assert left_in_cache() == []


def hostile_tar(name, kind=tarfile.REGTYPE, link=""):
    def add(folder, outside):
        content = packed(folder, "tar")
        file = io.BytesIO(content)
        with tarfile.open(fileobj=file, mode="a:") as archive:
            info = tarfile.TarInfo(name.replace("OUTSIDE", str(outside)))
            info.type, info.linkname = kind, link
            if kind == tarfile.REGTYPE:
                info.size = 4
            archive.addfile(info, io.BytesIO(b"evil"))
        return file.getvalue()

    return add


def hostile_zip(name, mode=stat.S_IFREG):
    def add(folder, outside):
        file = io.BytesIO(packed(folder, "zip"))
        with zipfile.ZipFile(file, "a") as archive:
            info = zipfile.ZipInfo(name.replace("OUTSIDE", str(outside)))
            info.external_attr = (mode | 0o644) << 16
            archive.writestr(info, "/etc/passwd")
        return file.getvalue()

    return add


HOSTILE = {
    "parent": (hostile_tar("small/../../../evil"), "upwards"),
    "absolute": (hostile_tar("OUTSIDE/evil"), "absolute"),
    "drive": (hostile_tar("C:\\evil"), "absolute"),
    "symlink": (hostile_tar("small/x", tarfile.SYMTYPE, "/etc"), "a link"),
    "inner link": (hostile_tar("x", tarfile.SYMTYPE, "small"), "a link"),
    "hard link": (hostile_tar("x", tarfile.LNKTYPE, "small/config.json"),
                  "a link"),
    "device": (hostile_tar("small/null", tarfile.CHRTYPE), "device"),
    "fifo": (hostile_tar("small/pipe", tarfile.FIFOTYPE), "device"),
    "twice": (hostile_tar("small/config.json"), "twice"),
    "file as folder": (hostile_tar("small/config.json/x"), "twice"),
    "zip parent": (hostile_zip("../evil"), "upwards"),
    "zip backslash": (hostile_zip("..\\evil"), "upwards"),
    "zip absolute": (hostile_zip("OUTSIDE/evil"), "absolute"),
    "zip symlink": (hostile_zip("small/x", stat.S_IFLNK), "a link"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_refused(server, saved, tmp_path, case):
    make, message = HOSTILE[case]
    content = make(saved[0], tmp_path)
    server.files["a"] = content
    before = set(tmp_path.rglob("evil*"))
    with pytest.raises(ValueError, match=message):
        kf.from_preset(f"{server.url}/files/a#{sha256(content)}")
    assert left_in_cache() == []
    assert set(tmp_path.rglob("evil*")) == before


def test_archive_without_weights_or_with_a_pickle_is_refused(tmp_path, saved):
    (tmp_path / "torch").mkdir()
    config = saved[0] / "config.json"
    shutil.copy(config, tmp_path / "torch" / "config.json")
    # Would run a command if anything unpickled it.
    (tmp_path / "torch" / "pytorch_model.bin").write_bytes(
        b"cos\nsystem\n(S'touch " + bytes(tmp_path / "ran") + b"'\ntR."
    )
    (tmp_path / "a.zip").write_bytes(packed(tmp_path / "torch", "zip"))
    with pytest.raises(ValueError, match="pytorch_model.bin: .*never read"):
        unpack(tmp_path / "a.zip", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    with pytest.raises(ValueError, match="pytorch_model.bin: .*never read"):
        kf.from_preset(tmp_path / "torch")
    assert kf.from_preset(tmp_path / "torch", load_weights=False).built
    assert not (tmp_path / "ran").exists()


# Limits.


@pytest.fixture
def limited():
    """`set_limits` for one test."""
    before = kf.presets.limits()
    yield kf.presets.set_limits
    kf.presets.set_limits(**dataclasses.asdict(before))


@pytest.mark.parametrize(
    "limits, kind, message",
    [
        ({"unpacked_bytes": 9000}, ValueError, "more than 9,000 bytes"),
        ({"archive_files": 2}, ValueError, "more members. The limit is 2"),
        ({"json_bytes": 99}, ValueError, "The limit is 99; .*json_bytes="),
        ({"json_depth": 2}, ValueError, "deep. The limit is 2"),
        ({"array_bytes": 500}, ValueError, "set_limits.array_bytes="),
        ({"download_bytes": 9000}, ValueError, "sends .* bytes or more. The"),
        (
            {"download_seconds": 1e-9},
            ConnectionError,
            "too slow. The limit .* again to resume",
        ),
    ],
)
@pytest.mark.parametrize("archive", ["tar.gz", "zip"])
def test_limits_refuse_and_can_be_raised(
    server, saved, limited, limits, kind, message, archive
):
    content = packed(saved[0], archive)
    server.files["a"] = content
    handle = f"{server.url}/files/a#{sha256(content)}"
    limited(**limits)
    with pytest.raises(kind, match=message):
        kf.from_preset(handle)
    limited(**dataclasses.asdict(kf.presets.Limits()))
    same(kf.from_preset(handle), saved[1])


def test_limits_that_are_none(limited):
    with pytest.raises(ValueError, match="`bytes` is no limit. There are: d"):
        limited(bytes=3)
    for value in (0, -1, "9", None, 1.5):
        with pytest.raises(ValueError, match="`json_depth` must be an int"):
            limited(json_depth=value)
    with pytest.raises(ValueError, match="`expansion` must be a finite"):
        limited(expansion=float("nan"))
    limited(unpacked_bytes=1 << 40)
    assert kf.presets.limits().unpacked_bytes == 1 << 40


def test_a_body_without_an_end_is_cut_off(server, saved, limited):
    """Whose server does not say how long it is."""
    limited(download_bytes=3 << 20)
    with pytest.raises(
        ValueError, match="sends [34],.* bytes or more. The limit"
    ):
        kf.from_preset(f"{server.url}/files/endless#{64 * 'a'}")
    assert left_in_cache() == []


def test_an_archive_whose_files_are_not_those_of_its_checksums(server, saved):
    """The checksum of the archive is right: it was packed so."""
    folder = saved[0].parent / "stale"
    shutil.copytree(saved[0], folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"n_mu": 0.0', '"n_mu": 0.5'))
    content = packed(folder)
    server.files["a"] = content
    with pytest.raises(ValueError, match="config.json is damaged, or was ch"):
        kf.from_preset(f"{server.url}/files/a#{sha256(content)}")
    assert left_in_cache() == []
