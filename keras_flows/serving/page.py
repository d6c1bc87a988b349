"""The page to try a model: of the service, or of files without one.

page.html is the page; where its samples come from is a second script, in its
place of `/* source */`: page_service.js asks the service, page_files.js runs
model.onnx in the browser.
"""

import base64
import functools
import hashlib
import json
import pathlib
import re

HERE = pathlib.Path(__file__).parent
PLACE = "/* source */"


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


def of_files(runtime):
    """The page that runs model.onnx beside it.

    Args:
        runtime: address of ONNX Runtime's module, absolute or beside the page.
    """
    script = _script("page_files.js")
    return page_of(script.replace('"RUNTIME"', json.dumps(runtime)))


def _script(name):
    return (HERE / name).read_text(encoding="utf-8")


def _hash(html, tag):
    (text,) = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
