"""What the service refuses, forgets and tells: bodies, hosts, clients, NaN."""

import json
import logging
import re
import socket
import threading
import time

import numpy as np
import pytest
from keras import ops

import keras_flows as kf

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from helpers.services import call
from helpers.services import fake
from helpers.services import gauge
from helpers.services import noise_of
from helpers.services import post_head
from helpers.services import serving
from helpers.services import spoken
from helpers.services import until

from keras_flows.serving import server
from keras_flows.serving import sources
from keras_flows.serving.gate import HEADERS

pytestmark = pytest.mark.once

GONE = 'requests_total{path="/sample",status="499"}'
GET = "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{}\r\n"


@pytest.fixture(scope="module")
def url():
    """A service that refuses soon."""
    source, _ = fake((2,))
    run = source.run

    def not_always(inputs, num_steps, guidance_scale):
        if num_steps == 7:
            raise ValueError("`num_steps` must not be 7.")
        samples = run(inputs, num_steps, guidance_scale)
        samples[inputs["condition"] == 2, 0] = np.nan
        samples[inputs["condition"] == 1, 1] = np.inf
        return samples

    source = sources.Source(**vars(source) | {"run": not_always})
    limits = {"max_bytes": 2000, "body_seconds": 0.5, "max_values": 120}
    hosts = ("flows.example.com", "*.inside.example.com")
    with serving(source, allowed_hosts=hosts, wait_ms=20.0, **limits) as url:
        yield url


