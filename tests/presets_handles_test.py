"""Presets by handle: downloads, the cache, bad archives, cards, uploads.

A server on this machine speaks what huggingface_hub, kagglehub and plain
HTTP ask for; it counts requests, cuts transfers off and resumes them.
"""

import base64
import hashlib
import http.server
import io
import json
import pathlib
import shutil
import stat
import sys
import tarfile
import threading
import urllib.parse
import zipfile

import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.presets import download
from keras_flows.presets.archives import unpack

pytestmark = pytest.mark.once
ROOT = pathlib.Path(__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(http.server.ThreadingHTTPServer):
    """Files under /files; Hugging Face's and Kaggle's interfaces to them.

    Attributes:
        files: dict of path -> bytes.
        hub: dict of repository -> dict of path -> bytes.
        cut: dict of the end of a path -> bytes after which its next transfer
            breaks off.
        log: list of (method, path, Range or None).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files, self.hub, self.cut, self.log = {}, {}, {}, []
        self.ranges = True

    def asked(self, ending, method="GET"):
        """The Range headers of all requests for a path."""
        return [
            wanted
            for verb, path, wanted in self.log
            if verb == method and path.endswith(ending)
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        self._answer(self.rfile.read(size))

    def _answer(self, body=b""):
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        self.server.log.append((self.command, path, self.headers.get("Range")))
        for begin, reply in (
            ("/files/", self._file),
            ("/api/v1/models.ModelApiService/", self._kaggle),
            ("/api/", self._hub),
            ("/", self._resolve),
        ):
            if path.startswith(begin):
                reply(path.removeprefix(begin), body)
                return

    def _send(self, status, content=b"", headers=()):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        # No connection outlives the server.
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content, status=200):
        head = {"Content-Type": "application/json"}
        self._send(status, json.dumps(content).encode(), head)

    def _bytes(self, name, content, headers=()):
        """A file, or the rest of it, perhaps cut off."""
        headers = {"Accept-Ranges": "bytes", **dict(headers)}
        status, total = 200, len(content)
        wanted = self.headers.get("Range")
        if wanted and self.server.ranges and self.command == "GET":
            begin = int(wanted.removeprefix("bytes=").split("-")[0])
            if begin >= total:
                self._send(416, b"", {"Content-Range": f"bytes */{total}"})
                return
            status, content = 206, content[begin:]
            headers["Content-Range"] = f"bytes {begin}-{total - 1}/{total}"
        cuts = [end for end in self.server.cut if name.endswith(end)]
        if not cuts or self.command == "HEAD":
            self._send(status, content, headers)
            return
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content[: self.server.cut.pop(cuts[0])])

    def _file(self, path, body):
        if path not in self.server.files:
            self._send(404)
            return
        self._bytes(path, self.server.files[path])

    def _hub(self, path, body):
        parts = path.split("/")
        if path == "repos/create":
            order = json.loads(body)
            name = f"{order['organization']}/{order['name']}"
            self.server.hub.setdefault(name, {})
            self._json({"url": f"{self.server.url}/{name}"})
            return
        if path == "validate-yaml":
            self._json({"errors": [], "warnings": []})
            return
        name = "/".join(parts[1:3])
        if parts[0] != "models" or name not in self.server.hub:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
            return
        files, order = self.server.hub[name], parts[3:]
        if order and order[0] == "revision" and order[1] == "none":
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif order and order[0] == "tree":
            self._json(
                [
                    {"type": "file", "path": key, "size": len(value),
                     "oid": hashlib.sha1(value).hexdigest()}
                    for key, value in files.items()
                ]
            )  # fmt: skip
        elif order and order[0] == "preupload":
            self._json(
                {
                    "files": [
                        {"path": each["path"], "uploadMode": "regular",
                         "shouldIgnore": False}
                        for each in json.loads(body)["files"]
                    ]
                }
            )  # fmt: skip
        elif order and order[0] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    files[value["path"]] = base64.b64decode(value["content"])
            self._json(
                {"success": True, "commitOid": COMMIT,
                 "commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}"}
            )  # fmt: skip
        else:
            self._json({"id": name, "sha": COMMIT, "siblings": []})

    def _resolve(self, path, body):
        parts = path.split("/")
        content = self.server.hub["/".join(parts[:2])]["/".join(parts[4:])]
        etag = hashlib.sha1(content).hexdigest()
        head = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        self._bytes(path, content, head)

    def _kaggle(self, path, body):
        order = json.loads(body)
        name = "/".join(
            (order["ownerSlug"], order["modelSlug"], order["instanceSlug"])
        )
        if name not in self.server.hub:
            self._json({"code": 404, "message": "none"}, 404)
        elif path == "GetModelInstance":
            self._json({"versionNumber": 3})
        elif path == "ListModelInstanceVersionFiles":
            files = [{"name": key} for key in self.server.hub[name]]
            self._json({"files": files, "nextPageToken": ""})
        else:
            key = f"{name}/{order['versionNumber']}/{order['path']}"
            self.server.files[key] = self.server.hub[name][order["path"]]
            target = f"{self.server.url}/files/{key}"
            self._send(302, b"", {"Location": target})


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
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


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def packed(folder, kind="tar.gz", inside="small/"):
    """A preset's folder as an archive."""
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in contents(folder).items():
                archive.writestr(inside + name, content)
    else:
        mode = "w:" + kind.partition(".")[2]
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name, content in contents(folder).items():
                info = tarfile.TarInfo(inside + name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def same(model, other):
    assert type(model) is type(other)
    assert model.variables
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def left_in_cache():
    """Files and folders of the https cache, empty lock files apart."""
    cache = download.cache_folder()
    if not cache.is_dir():
        return []
    return [p.name for p in cache.iterdir() if p.name != ".locks"]


# Archives by https.


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


# Names, sizes, cards.


def figures():
    """{(preset, metric): number} as docs/results has them."""
    results = ROOT / "docs" / "results"
    found = {}
    boards = json.loads((results / "presets.json").read_text())
    for name, result in boards.items():
        steps = dict(zip((1, 2, 4, 8, 16), result["samples"]["kl"]))
        for n in (1, 4, 16):
            plural = "s" if n > 1 else ""
            found[name, f"KL, {n} step{plural}"] = round(steps[n], 4)
    runs = json.loads((results / "metaworld.json").read_text())["runs"]
    for name, objective in (
        ("flow_shelf_place", "flow"),
        ("mip_shelf_place", "mip:public"),
    ):
        run = next(
            run
            for run in runs
            if (run["task"], run["objective"], run["seed"])
            == ("shelf-place-v3", objective, 0)
        )
        for n, result in run["success"].items():
            plural = "s" if n != "1" else ""
            found[name, f"success, {n} step{plural}"] = result["success"]
    digits = json.loads((results / "digits.json").read_text())["objectives"]
    for objective in ("sit", "edm", "mean_flow", "repa"):
        name, steps = f"{objective}_digits", digits[objective]["steps"]
        one_step = objective == "mean_flow"
        for n in ("1", "2", "4", "32") if one_step else ("4", "32"):
            plural = "s" if n != "1" else ""
            found[name, f"FD, {n} step{plural}"] = round(steps[n]["fd"], 2)
        n, text = ("1", "1 step") if one_step else ("32", "32 steps")
        found[name, f"accuracy, {text}"] = round(steps[n]["accuracy"], 4)
    return found


def test_registry_tells_what_the_results_tell():
    # What other tests register has a handle.
    shipped = {
        name: entry
        for name, entry in kf.presets.BUILTIN.items()
        if entry.handle is None
    }
    told = {
        (name, metric): value
        for name, entry in shipped.items()
        for metric, value in entry.metrics.items()
    }
    assert told == figures()
    for name in shipped:
        entry = kf.presets.BUILTIN[name]
        card = kf.presets.preset_folder(name) / "README.md"
        for metric, value in entry.metrics.items():
            assert f"| {metric} | {value} |" in card.read_text()
        assert (ROOT / entry.recipe).is_file()
        text = kf.presets.describe(name)
        assert text.startswith(f"{name}: {entry.description}\n")
        assert entry.recipe in text and entry.results in text
        weights = kf.presets.preset_folder(name) / "model.weights.h5"
        assert f"{weights.stat().st_size / 1e6:.1f} MB" in text
        assert text in kf.presets.describe()
    assert "FlowMapInterface, 425,031 parameters" in kf.presets.describe(
        "lsd_checkerboard"
    )
    with pytest.raises(ValueError, match="Perhaps: mip_shelf_place"):
        kf.presets.describe("mip_shelf_plac")


def test_a_registered_name_leads_to_its_handle(server, saved, monkeypatch):
    monkeypatch.setattr(
        kf.presets.registry, "BUILTIN", dict(kf.presets.BUILTIN)
    )
    monkeypatch.setattr(
        kf.presets.handles, "BUILTIN", kf.presets.registry.BUILTIN
    )
    folder, model = saved
    content = packed(folder)
    server.files["a.tgz"] = content
    handle = f"{server.url}/files/a.tgz#{sha256(content)}"
    entry = kf.presets.Entry("Two-dimensional toy.", handle=handle)
    kf.presets.register("my_toy", entry)
    same(kf.from_preset("my_toy"), model)
    assert handle in kf.presets.describe("my_toy")
    with pytest.raises(ValueError, match="exists"):
        kf.presets.register("my_toy", entry)
    with pytest.raises(ValueError, match="`handle`"):
        kf.presets.register("other", kf.presets.Entry("Nowhere."))


def test_card(tmp_path):
    model = kf.FlowMapInterface(
        kf.networks.MLP(2, 8, 1, two_times=True), "psd", ema=None
    )
    model.save_to_preset(
        tmp_path / "map",
        card=kf.presets.Card(
            description="A toy.",
            license="apache-2.0",
            data="Checkerboard, 4 x 4.",
            metrics={"KL | 1 step": 0.5},
            command="python recipes/checkerboard.py",
            tags=("toy: a",),
        ),
    )
    text = (tmp_path / "map" / "README.md").read_text()
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "library_name": "keras_flows",
        "license": "apache-2.0",
        "tags": ["keras", "keras_flows", "FlowMapInterface", "toy: a"],
    }
    for line in (
        "# map",
        "| Class | FlowMapInterface |",
        "| Objective | psd |",
        "| Interpolant | Linear |",
        "| Network | MLP |",
        f"| Parameters | {model.count_params():,} |",
        "| KL \\| 1 step | 0.5 |",
        "Checkerboard, 4 x 4.",
        "python recipes/checkerboard.py",
    ):
        assert line in text.splitlines(), line
    # Nothing is claimed that is not known.
    model.save_to_preset(tmp_path / "plain")
    plain = (tmp_path / "plain" / "README.md").read_text()
    assert "Not given." in plain and "license:" not in plain
    assert "## Data" not in plain and "Metric" not in plain


# Options of from_preset.


def test_network_class_is_inferred_and_checked(tmp_path):
    network = kf.networks.MLP(2, 8, 1)
    network.save_to_preset(tmp_path / "mlp")
    same(kf.networks.MLP.from_preset(tmp_path / "mlp"), network)
    same(kf.from_preset(tmp_path / "mlp"), network)
    with pytest.raises(ValueError, match="holds a MLP, which is no DiT"):
        kf.networks.DiT.from_preset(tmp_path / "mlp")
    with pytest.raises(ValueError, match="MLP, which is no Interface"):
        kf.Interface.from_preset(tmp_path / "mlp")
    policy = kf.from_preset("mip_shelf_place")
    assert type(policy) is kf.policies.Policy


def test_fresh_weights_are_random(saved):
    """And initial values are skipped only while weights are loaded."""
    folder, model = saved
    first, second = (kf.from_preset(folder, load_weights=False) for _ in "ab")
    kernels = [m.network.layers[-1].kernel.numpy() for m in (first, second)]
    assert np.abs(kernels[0]).min() > 0 and np.abs(kernels[1]).min() > 0
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    assert keras.layers.Dense(3)(np.ones((1, 2))).shape == (1, 3)
    dense = keras.layers.Dense(3)
    dense.build((None, 2))
    assert np.abs(dense.kernel.numpy()).min() > 0


def test_skipped_initializers_are_this_thread_s_only():
    from keras_flows.presets.initializers import skipped

    found = {}

    def draw(name):
        value = keras.initializers.GlorotUniform(seed=0)((4, 4))
        found[name] = np.abs(keras.ops.convert_to_numpy(value)).max()

    with skipped():
        draw("inside")
        thread = threading.Thread(target=draw, args=("other thread",))
        thread.start()
        thread.join()
    draw("after")
    assert found["inside"] == 0
    assert found["other thread"] == found["after"] > 0


def test_dtype(saved, tmp_path):
    folder, model = saved
    loaded = kf.from_preset(folder, dtype="bfloat16")
    kernel = loaded.network.layers[-1].kernel
    assert kernel.dtype == "bfloat16"
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32")),
        model.network.layers[-1].kernel.numpy(),
        rtol=2**-8,
    )
    mixed = kf.from_preset("lsd_checkerboard", dtype="mixed_bfloat16")
    assert mixed.network.layers[-1].compute_dtype == "bfloat16"
    assert mixed.network.layers[-1].kernel.dtype == "float32"
    assert mixed.emas[0].updates.dtype == "int32"
    exact = kf.from_preset("lsd_checkerboard").generate(64, num_steps=1, seed=0)
    error = np.abs(mixed.generate(64, num_steps=1, seed=0) - exact).max()
    # Eight bits in each of five layers; and not none at all.
    assert 1e-5 < error < 0.1
    # A plain functional model has its layers' types only.
    x = keras.Input((2,))
    plain = keras.Model(x, keras.layers.Dense(3)(x))
    kf.presets.save_to_preset(plain, tmp_path / "plain")
    half = kf.from_preset(tmp_path / "plain", dtype="bfloat16")
    assert half.layers[-1].kernel.dtype == "bfloat16"


