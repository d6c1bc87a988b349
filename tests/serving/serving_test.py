"""The HTTP service of tools/serve.py: answers, limits, batches, the page."""

import contextlib
import json
import pathlib
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from keras import ops

import keras_flows as kf

uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

ROOT = pathlib.Path(__file__).parents[2]

from keras_flows.serving import sources
from keras_flows.serving.app import create_app
from keras_flows.serving.load import load

pytestmark = pytest.mark.once

SIZES = (1, 4, 16)


def fake(noise=(2,), delay=0.0, **options):
    """A source that gives noise + 10 label + steps, and its batch sizes."""
    seen = []

    def run(inputs, num_steps, guidance_scale):
        seen.append(len(inputs["noise"]))
        time.sleep(delay)
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
    config = uvicorn.Config(
        create_app(source, **options), port=0, log_level="critical"
    )
    server = uvicorn.Server(config)
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
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def noise_of(seed, rows, shape=(2,)):
    rng = np.random.Generator(np.random.Philox(seed))
    return rng.standard_normal((rows, *shape), dtype="float32")


def test_answers():
    """The noise of `generate(seed=...)`, labels and steps as asked for."""
    source, _ = fake()
    with serving(source) as url:
        body = {"num_samples": 3, "seed": 7, "condition": 2, "num_steps": 5}
        status, answer = call(f"{url}/sample", body)
        assert status == 200 and answer["seed"] == 7
        np.testing.assert_allclose(
            answer["samples"], noise_of(7, 3) + 25.0, rtol=1e-6
        )
        # Rows of labels, the default steps, a seed of the service's own.
        status, answer = call(f"{url}/sample", {"condition": [0, 1]})
        assert status == 200
        np.testing.assert_allclose(
            answer["samples"],
            noise_of(answer["seed"], 2) + [[1.0], [11.0]],
            rtol=1e-6,
        )
        _, other = call(f"{url}/sample", {"condition": [0, 1]})
        assert other["seed"] != answer["seed"]
        status, told = call(f"{url}/model")
        assert told["sample_shape"] == [2] and told["null_label"] == 4


@pytest.mark.parametrize(
    "field, body",
    [
        ("num_samples", {"num_samples": "three", "condition": 1}),
        ("num_samples", {"num_samples": 0, "condition": 1}),
        ("num_samples", {"num_samples": True, "condition": 1}),
        ("num_samples", {"num_samples": 3, "condition": [1, 2]}),
        ("seed", {"seed": -1, "condition": 1}),
        ("num_steps", {"num_steps": 65, "condition": 1}),
        ("guidance_scale", {"guidance_scale": "much", "condition": 1}),
        ("encoding", {"encoding": "gif", "condition": 1}),
        ("encoding", {"encoding": "png", "condition": 1}),
        ("condition", {}),
        ("condition", {"condition": 5}),
        ("condition", {"condition": -1}),
        ("condition", {"condition": 1.5}),
        ("condition", {"condition": [[1, 2]]}),
        ("condition", {"condition": [[1], [1, 2]]}),
        ("condition", {"condition": []}),
        ("condition", {"condition": "cat"}),
        ("condition", {"condition": 10**30}),
        ("num_sample", {"num_sample": 3, "condition": 1}),
    ],
)
def test_a_malformed_request_names_the_field(field, body, url_of_fake):
    status, answer = call(f"{url_of_fake}/sample", body)
    assert status == 422
    (problem,) = json.loads(answer)["detail"]
    assert problem["loc"][:2] == ["body", field]


@pytest.fixture(scope="module")
def url_of_fake():
    with serving(fake()[0], max_bytes=2000) as url:
        yield url


