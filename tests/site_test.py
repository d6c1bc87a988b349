"""The docs build without a warning: links, anchors, references, pages."""

import os
import pathlib
import re
import subprocess
import sys

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
