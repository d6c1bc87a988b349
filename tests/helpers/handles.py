"""A server on this machine for presets.

It speaks what huggingface_hub, kagglehub and plain HTTP ask for; it counts
requests, cuts transfers off and resumes them.
"""

import base64
import contextlib
import hashlib
import http.server
import io
import json
import tarfile
import urllib.parse
import zipfile

import numpy as np

from keras_flows.presets import download

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
        if path == "endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(bytes(1 << 16))
            return
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


def without_checksums(folder):
    """A preset as older versions saved it, whose files are not checked."""
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata.pop("sha256", None)
    path.write_text(json.dumps(metadata))