def test_no_json_and_other_models(url_of_fake):
    assert call(f"{url_of_fake}/sample", b"{nothing")[0] == 422
    source, _ = fake(fixed=True, null_label=None, num_steps=2)
    with serving(source) as url:
        for field, value in (("num_steps", 3), ("guidance_scale", 2.0)):
            status, answer = call(
                f"{url}/sample", {field: value, "condition": 1}
            )
            assert status == 422 and field in answer
        body = {"num_steps": 2, "condition": 1}
        assert call(f"{url}/sample", body)[0] == 200
    both = {"arm": ((2,), "float32"), "object": ((1,), "float32")}
    policy = sources.Source(
        "policy",
        (3,),
        both,
        lambda inputs, *_: inputs["noise"] + inputs["arm"][:, :1],
        num_steps=1,
    )
    with serving(policy) as url:
        rows = {"arm": [[1, 2], [3, 4]], "object": [0.5]}
        status, answer = call(f"{url}/sample", {"condition": rows, "seed": 0})
        assert status == 200
        np.testing.assert_allclose(
            answer["samples"], noise_of(0, 2, (3,)) + [[1.0], [3.0]], rtol=1e-6
        )
        rows["arm"] = [[1, 2, 3]]
        status, answer = call(f"{url}/sample", {"condition": rows})
        assert status == 422
        (problem,) = json.loads(answer)["detail"]
        assert problem["loc"] == ["body", "condition", "arm"]
        assert call(f"{url}/sample", {"condition": {"arm": [1, 2]}})[0] == 422


def test_oversized_requests(url_of_fake):
    url = f"{url_of_fake}/sample"
    assert call(url, {"num_samples": 101, "condition": 1})[0] == 413
    assert call(url, {"condition": [1] * 101})[0] == 413
    assert call(url, {"condition": [1] * 2000})[0] == 413
    # A body that does not tell its length.
    host, port = url_of_fake.removeprefix("http://").split(":")
    import http.client

    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request(
        "POST",
        "/sample",
        iter([b"[" * 1500, b"[" * 1500]),
        {"content-type": "application/json"},
        encode_chunked=True,
    )
    assert connection.getresponse().status == 413
    connection.close()
    assert call(url, {"num_samples": 100, "condition": 1})[0] == 200


def test_200_concurrent_requests_share_batches():
    """Each gets its own samples; batches have few, static sizes."""
    source, seen = fake(delay=0.005)
    with serving(source) as url:
        assert sorted(seen) == list(SIZES)
        figures = load(url, 200, 200, {"num_samples": 1, "condition": 0})
        stats = call(f"{url}/stats")[1]
        # Half of them larger than a batch.
        status, answer = call(
            f"{url}/sample", {"num_samples": 50, "seed": 3, "condition": 0}
        )
    assert figures["answers"] == 200 and not figures["failures"]
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert set(seen) <= set(SIZES)
    assert stats["rows"] == 200 and stats["batches"] < 100
    np.testing.assert_allclose(
        answer["samples"], noise_of(3, 50) + 1.0, rtol=1e-6
    )


def test_different_settings_do_not_share_a_batch():
    source, _ = fake(delay=0.02)
    with serving(source, wait_ms=50.0) as url:
        answers = {}

        def ask(steps):
            body = {"num_steps": steps, "seed": steps, "condition": 0}
            answers[steps] = call(f"{url}/sample", body)[1]["samples"]

        threads = [
            threading.Thread(target=ask, args=(steps,)) for steps in range(1, 9)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for steps, samples in answers.items():
        np.testing.assert_allclose(
            samples, noise_of(steps, 1) + steps, rtol=1e-6
        )


def test_a_failure_and_too_many_requests_leave_it_running():
    source, _ = fake(delay=0.2)
    with serving(source, max_waiting=16, wait_ms=0.0) as url:
        assert call(f"{url}/sample", {"condition": 3})[0] == 500
        statuses = []

        def ask():
            body = {"num_samples": 12, "condition": 1}
            statuses.append(call(f"{url}/sample", body)[0])

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(statuses) == {200, 503}
        assert call(f"{url}/sample", {"condition": 1})[0] == 200


def test_a_preset_gives_what_generate_gives():
    source = sources.from_preset("lsd_checkerboard", num_steps=2)
    model = kf.Interface.from_preset("lsd_checkerboard")
    with serving(source, sizes=(4,)) as url:
        for steps, asked in ((2, {}), (1, {"num_steps": 1})):
            body = {"num_samples": 6, "seed": 11, **asked}
            status, answer = call(f"{url}/sample", body)
            assert status == 200 and answer["num_steps"] == steps
            expected = model.generate(6, num_steps=steps, seed=11)
            np.testing.assert_allclose(
                answer["samples"], ops.convert_to_numpy(expected), atol=1e-5
            )


def test_an_export_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="no signature.json"):
        sources.from_export(tmp_path)