@pytest.mark.parametrize("encoding", ["json", "png"])
@pytest.mark.parametrize("labels, rows", [([2], [0]), ([0, 1, 0, 2], [1, 3])])
def test_samples_that_are_not_finite(url, labels, rows, encoding):
    """A reason and the rows, in JSON; neighbours in the batch are answered."""
    source, _ = fake((4, 4, 1))
    answers = {}

    def ask(name, body):
        answers[name] = call(f"{url}/sample", body)

    def nan(inputs, *_):
        samples = np.array(inputs["noise"])
        samples[inputs["condition"] == 2] = np.nan
        samples[inputs["condition"] == 1] = np.inf
        return samples

    if encoding == "png":
        pytest.importorskip("PIL")
        source = sources.Source(**vars(source) | {"run": nan})
        with serving(source, sizes=(4,)) as other:
            body = {"condition": labels, "encoding": "png"}
            status, answer = call(f"{other}/sample", body)
    else:
        threads = [
            threading.Thread(target=ask, args=("bad", {"condition": labels})),
            threading.Thread(target=ask, args=("good", {"condition": 0})),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers["good"][0] == 200
        status, answer = answers["bad"]
    assert status == 500
    answer = json.loads(answer)
    assert answer["not_finite"] == rows and "NaN" in answer["detail"]


@pytest.mark.parametrize(
    "body, status",
    [
        (b'{"guidance_scale": NaN, "condition": 1}', 422),
        (b'{"guidance_scale": 1e999, "condition": 1}', 422),
        (b'{"guidance_scale": 1e30, "condition": 1}', 422),
        (b'{"condition": NaN}', 422),
        (b'{"condition": [Infinity, 1]}', 422),
        (b'{"more": NaN, "condition": 1}', 422),
        (b'{"condition": 0, "num_steps": 7}', 422),
        (b"[" * 1900, 400),
        (b'{"seed": ' + b"9" * 1900 + b"}", 422),
        (b'{"condition": 0, "num_samples": 70}', 413),
    ],
)
def test_bad_values_are_answered_in_json(url, body, status):
    """Never by a 500: what came is not sent back."""
    status_found, answer = call(f"{url}/sample", body)
    assert status_found in (status, 400, 422) and status_found // 100 == 4
    assert json.loads(answer)["detail"] and len(answer) < 1000


def test_a_page_elsewhere_cannot_ask(url):
    """Its request would have to be of a type that no form sends."""
    body = b'{"condition": 0}'
    head = post_head(len(body)).replace("application/json", "text/plain")
    assert spoken(url, head, body)[0] == 422


@pytest.mark.parametrize(
    "host, served",
    [
        ("localhost", True),
        ("LOCALHOST:99", True),
        ("127.0.0.1:80", True),
        ("[::1]:80", True),
        ("flows.example.com", True),
        ("a.b.inside.example.com:8000", True),
        ("inside.example.com", False),
        ("evil.com", False),
        ("127.0.0.1.evil.com", False),
        ("localhost.evil.com", False),
        ("evil.com:localhost", False),
        ("localhost@evil.com", False),
        ("10.1.2.3", False),
        ("", False),
    ],
)
def test_hosts(url, host, served):
    for path in ("/model", "/", "/metrics", "/nothing"):
        status, _, body = spoken(url, GET.format(path, host, ""))
        found = status in (200, 404)
        assert found == served, (path, status)
        assert served or b"--allowed_hosts" in body


def test_every_answer_has_its_headers(url):
    """Also those of the gate, of errors and of what is not there."""
    body = b'{"condition": 3}'
    answers = [
        spoken(url, GET.format(path, "localhost", ""))
        for path in ("/", "/model", "/metrics", "/healthz", "/readyz", "/none")
    ]
    answers += [
        spoken(url, GET.format("/", "evil.com", "")),
        spoken(url, post_head(len(body)), body),
        spoken(url, post_head(2), b"{}"),
        spoken(url, post_head(5000), b"[" * 5000),
    ]
    statuses = [status for status, _, _ in answers]
    assert statuses == [200] * 5 + [404, 400, 500, 422, 413]
    for _, headers, _ in answers:
        assert set(HEADERS) < set(headers)
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
    # The page's own policy lets nothing in that it does not hold itself.
    policy = answers[0][1]["content-security-policy"]
    assert "script-src 'sha256-" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    "given, kept",
    [
        ("run-7.a_b", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("<script>", False),
        ("", False),
    ],
)
def test_an_id_for_each_request(url, given, kept, caplog):
    caplog.set_level(logging.INFO, "keras_flows.serving")
    line = f"x-request-id: {given}\r\n"
    path = "/model?a=%0aforged"
    _, headers, _ = spoken(url, GET.format(path, "localhost", line))
    found = headers["x-request-id"]
    assert (found == given) == kept
    line = re.compile(rf"{found} GET /model 200 [\d.]+ ms")
    assert until(lambda: any(map(line.fullmatch, caplog.messages)))


def test_metrics_and_health():
    """Prometheus' text: every line, and the counts of what was asked."""
    source, _ = fake()
    with serving(source) as url:
        for body in ({"condition": 0, "num_samples": 3}, {"condition": 9}):
            call(f"{url}/sample", body)
        call(f"{url}/unknown/{'x' * 50}")
        _, headers, body = spoken(url, GET.format("/metrics", "localhost", ""))
        assert call(f"{url}/healthz") == (200, {"status": "ok"})
        assert call(f"{url}/readyz") == (200, {"status": "ready"})
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = body.decode().splitlines()
    sample = r"[a-z_]+(\{\w+=\"[^\"]*\"(,\w+=\"[^\"]*\")*\})? [0-9.e+-]+"
    head = r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|histogram))"
    for line in lines:
        assert re.fullmatch(head if line[0] == "#" else sample, line), line
    values = dict(line.rsplit(" ", 1) for line in lines if line[0] != "#")
    name = "keras_flows_requests_total"
    assert values[f'{name}{{path="/sample",status="200"}}'] == "1"
    assert values[f'{name}{{path="/sample",status="422"}}'] == "1"
    assert values[f'{name}{{path="other",status="404"}}'] == "1"
    assert values["keras_flows_request_seconds_count"] == "1"
    assert values['keras_flows_batch_rows_bucket{le="1"}'] == "0"
    assert values['keras_flows_batch_rows_bucket{le="4"}'] == "1"
    assert values["keras_flows_batch_rows_sum"] == "3.0"
    assert values["keras_flows_padded_rows_total"] == "1"
    assert values["keras_flows_waiting_rows"] == "0"


def test_slow_bodies(url):
    """Half a body is answered in time, whatever its pace."""
    start = time.time()
    status, headers, body = spoken(url, post_head(1000), b"[" * 500)
    assert status == 408 and headers["connection"] == "close"
    assert "0.5 seconds" in json.loads(body)["detail"]
    assert 0.4 < time.time() - start < 30


