"""Reading checkpoints: no pickle is run, what cannot be read is told."""

import functools
import hashlib
import http.server
import pathlib
import pickle
import threading

import numpy as np
import pytest
from helpers.checkpoints import save_safetensors
from helpers.checkpoints import save_torch

import keras_flows as kf
from keras_flows.presets.convert_files import read_checkpoint

pytestmark = pytest.mark.once

HERE = pathlib.Path(__file__).parents[1]


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["a.pt", "a.ckpt", "a.bin", "raw.pt", "a.pkl"])
def test_no_pickle_is_run(name, tmp_path):
    import torch

    evil = {"ema": {"x_embedder.proj.weight": Bomb(tmp_path / "made")}}
    path = tmp_path / name
    if name in ("raw.pt", "a.pkl"):
        path.write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, path)
    with pytest.raises(ValueError, match="state_dict"):
        kf.presets.convert(path, "sit")
    assert not (tmp_path / "made").exists()
    # The bomb works.
    pickle.loads(pickle.dumps(evil))
    assert (tmp_path / "made").exists()


def test_an_archive_of_pickles_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    bomb = np.array([Bomb(tmp_path / "made")], dtype=object)
    np.savez(path, weight=bomb)
    with pytest.raises(ValueError, match="allow_pickle"):
        kf.presets.convert(path, "sit")
    assert not (tmp_path / "made").exists()


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(ValueError, match="no file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="hf:// or https://"):
        read_checkpoint("s3://bucket/a.pt")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint("hf://org/repo/network.pkl")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(f"https://host/edm.pkl#sha256={64 * '0'}")
    (tmp_path / "a.h5").write_bytes(b"")
    with pytest.raises(ValueError, match="endings"):
        read_checkpoint(tmp_path / "a.h5")
    whole = HERE / "published" / "convert_meanflow.msgpack"
    (tmp_path / "a.msgpack").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut off"):
        read_checkpoint(tmp_path / "a.msgpack")
    orbax = tmp_path / "orbax"
    orbax.mkdir()
    (orbax / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match="Orbax.*numpy.savez"):
        read_checkpoint(orbax)
    path = save_safetensors(tmp_path / "a.safetensors", {"a": np.ones(9)})
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="does not lie in the file"):
        read_checkpoint(path)


def test_safetensors_of_all_dtypes_and_shards(tmp_path):
    import torch
    from safetensors.torch import save_file

    half = torch.arange(6.0).reshape(2, 3)
    save_file(
        {"a": half.bfloat16(), "b": half.half()},
        tmp_path / "m-00001-of-00002.safetensors",
    )
    save_file(
        {"c": half.double(), "d": torch.ones((), dtype=torch.int64)},
        tmp_path / "m-00002-of-00002.safetensors",
    )
    state = read_checkpoint(tmp_path).state
    for name in "abc":
        np.testing.assert_array_equal(
            state[name].astype("float32"), half.numpy()
        )
    assert state["d"].shape == () and state["d"] == 1


def test_a_file_by_https_is_checked_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    path = tmp_path / "a.npz"
    np.savez(path, weight=np.ones(3))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.npz#sha256="
        with pytest.raises(ValueError, match="its sha256 is"):
            read_checkpoint(url + 64 * "0")
        state = read_checkpoint(url + digest).state
        server.shutdown()
    np.testing.assert_array_equal(state["weight"], np.ones(3))
    # Once downloaded, no server is needed.
    assert set(read_checkpoint(url + digest).state) == {"weight"}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_of_a_repository_only_plain_data_is_downloaded(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def snapshot(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return tmp_path

    def one(repository, name, revision):
        asked.append((repository, revision, name))
        return tmp_path / name

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    monkeypatch.setattr(hub, "hf_hub_download", one)
    (tmp_path / "part").mkdir()
    save_safetensors(tmp_path / "part" / "a.safetensors", {"a": np.ones(2)})
    save_torch(tmp_path / "b.pt", {"b": np.ones(2)})
    assert set(read_checkpoint("hf://org/repo/part@main").state) == {"a"}
    assert set(read_checkpoint("hf://org/repo/b.pt").state) == {"b"}
    assert asked == [
        ("org/repo", "main", ["part/config.json", "part/*.safetensors"]),
        ("org/repo", None, "b.pt"),
    ]
    with pytest.raises(ValueError, match="one file of weights. It has none"):
        read_checkpoint("hf://org/repo/nothing")
