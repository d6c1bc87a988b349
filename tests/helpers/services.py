"""Services to test by: a source without a model, one that runs, its client."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import uvicorn

from keras_flows.serving import sources
from keras_flows.serving.app import create_app
from keras_flows.serving.server import Protocol
from keras_flows.serving.server import Server

SIZES = (1, 4, 16)


def fake(noise=(2,), delay=0.0, go=None, **options):
    """A source that gives noise + 10 label + steps, and its batch sizes.

    With an event `go` all batches after the first size's wait for it.
    """
    seen = []

    def run(inputs, num_steps, guidance_scale):
        seen.append(len(inputs["noise"]))
        time.sleep(delay)
        if go is not None and len(seen) > 1:
            go.wait()
        label = inputs.get("condition", np.zeros(len(inputs["noise"])))
        if (label == 3).any():
            raise RuntimeError("a sampler that fails")
        label = label.reshape(-1, *[1] * len(noise))
        return inputs["noise"] + 10.0 * label + num_steps

    options = {"num_steps": 1, "fixed": False, "null_label": 4} | options
    inputs = {"condition": ((), "int32")}
    return sources.Source("fake", noise, inputs, run, **options), seen


@contextlib.contextmanager
def serving(source, **options):
    """The address of a running service."""
    options = {"sizes": SIZES, "max_samples": 100} | options
    service = create_app(source, **options)
    config = uvicorn.Config(
        service, http=Protocol, port=0, log_level="critical", log_config=None
    )
    server = Server(config, service.state.house, "in a test")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def call(url, body=None):
    """(status, JSON) of a GET, or of a POST with a body."""
    data = body
    if body is not None and not isinstance(body, bytes):
        data = json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def spoken(url, head, body=b"", seconds=60.0):
    """(status, {header: value}, body) of bytes that are sent as they are.

    Status None where the connection ends without an answer.
    """
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(head.encode() + body)
        data = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                data += piece
    if not data:
        return None, {}, b""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def post_head(length, *lines, host="localhost"):
    """The head of a POST /sample, whose connection closes after it."""
    lines = (
        "POST /sample HTTP/1.1",
        f"host: {host}",
        "content-type: application/json",
        "connection: close",
        f"content-length: {length}",
        *lines,
    )
    return "\r\n".join(lines) + "\r\n\r\n"


def gauge(url, name):
    """A number of /metrics."""
    head = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
    lines = spoken(url, head + "\r\n")[2].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    return float(values.get(f"keras_flows_{name}", 0))


def until(condition, seconds=60.0):
    """Whether a condition comes true in time."""
    end = time.time() + seconds
    while time.time() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def noise_of(seed, rows, shape=(2,)):
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.standard_normal((rows, *shape), dtype="float32")
