"""A server of presets on this machine, and caches in the test's folder."""

import threading

import keras
import pytest
from helpers.handles import Server

import keras_flows as kf


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def own_caches(tmp_path, monkeypatch):
    """Every cache in the test's folder, and no credentials but a fake one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kaggle"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hugging_face(server, tmp_path, monkeypatch):
    """huggingface_hub, asking the server; its variables are read once."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        server.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    # An unfinished chunk is dropped; the files here are smaller than one.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setenv("HF_TOKEN", "hf_fake")
    return server


@pytest.fixture
def kaggle(server, monkeypatch):
    """kagglehub, asking the server."""
    from kagglehub import clients
    from kagglesdk import kaggle_env

    monkeypatch.setattr(clients, "CHUNK_SIZE", 1000)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(
        kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.url
    )
    return server


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(folder of a preset, its model); the weights are about 30 kB."""
    keras.utils.set_random_seed(1)
    model = kf.SiTInterface(kf.networks.MLP(2, 48, 2), ema=None)
    folder = tmp_path_factory.mktemp("saved") / "small"
    model.save_to_preset(folder)
    return folder, model