def test_unfinished_bodies_hold_little(monkeypatch):
    """Together no more than a limit; later ones are refused."""
    monkeypatch.setattr("keras_flows.serving.app.MAX_HELD", 4000)
    source, _ = fake()
    with serving(source, max_bytes=2000, body_seconds=2.0) as url:
        statuses = []

        def half():
            statuses.append(spoken(url, post_head(1600), b"[" * 1500)[0])

        threads = [threading.Thread(target=half) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [408] * 2 + [503] * 4
        # Nothing of them is kept.
        assert call(f"{url}/sample", {"condition": 0})[0] == 200
        assert spoken(url, post_head(1600), b"[" * 1500)[0] == 408


def test_heads_and_readers_that_do_not_come_to_an_end(monkeypatch):
    """Their connections are cut: half a head, and an answer not read."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.5)
    monkeypatch.setattr("keras_flows.serving.gate.SLACK", 0.5)
    source, _ = fake((6000,))
    with serving(source, max_samples=64) as url:
        host, port = url.removeprefix("http://").split(":")
        assert spoken(url, "GET /model HTTP/1.1\r\nhost: lo")[0] is None
        # A second head on a connection that was answered.
        head = GET.format("/model", "localhost", "").replace("close", "x")
        with socket.create_connection((host, int(port)), 60) as second:
            second.sendall(head.encode())
            assert second.recv(1 << 16).startswith(b"HTTP/1.1 200")
            second.sendall(b"GET")
            while second.recv(1 << 16):
                pass
        body = json.dumps({"num_samples": 64, "condition": 0}).encode()
        with socket.socket() as unread:
            unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            unread.connect((host, int(port)))
            unread.sendall(post_head(len(body)).encode() + body)
            assert until(lambda: gauge(url, GONE) == 1)
        assert gauge(url, "requests_in_work") == 0


def test_too_many_connections(monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 5)
    source, _ = fake()
    with serving(source) as url:
        host, port = url.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(3)]
        assert until(lambda: spoken(url, HEAD)[0] == 503)
        assert spoken(url, HEAD)[1]["retry-after"] == "1"
        idle += [socket.create_connection((host, int(port))) for _ in range(2)]
        assert until(lambda: spoken(url, HEAD)[0] is None)
        for connection in idle:
            connection.close()
        assert until(lambda: spoken(url, HEAD)[0] == 200)


HEAD = GET.format("/model", "localhost", "")


def test_work_of_clients_that_left_is_dropped():
    """What waits for them is never sampled; what is sampled is not sent."""
    go = threading.Event()
    source, seen = fake(go=go)
    with serving(source, sizes=(4,), wait_ms=0.0) as url:
        body = json.dumps({"num_samples": 4, "condition": 0}).encode()
        host, port = url.removeprefix("http://").split(":")
        leaving = [socket.create_connection((host, int(port))) for _ in "12345"]
        for connection in leaving:
            connection.sendall(post_head(len(body)).encode() + body)
        assert until(lambda: gauge(url, "waiting_rows") == 16)
        for connection in leaving:
            connection.close()
        assert until(lambda: gauge(url, "waiting_rows") == 0)
        assert until(lambda: gauge(url, GONE) == 5)
        go.set()
        assert call(f"{url}/sample", {"condition": 0})[0] == 200
    # To warm up, the first of them, and the one that stayed.
    assert len(seen) == 3


@pytest.mark.parametrize(
    "limits, most", [({"max_requests": 2}, 2), ({"max_values": 8}, 4)]
)
def test_too_much_work(limits, most):
    """503 with Retry-After, for requests and for their samples' numbers."""
    go = threading.Event()
    source, _ = fake(go=go)
    found = []
    body = json.dumps({"num_samples": 4, "condition": 0}).encode()
    with serving(source, sizes=(4,), **limits) as url:

        def ask():
            found.append(spoken(url, post_head(len(body)), body))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert until(lambda: len(found) == 8 - most)
        ready = "max_requests" not in limits
        assert (call(f"{url}/readyz")[0] == 200) == ready
        go.set()
        for thread in threads:
            thread.join()
        assert call(f"{url}/sample", {"condition": 0})[0] == 200
    assert [status for status, _, _ in found] == [503] * (8 - most) + [
        200
    ] * most
    assert {headers.get("retry-after") for _, headers, _ in found} == {
        "1",
        None,
    }


def test_noise_in_the_steps_is_the_seed_s(tmp_path):
    """Each request has its own, alone or beside others, above a batch too."""
    network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
    kf.ConsistencyInterface(network).save_to_preset(tmp_path / "drawing")
    source = sources.from_preset(str(tmp_path / "drawing"), num_steps=3)
    assert source.draws(3) and not source.draws(1)
    model = kf.Interface.from_preset(str(tmp_path / "drawing"))
    answers = {}
    with serving(source, sizes=(1, 4), wait_ms=50.0) as url:

        def ask(seed, count):
            body = {"num_samples": count, "seed": seed}
            answers[seed, count] = call(f"{url}/sample", body)[1]["samples"]

        asked = [(5, 3), (6, 3), (5, 6)]
        threads = [threading.Thread(target=ask, args=one) for one in asked]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        steps = {"num_samples": 2, "seed": 5, "num_steps": 1}
        one_step = call(f"{url}/sample", steps)[1]["samples"]
    for seed, count in asked:
        expected = model.generate(count, num_steps=3, seed=seed)
        np.testing.assert_allclose(
            answers[seed, count], ops.convert_to_numpy(expected), atol=1e-5
        )
    expected = model.generate(noise=noise_of(5, 2), num_steps=1)
    np.testing.assert_allclose(
        one_step, ops.convert_to_numpy(expected), atol=1e-5
    )