# The page, in a real browser.


class Browser:
    """Headless Chromium by the WebDriver protocol."""

    FLAGS = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
        "--window-size=600,860",
    )  # fmt: skip

    def __init__(self, folder):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True
        )
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                port = int(line.split("port")[-1].strip(" .\n"))
                break
        self.url = f"http://127.0.0.1:{port}"
        options = {"args": [*self.FLAGS, f"--user-data-dir={folder}"]}
        self.url += (
            "/session/"
            + self.post(
                "session",
                capabilities={"alwaysMatch": {"goog:chromeOptions": options}},
            )["sessionId"]
        )

    def post(self, what, **body):
        status, answer = call(f"{self.url}/{what}", body)
        assert status == 200, answer
        return answer["value"]

    def run(self, script):
        return self.post("execute/sync", script=script, args=[])

    def wait_for(self, script):
        end = time.time() + 20
        while not (value := self.run(f"return {script}")):
            assert time.time() < end, script
            time.sleep(0.05)
        return value

    def click(self, selector):
        (element,) = self.post(
            "element", using="css selector", value=selector
        ).values()
        self.post(f"element/{element}/click")

    def slide(self, name, value):
        self.run(
            f"const e = document.getElementById('{name}'); e.value = {value};"
            "e.dispatchEvent(new Event('input'));"
        )

    def close(self):
        request = urllib.request.Request(self.url, method="DELETE")
        urllib.request.urlopen(request, timeout=20).close()
        self.driver.terminate()
        self.driver.wait()
        self.driver.stdout.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


DONE = "/ samples in /.test(document.getElementById('status').textContent)"


def test_page_of_images(browser):
    """A click shows 16 images; the label's slider changes them."""
    pytest.importorskip("PIL")
    source, _ = fake((8, 8, 1), num_steps=0, value_range=(-2.0, 30.0))
    with serving(source) as url:
        browser.post("url", url=url)
        browser.wait_for("model && document.getElementById('label').max == 3")
        shown = []
        for label in (0, 2):
            browser.run("document.getElementById('images').replaceChildren()")
            browser.slide("label", label)
            browser.click("#draw")
            browser.wait_for("document.images.length == 16")
            browser.wait_for("[...document.images].every(i => i.naturalWidth)")
            shown.append(
                browser.run("return [...document.images].map(i => i.src)")
            )
        assert browser.run("return document.images[0].naturalWidth") == 8
    assert len(set(shown[0])) == 16
    assert not set(shown[0]) & set(shown[1])


def test_page_of_points(browser):
    """A click draws the points; a refusal is shown."""
    source, _ = fake(num_steps=0)
    pixels = (
        "(() => { const c = document.getElementById('plot'); return "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((v, i) => i % 4 == 2 && v == 180).length })()"
    )
    with serving(source) as url:
        browser.post("url", url=url)
        browser.wait_for("model && document.getElementById('label').max == 3")
        assert browser.run(f"return {pixels}") == 0
        browser.click("#draw")
        browser.wait_for(DONE)
        # 16 discs of radius 6, of which some overlap.
        assert 400 < browser.run(f"return {pixels}") < 16 * 3.2 * 36
        browser.run("model.fixed = false; get('steps').max = 99")
        browser.slide("steps", 90)
        browser.click("#draw")
        assert "num_steps" in browser.wait_for(
            "/num_steps/.test(get('status').textContent)"
            " && get('status').textContent"
        )
