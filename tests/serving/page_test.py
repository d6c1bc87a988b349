"""The page in a real browser: of the service, and of files without one.

The page of files needs onnxruntime-web: KERAS_FLOWS_ORT_WEB is the folder
`dist` of npm install onnxruntime-web. KERAS_FLOWS_SHOTS is a folder for
pictures of both.
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import pathlib
import shutil
import threading

import pytest

import keras_flows as kf

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")

from helpers.browser import Browser
from helpers.services import fake
from helpers.services import serving

from keras_flows.serving import page
from keras_flows.serving import sources

pytestmark = pytest.mark.once

RUNTIME = os.environ.get("KERAS_FLOWS_ORT_WEB")
SHOTS = os.environ.get("KERAS_FLOWS_SHOTS")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def state(browser, name):
    """Wait for a state of the page; its status line."""
    browser.wait_for(f"document.body.dataset.state === '{name}'")
    return browser.run("return document.getElementById('status').textContent")


def sources_of_images(browser):
    return browser.run("return [...document.images].map(i => i.src)")


def press(browser, value):
    browser.run("document.body.dataset.state = 'pressed'")
    browser.click(f"#classes button[value='{value}']")
    return state(browser, "done")


def shown_size(browser):
    return browser.run("return document.images[0].naturalWidth")


def shoot(browser, name):
    if SHOTS:
        picture = base64.b64decode(browser.get("screenshot"))
        (pathlib.Path(SHOTS) / f"{name}.png").write_bytes(picture)


def downloaded(browser):
    """(name, first bytes) of what the button gives."""
    browser.run(
        "window.got = null; const make = URL.createObjectURL;"
        "HTMLAnchorElement.prototype.click = function() {"
        "  window.named = this.download; };"
        "URL.createObjectURL = blob => { blob.slice(0, 4).text().then("
        "  t => window.got = t); return make(blob); };"
    )
    browser.click("#save")
    first = browser.wait_for("window.got")
    return browser.run("return window.named"), first


def test_page_of_images(browser):
    """16 images at once; a class's button changes them; they are saved."""
    pytest.importorskip("PIL")
    source, _ = fake((8, 8, 1), num_steps=1, value_range=(-2.0, 31.0))
    with serving(source) as url:
        browser.post("url", url=url)
        state(browser, "done")
        shown = [sources_of_images(browser)]
        press(browser, 2)
        shown.append(sources_of_images(browser))
        assert shown_size(browser) == 8
        visible = browser.run(
            "return ['steps_row', 'guidance_row', 'classes', 'label_row']"
            ".filter(id => !document.getElementById(id).hidden)"
        )
        assert visible == ["steps_row", "guidance_row", "classes"]
        assert (
            browser.run(
                "return document.querySelectorAll('#classes button').length"
            )
            == 4
        )
        name, first = downloaded(browser)
        # A sampler that fails: the reason, and no picture of it as an answer.
        browser.click("#classes button[value='3']")
        assert "failed" in state(browser, "failed")
    assert len(set(shown[0])) == len(set(shown[1])) == 16
    assert not set(shown[0]) & set(shown[1])
    assert (name, first[1:]) == ("samples_0.png", "PNG")


def test_page_of_points(browser):
    """The points at once; a refusal is shown."""
    source, _ = fake(num_steps=1, highest_label=99, null_label=None)
    pixels = (
        "(() => { const c = document.getElementById('plot'); return "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".filter((v, i) => i % 4 == 2 && v == 180).length })()"
    )
    with serving(source) as url:
        browser.post("url", url=url)
        state(browser, "done")
        # 16 discs of radius 6, of which some overlap.
        assert 400 < browser.run(f"return {pixels}") < 16 * 3.2 * 36
        name, first = downloaded(browser)
        assert (name, first[0]) == ("samples_0.json", "{")
        assert browser.run(
            "return document.getElementById('guidance_row').hidden"
        )
        # Many classes are a number.
        browser.slide("label", 1000)
        browser.click("#draw")
        assert "Labels go from 0 to 99" in state(browser, "failed")


