"""Every Python block of README.md and docs/*.md runs as it stands.

The blocks of a page share one namespace and run in order. They become one
Python file with the page's own line numbers, so that a traceback points to
the line of the page. A block is left out where the line before it is
`<!-- not run: reason -->`.
"""

import importlib
import pathlib
import re
import shlex
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import pages

from keras_flows.cli.flags import parser

PAGES = [
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if page.is_file()
]
# Pages that are NumPy's for the most part, or hardly the backend's.
ONCE = {
    "changelog.md",
    "cli.md",
    "choose.md",
    "coming_from.md",
    "faq.md",
    "index.md",
    "data.md",
    "extending.md",
    "few_steps.md",
    "images.md",
    "own_data.md",
    "own_objective.md",
    "own_parts.md",
    "own_robot.md",
    "presets.md",
    "robots.md",
    "serving.md",
    "solvers.md",
    "training.md",
}
# Pages that train, on the backend that trains them fastest.
ON_JAX = {"README.md"}
# Pages that may have no block that runs, and why.
WITHOUT_CODE = {
    "changelog.md": "the list of changes",
    "distribution.md": "a distribution is global",
    "faq.md": "answers",
    "performance.md": "figures, and a switch of the whole process",
}
# Pages that another test runs, with their commands.
ELSEWHERE = {"first_hour.md": "newcomer_test.py"}


def code_of(text):
    """(source, number of blocks): the blocks, every other line empty."""
    kept = [block for block in pages.blocks(text) if block.python]
    source = [""] * len(text.splitlines())
    for block in kept:
        first = block.line - 1
        source[first : first + len(block.lines)] = block.lines
    return "\n".join(source) + "\n", len(kept)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page,
            marks=[pytest.mark.once] * (page.name in ONCE),
        )
        for page in PAGES
    ],
    ids=[page.name for page in PAGES],
)
def test_page_runs(page, tmp_path, monkeypatch):
    if page.name in ON_JAX and keras.backend.backend() != "jax":
        pytest.skip("runs once, on JAX")
    if page.name in ELSEWHERE:
        pytest.skip(f"{ELSEWHERE[page.name]} runs it")
    source, blocks = code_of(page.read_text())
    if not blocks:
        assert page.name in WITHOUT_CODE, f"{page.name} runs no code"
        return
    assert page.name not in WITHOUT_CODE, f"{page.name} has code by now"
    name = f"page_{re.sub(r'[^a-z]', '_', page.stem.lower())}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    # The TensorFlow process of an export finds the page's classes, too.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delitem(sys.modules, name, raising=False)
    try:
        importlib.import_module(name)
    finally:
        sys.modules.pop(name, None)


def test_there_are_pages():
    assert {"extending.md", "conventions.md"} <= {p.name for p in PAGES}


def test_blocks_keep_their_lines_and_may_be_left_out():
    source, blocks = code_of(
        "# Page\n"
        "```python\n"
        "a = 1\n"
        "```\n"
        "```bash\n"
        "echo '```python'\n"
        "```\n"
        "<!-- not run: needs a GPU -->\n"
        "```python\n"
        "a = 2\n"
        "```\n"
        "<!-- not run: -->\n"
        "- item\n"
        "  ```python\n"
        "  b = a\n"
        "  ```\n"
    )
    assert blocks == 2
    assert source.splitlines()[2] == "a = 1"
    assert source.splitlines()[14] == "b = a"
    assert "a = 2" not in source
    scope = {}
    exec(source, scope)
    assert scope["b"] == 1


def test_a_comment_without_a_reason_leaves_nothing_out():
    assert code_of("<!-- not run: -->\n```python\na = 1\n```\n")[1] == 1


OURS = re.compile(r"((?:tools|recipes|examples)/\w+\.(?:py|sh))")
COMMAND = re.compile(r"(?:keras-flows|-m keras_flows(?P<service>\.serving)?) ")


def shell_lines():
    """(page, line) of all shell blocks; lines that go on are joined."""
    for page in PAGES:
        for block in pages.blocks(page.read_text()):
            if block.language in pages.SHELL:
                text = block.source.replace("\\\n", " ")
                for line in text.splitlines():
                    yield page.name, line.partition("#")[0]


@pytest.mark.once
def test_scripts_of_the_pages_have_their_flags():
    """Scripts are there, and take what the pages pass them."""
    shared = (ROOT / "recipes" / "_common.py").read_text()
    seen = set()
    for page, line in shell_lines():
        found = OURS.search(line)
        if not found:
            continue
        (name,) = found.groups()
        assert (ROOT / name).is_file(), (page, name)
        seen.add(name)
        # absl's booleans are turned off by "no".
        source = (ROOT / name).read_text() + shared
        for flag in re.findall(r"--(\w+)", line[found.end() :]):
            known = flag in source or flag.removeprefix("no") in source
            assert known, (page, name, flag)
    assert len(seen) >= 4


@pytest.mark.once
def test_commands_of_the_pages_are_understood():
    """The command line's own parser takes each line."""
    seen = set()
    for page, line in shell_lines():
        found = COMMAND.search(line)
        if not found:
            continue
        words = shlex.split(line[found.end() :])
        if found["service"]:
            words.insert(0, "serve")
        try:
            seen.add(parser().parse_args(words).command)
        except SystemExit as error:
            assert not error.code, (page, line)
    assert {"train", "export", "serve", "convert", "distil"} <= seen