def test_sharded_weights(server, tmp_path):
    model = kf.SiTInterface(kf.networks.MLP(2, 32, 3), ema=None)
    folder = tmp_path / "shards"
    model.save_to_preset(folder, max_shard_size=9e-6)
    shards = sorted(p.name for p in folder.glob("*.weights.h5"))
    assert len(shards) >= 2 and not (folder / "model.weights.h5").exists()
    same(kf.from_preset(folder), model)
    content = packed(folder)
    server.files["a.tgz"] = content
    same(kf.from_preset(f"{server.url}/files/a.tgz#{sha256(content)}"), model)
    (folder / shards[-1]).unlink()
    with pytest.raises(ValueError, match=f"shard '{shards[-1]}'"):
        kf.from_preset(folder)
    index = json.loads((folder / "model.weights.json").read_text())
    index["weight_map"]["/x/vars"] = "../../secret.weights.h5"
    (folder / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="secret.weights.h5"):
        kf.from_preset(folder)


# Bad input.


def copy_of(saved, tmp_path, change=None):
    folder = tmp_path / "copy"
    shutil.copytree(saved[0], folder)
    if change:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_unknown_presets(tmp_path):
    with pytest.raises(ValueError, match="'lsd_checkerboard'.* is meant"):
        kf.from_preset("lsd_chekerboard")
    with pytest.raises(ValueError, match="folder has no config.json"):
        kf.from_preset(tmp_path)
    with pytest.raises(ValueError, match="begins with hf://, kaggle://"):
        kf.from_preset("s3://bucket/preset")
    with pytest.raises(ValueError, match="not encrypted"):
        kf.from_preset(f"http://example.com/a.zip#{64 * 'a'}")
    for fragment in ("", "#", "#abc", "#md5=" + 32 * "a"):
        with pytest.raises(ValueError, match="#sha256=<64 hex digits>"):
            kf.from_preset(f"https://example.com/a.zip{fragment}")


