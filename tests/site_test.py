"""The docs build without a warning: links, anchors, references, pages."""

import importlib
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse
import zlib

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
# Lines that a page may have.
MOST = 250
# Pages that are longer, and why.
LONGER = {"changelog.md": "the list of changes"}


def test_the_site_builds(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet",
         "--site-dir", str(tmp_path)],
        cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "reference" / "interfaces" / "index.html").read_text()
    # Methods and arguments are there, not the class's name alone.
    assert "guidance_interval" in page and "FlowMapInterface" in page
    shown = described(tmp_path / "objects.inv")
    # Where a module has its function's name, the function is in the module.
    missing = {
        name
        for name in public_names()
        if not {name, f"{name}.{name.rpartition('.')[2]}"} & shown
    }
    assert not missing, sorted(missing)


def described(inventory):
    """Names that the site describes, of Sphinx's inventory."""
    content = inventory.read_bytes().split(b"\n", 4)[4]
    return {
        line.split(" ")[0]
        for line in zlib.decompress(content).decode().splitlines()
    }


def public_names():
    """The public names, where they can be imported from."""
    found = set()
    for path in sorted((ROOT / "keras_flows").glob("*/__init__.py")):
        name = f"keras_flows.{path.parent.name}"
        if path.parent.name != "converters":
            found |= {
                f"{name}.{each}"
                for each in importlib.import_module(name).__all__
            }
    robots = importlib.import_module("keras_flows.datasets.robots").__all__
    found |= {f"keras_flows.datasets.robots.{each}" for each in robots}
    # Classes and functions: modules have pages of their own.
    return {
        name
        for name in found
        if callable(
            getattr(sys.modules[name.rpartition(".")[0]], name.split(".")[-1])
        )
    }


def table_of_methods():
    text = (ROOT / "docs" / "index.md").read_text()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.partition("## Methods")[2].splitlines()
        if line.startswith("| ") and "`" in line
    ]


def test_the_table_of_methods_is_that_of_the_code():
    """Every interface has a row; names, objectives and papers are real."""
    import keras_flows as kf

    source = "".join(
        path.read_text() for path in (ROOT / "keras_flows").rglob("*.py")
    )
    named = set()
    for _, how, papers in table_of_methods():
        for name in re.findall(r"\b(\w+Interface)\b", how):
            assert hasattr(kf, name), name
            named.add(name)
        for objective in re.findall(r'"(\w+)"', how):
            kf.objectives.get(objective)
        for paper in re.findall(r"\d{4}\.\d{5}", papers):
            assert paper in source, paper
    listed = {name for name in kf.__all__ if name.endswith("Interface")}
    assert listed - {"Interface", "ReparametrizedInterface"} <= named


def test_links_that_lead_outside_are_addresses():
    """Their form alone: the gate has no network."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((https?:[^)]*)\)", page.read_text()):
            parts = urllib.parse.urlsplit(link)
            assert parts.scheme == "https" and "." in parts.netloc, link
            assert not re.search(r"\s", link), link


@pytest.mark.parametrize(
    "page",
    sorted((ROOT / "docs").rglob("*.md")),
    ids=lambda page: str(page.relative_to(ROOT / "docs")),
)
def test_pages_are_short(page):
    if page.name not in LONGER:
        assert len(page.read_text().splitlines()) <= MOST


def test_results_are_those_of_the_files():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "results.py"), "--check"],
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    for link in re.findall(r"\]\(([^)#]+)", text):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link
