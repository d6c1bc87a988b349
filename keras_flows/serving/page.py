"""The page to try a model: of the service, or of files without one.

page.html is the page; where its samples come from is a second script, in its
place of `/* source */`: page_service.js asks the service, page_files.js runs
model.onnx in the browser.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import pathlib
import re
import shutil
import typing

from keras_flows.export.exporter import target_of
from keras_flows.networks import input_specs
from keras_flows.ops import given
from keras_flows.ops.files import replacing
from keras_flows.ops.scalars import checked
from keras_flows.policies import Policy

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import PathLike

HERE = pathlib.Path(__file__).parent
PLACE = "/* source */"
# ONNX Runtime for browsers: its module, and what that loads.
RUNTIME = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
VERSION = "1.30.0"
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{VERSION}/dist/"


def page_of(script):
    """The page with the text of a source."""
    html = (HERE / "page.html").read_text(encoding="utf-8")
    before, after = html.split(PLACE)
    return before + script.rstrip() + after


@functools.cache
def served():
    """(the page of the service, its Content-Security-Policy).

    The policy names the page's own script and style by their hashes, so that
    nothing else runs in it.
    """
    html = page_of(_script("page_service.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(html, 'script')}; "
        f"style-src {_hash(html, 'style')}; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


@checked(folder=given.path_of, runtime=given.of(given.path_of, none=True))
def write_page(
    model: Any,
    folder: PathLike,
    runtime: PathLike | None = None,
    **settings: Any,
) -> None:
    """A folder that any file server makes a page of: it needs no other.

    index.html runs model.onnx in the browser, by what signature.json tells of
    it. The same seed gives the same samples on every machine, but not those of
    `generate(seed=...)`.

    Args:
        model: a `Generator` whose network takes no condition, or one label.
        folder: what is written, see `Generator.export`.
        runtime: folder with the files of the npm package onnxruntime-web, its
            `dist`, which are copied; by default the page loads them from
            cdn.jsdelivr.net.
        **settings: of `Generator.export`.

    Raises:
        ValueError: if the page could not give the model what it takes.
    """
    condition = input_specs(model.network).get("condition")
    labels = (
        condition is None
        or getattr(condition, "shape", None) == ()
        and "int" in (condition.dtype or "")
    )
    if isinstance(model, Policy) or not labels:
        raise ValueError(
            "A page draws noise and chooses a class: `model` must take no "
            f"condition, or one label. {type(model).__name__} takes "
            f"{'an observation' if isinstance(model, Policy) else condition}."
        )
    files = []
    if runtime is not None:
        files = [runtime / name for name in RUNTIME]
        for file in files:
            if not file.is_file():
                raise ValueError(
                    f"`runtime` has no {file.name}: it must be the folder "
                    "`dist` of npm install onnxruntime-web. Received: "
                    f"{str(runtime)!r}."
                )
    source = RUNTIME[0] if files else CDN + RUNTIME[0]
    script = _script("page_files.js").replace('"RUNTIME"', json.dumps(source))
    target_of(folder, None)
    with replacing(folder) as temporary:
        model.export(temporary, "onnx", **settings)
        for file in files:
            shutil.copy(file, temporary / file.name)
        page = page_of(script)
        (temporary / "index.html").write_text(page, encoding="utf-8")


def _script(name):
    return (HERE / name).read_text(encoding="utf-8")


def _hash(html, tag):
    (text,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