@pytest.mark.parametrize(
    "text, message",
    [("{", "is not JSON"), ("[]", "JSON object"), ("{}", "'class_name'")],
)
def test_config_that_is_none(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        kf.from_preset(tmp_path)


def test_class_that_is_not_registered(saved, tmp_path):
    def change(config):
        config["config"]["network"].update(
            module="my_project.nets", registered_name="mine>Net"
        )

    folder = copy_of(saved, tmp_path, change)
    with pytest.raises(ValueError, match="mine>Net.*import my_project.nets"):
        kf.from_preset(folder)


def test_code_in_a_config_is_refused(saved, tmp_path):
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Lambda(lambda v: 2 * v)(x))
    kf.presets.save_to_preset(model, tmp_path / "lambda")
    with pytest.raises(ValueError, match="Lambda|lambda|unsafe"):
        kf.from_preset(tmp_path / "lambda")

    def change(config):
        config["config"]["interpolant"] = {
            "class_name": "function", "config": "system", "module": "os",
            "registered_name": "function",
        }  # fmt: skip

    with pytest.raises((TypeError, ValueError), match="system"):
        kf.from_preset(copy_of(saved, tmp_path, change))


def test_weights_of_another_size(saved, tmp_path):
    folder = copy_of(
        saved, tmp_path, lambda c: c["config"]["network"]["config"].update(
            width=40)
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"hidden_0/kernel has the shape \("
    ) as e:
        kf.from_preset(folder)
    assert len(str(e.value)) < 400


def test_truncated_weights(saved, tmp_path):
    folder = copy_of(saved, tmp_path)
    weights = folder / "model.weights.h5"
    weights.write_bytes(weights.read_bytes()[:-3000])
    with pytest.raises(OSError, match="model.weights.h5 cannot be read"):
        kf.from_preset(folder)


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


def test_save_refuses_what_is_no_preset(saved, tmp_path):
    (tmp_path / "notes.txt").write_text("keep")
    for target in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="not a preset"):
            saved[1].save_to_preset(target)
    assert (tmp_path / "notes.txt").read_text() == "keep"
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt"}
