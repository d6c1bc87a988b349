"""Presets by handle: Hugging Face, Kaggle, the cache, uploads."""

import pathlib
import sys

import pytest
from helpers.handles import contents
from helpers.handles import left_in_cache
from helpers.handles import same

import keras_flows as kf

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("own_caches")]


# Hugging Face.


def test_hugging_face_folder_revision_and_cache(hugging_face, saved):
    folder, model = saved
    hugging_face.hub["me/flows"] = {
        **{f"maps/small/{k}": v for k, v in contents(folder).items()},
        "maps/small/pytorch_model.bin": b"never downloaded",
        "other/model.weights.h5": b"of another preset",
    }
    handle = "hf://me/flows/maps/small@v1.0"
    same(kf.from_preset(handle), model)
    paths = [path for _, path, _ in hugging_face.log]
    assert "/api/models/me/flows/revision/v1.0" in paths
    assert not [p for p in paths if "pytorch" in p or "other" in p]
    assert len(hugging_face.asked("model.weights.h5")) == 1
    same(kf.from_preset(handle), model)
    assert len(hugging_face.asked("model.weights.h5")) == 1
    # Without a network the cache is what there is.
    hugging_face.shutdown()
    hugging_face.server_close()
    same(kf.from_preset(handle), model)
    with pytest.raises(ConnectionError, match="only cached presets"):
        kf.from_preset("hf://me/unknown")


def test_hugging_face_resumes(hugging_face, saved):
    folder, model = saved
    hugging_face.hub["me/small"] = contents(folder)
    hugging_face.cut["model.weights.h5"] = 5000
    same(kf.from_preset("hf://me/small"), model)
    assert hugging_face.asked("model.weights.h5") == [None, "bytes=5000-"]


def test_hugging_face_errors(hugging_face, saved, tmp_path, monkeypatch):
    hugging_face.hub["me/small"] = contents(saved[0])
    for handle in ("hf://me/nothing", "hf://me/small@none"):
        with pytest.raises(ValueError, match="no such repository or revision"):
            kf.from_preset(handle)
    with pytest.raises(ValueError, match="has no config.json"):
        kf.from_preset("hf://me/small/folder")
    for handle in ("hf://small", "hf://me/small/../x", "hf://me/small@"):
        with pytest.raises(ValueError, match="hf://org/repository"):
            kf.from_preset(handle)
    from huggingface_hub import constants

    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set HF_HOME"):
        kf.from_preset("hf://me/small")


@pytest.mark.parametrize("form", ["model", "folder"])
def test_upload_to_hugging_face_and_back(hugging_face, saved, form):
    folder, model = saved
    handle = "hf://me/new/small" if form == "model" else "hf://me/new"
    card = kf.presets.Card(license="mit", data="points")
    if form == "model":
        kf.presets.upload_preset(model, handle, card=card)
    else:
        kf.presets.upload_preset(folder, handle)
        with pytest.raises(ValueError, match="`card` is for a model"):
            kf.presets.upload_preset(folder, handle, card=card)
    same(kf.from_preset(handle), model)
    readme = next(
        value
        for key, value in hugging_face.hub["me/new"].items()
        if key.endswith("README.md")
    )
    assert (b'license: "mit"' in readme) == (form == "model")


# Kaggle.


def test_kaggle_versions_cache_and_resuming(kaggle, saved):
    folder, model = saved
    kaggle.hub["me/flows/small"] = contents(folder)
    kaggle.cut["model.weights.h5"] = 5000
    handle = "kaggle://me/flows/keras/small"
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        kf.from_preset(handle)
    same(kf.from_preset(handle), model)
    ranges = kaggle.asked("/3/model.weights.h5")
    assert ranges[0] is None and "bytes=5000-" in ranges
    count = len(ranges)
    same(kf.from_preset(f"{handle}/3"), model)
    assert len(kaggle.asked("/3/model.weights.h5")) == count
    kaggle.shutdown()
    kaggle.server_close()
    same(kf.from_preset(f"{handle}/3"), model)
    with pytest.warns(UserWarning, match="version 3, the newest in the cache"):
        same(kf.from_preset(handle), model)
    with pytest.raises(ConnectionError, match="only cached presets"):
        kf.from_preset(f"{handle}/2")


def test_kaggle_errors(kaggle, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no such model or version"):
        kf.from_preset("kaggle://me/flows/keras/nothing")
    for handle in ("kaggle://me/flows", "kaggle://me/flows/keras/a/newest"):
        with pytest.raises(ValueError, match="kaggle://owner/model"):
            kf.from_preset(handle)
    kaggle.hub["me/flows/small"] = {"config.json": b"{}"}
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set KAGGLEHUB_CACHE"):
        kf.from_preset("kaggle://me/flows/keras/small")


def test_upload_to_kaggle(saved, monkeypatch):
    """Kaggle's upload is a protocol of its own; only its call is tested."""
    import kagglehub

    calls = []

    def model_upload(handle, folder, license_name, version_notes):
        files = contents(pathlib.Path(folder))
        calls.append((handle, sorted(files), license_name, version_notes))

    monkeypatch.setattr(kagglehub, "model_upload", model_upload)
    kf.presets.upload_preset(
        saved[1],
        "kaggle://me/flows/keras/small",
        card=kf.presets.Card(license="Apache 2.0"),
        message="first",
    )
    assert calls == [
        ("me/flows/keras/small", sorted(contents(saved[0])), "Apache 2.0",
         "first")
    ]  # fmt: skip
    with pytest.raises(ValueError, match="must not name a version"):
        kf.presets.upload_preset(saved[0], "kaggle://me/flows/keras/small/2")
    with pytest.raises(ValueError, match="hf:// or kaggle://"):
        kf.presets.upload_preset(saved[0], "https://example.com/small.zip")


@pytest.mark.parametrize(
    "package, handle",
    [
        ("huggingface_hub", "hf://me/small"),
        ("kagglehub", "kaggle://me/flows/keras/small"),
    ],
)
def test_missing_extra_names_the_command(monkeypatch, saved, package, handle):
    monkeypatch.setitem(sys.modules, package, None)
    expected = rf"{package}: pip install 'keras_flows\[hub\]'"
    with pytest.raises(ImportError, match=expected):
        kf.from_preset(handle)
    with pytest.raises(ImportError, match=expected):
        kf.presets.upload_preset(saved[0], handle)


def test_cache_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="Set KERAS_HOME"):
        kf.from_preset(f"{server.url}/files/a#{64 * 'a'}")
    assert not server.log


def test_no_network_and_missing_file(server):
    with pytest.raises(ConnectionError, match="404"):
        kf.from_preset(f"{server.url}/files/none#{64 * 'a'}")
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match="only cached presets load"):
        kf.from_preset(f"{server.url}/files/a#{64 * 'a'}")
    assert left_in_cache() == []