@contextlib.contextmanager
def files(folder):
    """The address of a plain server of files."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def stub(folder):
    """A runtime that adds 10 x label to the noise, in place of the real one."""
    (folder / page.RUNTIME[1]).write_bytes(b"")
    (folder / page.RUNTIME[0]).write_text(
        "export const env = {wasm: {}};"
        "export class Tensor { constructor(type, data, dims) {"
        "  Object.assign(this, {type, data, dims}); } }"
        "export const InferenceSession = {create: async file => ({run: async"
        "  ({noise, condition}) => ({samples: new Tensor('float32',"
        "  noise.data.map(v => v / 9 + condition.data[0] / 9 - 0.2),"
        "  noise.dims)})})};"
    )


RECORD = {
    "model": "SiTInterface",
    "null_label": 4,
    "highest_label": 4,
    "settings": {"num_steps": 2, "guidance_scale": 1.5, "output_range": None},
    "endpoints": {
        "serve": {
            "inputs": {
                "noise": {"shape": [None, 8, 8, 1], "dtype": "float32"},
                "condition": {"shape": [None], "dtype": "int32"},
            },
            "outputs": {
                "samples": {"shape": [None, 8, 8, 1], "dtype": "float32"}
            },
        }
    },
}


@pytest.fixture
def exported(tmp_path):
    """(function of a runtime to the folder of a page, without an export)."""

    class Model:
        network = kf.networks.MLP(2, width=8, depth=1, num_classes=4)

        def export(self, folder, format, **settings):
            assert format == "onnx" and settings == {"num_steps": 2}
            folder.mkdir()
            (folder / "signature.json").write_text(json.dumps(RECORD))

    def write(runtime):
        page.write_page(Model(), tmp_path / "page", runtime, num_steps=2)
        return tmp_path / "page"

    return write


def test_page_of_files_with_a_stub(browser, exported, tmp_path):
    """16 images at once and others of another class, in the browser alone."""
    stub(tmp_path)
    with files(exported(tmp_path)) as url:
        browser.post("url", url=url)
        state(browser, "done")
        shown = [sources_of_images(browser)]
        assert shown_size(browser) == 8
        press(browser, 3)
        shown.append(sources_of_images(browser))
        assert browser.run("return document.getElementById('steps_row').hidden")
        about = "return document.getElementById('about').textContent"
        assert "2 step(s), guidance scale 1.5" in browser.run(about)
    assert len(set(shown[0])) == len(set(shown[1])) == 16
    assert not set(shown[0]) & set(shown[1])


def test_page_of_files_tells_what_it_lacks(browser, exported, tmp_path):
    """ONNX Runtime that is not there, and a browser without WebAssembly."""
    stub(tmp_path)
    folder = exported(tmp_path)
    (folder / page.RUNTIME[0]).unlink()
    with files(folder) as url:
        browser.post("url", url=url)
        assert "ONNX Runtime was not found" in state(browser, "failed")
        index = folder / "index.html"
        text = index.read_text()
        index.write_text(
            text.replace(
                "<head>", "<head><script>delete window.WebAssembly</script>"
            )
        )
        browser.post("url", url=f"{url}/?again")
        assert "no WebAssembly" in state(browser, "failed")
        assert not sources_of_images(browser)


def test_what_a_page_cannot_ask_for(tmp_path):
    policy = kf.Interface.from_preset("mip_shelf_place")
    with pytest.raises(ValueError, match="Policy takes an observation"):
        page.write_page(policy, tmp_path / "page")
    model = kf.Interface.from_preset("lsd_checkerboard")
    with pytest.raises(ValueError, match="`runtime` has no ort.wasm"):
        page.write_page(model, tmp_path / "page", tmp_path)
    assert not (tmp_path / "page").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    pytest.importorskip("tf2onnx")
    (tmp_path / "thesis.txt").write_text("keep")
    model = kf.Interface.from_preset("lsd_checkerboard")
    with pytest.raises(ValueError, match="exists and is not an export"):
        page.write_page(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_page_names_its_runtime(exported):
    """By default that of a CDN, of one version; nothing else is loaded."""
    text = (exported(None) / "index.html").read_text()
    assert text.count("https://") == 1
    assert f'"{page.CDN}{page.RUNTIME[0]}"' in text and "@1." in page.CDN


@pytest.mark.skipif(not RUNTIME, reason="KERAS_FLOWS_ORT_WEB is not set")
def test_both_pages_of_digits(browser, tmp_path):
    """The preset as it is served, and its file in WebAssembly."""
    model = kf.Interface.from_preset("sit_digits")
    page.write_page(model, tmp_path / "page", RUNTIME, num_steps=8)
    written = {file.name for file in (tmp_path / "page").iterdir()}
    assert written == {
        "index.html", "model.onnx", "signature.json", *page.RUNTIME
    }  # fmt: skip
    source = sources.from_preset("sit_digits", num_steps=8)
    with serving(source, sizes=(16,)) as of_service:
        with files(tmp_path / "page") as of_files:
            for name, url in (("service", of_service), ("files", of_files)):
                browser.post("url", url=url)
                told = state(browser, "done")
                assert "16 samples" in told
                assert len(set(sources_of_images(browser))) == 16
                shoot(browser, f"{name}_0")
                print(name, press(browser, 7))
                assert len(set(sources_of_images(browser))) == 16
                shoot(browser, f"{name}_7")
