"""The notebooks are those of the pages, and run."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once
pytest.importorskip("jupytext")

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import notebooks


def test_they_are_those_of_the_pages():
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "notebooks.py"), "--check"],
        text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_not_run_is_text():
    """Every block that runs is a cell, and no other."""
    import nbformat

    for name in notebooks.NAMES:
        book = nbformat.reads(notebooks.notebook(name), as_version=4)
        text = (ROOT / "docs" / f"{name}.md").read_text()
        blocks = [b for b in notebooks.pages.blocks(text) if b.python]
        cells = [c for c in book.cells if c.cell_type == "code"][1:]
        joined = "\n".join(c.source for c in cells)
        lines = [line for b in blocks for line in b.lines if line.strip()]
        assert [line for line in joined.splitlines() if line.strip()] == lines


def test_links_of_a_repository():
    text = notebooks.notebook("solvers", "me/flows")
    assert "colab.research.google.com/github/me/flows/blob/main/" in text
    assert "git+https://github.com/me/flows" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["solvers", "choose"])
def test_they_run(name, tmp_path):
    """Two that take seconds, as a notebook server runs them."""
    import nbformat

    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    nbclient.NotebookClient(
        book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute(env={**os.environ, "PYTHONPATH": path})
    assert all(
        cell.execution_count for cell in book.cells if cell.cell_type == "code"
    )
