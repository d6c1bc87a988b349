"""The service as a process: under load, at its end, from the installed files.

KERAS_FLOWS_FULL_LOAD=1 visits it by 300 slow bodies, 2,000 requests, 200 at
once, and 40 clients that leave, and prints the figures.
"""

import asyncio
import fnmatch
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib

import pytest

import keras_flows as kf

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from helpers.clients import visit
from helpers.commands import refused
from helpers.services import call
from helpers.services import gauge
from helpers.services import post_head
from helpers.services import until

from keras_flows.serving import server

pytestmark = pytest.mark.once

ROOT = pathlib.Path(kf.__file__).parent
FULL = "KERAS_FLOWS_FULL_LOAD" in os.environ
LOAD = {
    "slow": 300 if FULL else 30,
    "requests": 2000 if FULL else 200,
    "at_once": 200 if FULL else 40,
    "leaving": 40 if FULL else 8,
    "size": 1_000_000 if FULL else 200_000,
}
BODY_SECONDS = 10.0 if FULL else 1.5


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """(process, port, its log's file)."""
    log = tmp_path_factory.mktemp("service") / "log"
    flags = {
        "preset": "lsd_checkerboard",
        "num_steps": 1,
        "port": 0,
        "body_seconds": BODY_SECONDS,
    }
    with open(log, "w") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "keras_flows.serving",
                *(f"--{name}={value}" for name, value in flags.items()),
            ],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            cwd=ROOT.parent,
        )
    line = process.stdout.readline()
    found = re.fullmatch(r"Ready: http://127\.0\.0\.1:(\d+)\n", line)
    assert found, (line, log.read_text())
    yield process, int(found[1]), log
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_clients_of_all_kinds(service):
    """All are answered or refused in time; nothing of them stays."""
    process, port, _ = service
    url = f"http://127.0.0.1:{port}"
    # The first requests make what stays: threads, buffers.
    asyncio.run(visit(port, pid=process.pid, seconds=30, **LOAD | {"slow": 1}))
    figures = asyncio.run(
        visit(port, pid=process.pid, seconds=BODY_SECONDS + 30, **LOAD)
    )
    print(json.dumps(figures))
    # Within the limits every request is answered.
    assert figures["answers"] == {200: LOAD["requests"]}
    assert set(figures["slow_bodies"]) <= {408, 503}
    assert sum(figures["slow_bodies"].values()) == LOAD["slow"]
    assert figures["slowest_body_s"] < BODY_SECONDS + 25
    rss = figures["rss_mb"]
    assert rss["peak"] <= 1.1 * rss["start"], rss
    for left in ("waiting_rows", "requests_in_work"):
        assert until(lambda left=left: gauge(url, left) == 0)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_line_of_curl_in_the_docs(service):
    """As it stands, but for the port."""
    _, port, _ = service
    text = (ROOT.parent / "docs" / "serving.md").read_text()
    (line,) = re.findall(r"^curl (?:.*\\\n)*.*$", text, re.MULTILINE)
    line = line.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
    output = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=True
    ).stdout
    answer = json.loads(output)
    assert (answer["shape"], answer["seed"]) == ([4, 2], 0)


def test_a_port_in_use_is_one_sentence(service, capsys):
    """Before the model is looked for."""
    _, port, _ = service
    words = ["serve", "--preset=none_of_this_name", f"--port={port}"]
    assert refused(capsys, *words) == (
        f"Port {port} of 127.0.0.1 is in use: choose another by --port, or 0 "
        "for any that is free."
    )
    words = ["serve", "--preset=x", "--host=no.such.host.invalid", "--port=0"]
    assert re.search("no.such.host.invalid.*--host", refused(capsys, *words))


def test_a_signal_ends_it_when_all_are_answered(service):
    """Exit status 0 in bounded time; half a body does not keep it."""
    process, port, log = service
    url = f"http://127.0.0.1:{port}"
    answers = []

    def ask():
        # Other steps than before: on some backends it compiles first.
        body = {"num_samples": 64, "num_steps": 12}
        answers.append(call(f"{url}/sample", body)[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    with socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(post_head(1000).encode() + b"[")
        for thread in threads:
            thread.start()
        work = "requests_in_work"
        assert until(lambda: gauge(url, work) + len(answers) == 3)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert process.wait(timeout=60) == 0
    assert answers == [200] * 3
    assert spoken_is_refused(port)
    text = log.read_text()
    assert "Traceback" not in text
    assert len(re.findall(r"INFO \w+ POST /sample 200", text)) >= 3


def test_a_batch_that_runs_on_is_not_waited_for(monkeypatch):
    """Python's own end would join its thread."""
    ended = []
    monkeypatch.setattr(server.os, "_exit", ended.append)
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    server.end()
    go.set()
    thread.join()
    assert ended == [0]


def spoken_is_refused(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    return True


def test_package_data():
    """Every file beside Python's goes into a wheel."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]
    patterns = [
        (ROOT.parent / package.replace(".", "/") / pattern).as_posix()
        for package, given in data.items()
        for pattern in given
    ]
    files = [
        path.as_posix()
        for path in ROOT.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert any(file.endswith("page.html") for file in files)
    for file in files:
        assert any(fnmatch.fnmatch(file, p) for p in patterns), file
