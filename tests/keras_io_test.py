"""The example for keras.io: its format, and that it runs and learns."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples" / "keras_io").glob("*.py"))
HEADER = (
    "Title", "Author", "Date created", "Last modified", "Description",
    "Accelerator",
)  # fmt: skip


def texts(source):
    return re.findall(r'^"""\n(.*?)^"""$', source, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_format(path):
    """The header's fields in their order, then text and code in turns."""
    first, *rest = texts(path.read_text())
    assert [line.split(": ")[0] for line in first.splitlines()] == list(HEADER)
    assert re.search(r"Date created: \d{4}/\d\d/\d\d$", first, re.MULTILINE)
    headings = [t.strip().splitlines()[0] for t in rest]
    assert headings[0] == "## Introduction"
    assert all(heading.startswith("## ") for heading in headings)


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_runs(path, tmp_path):
    for module in ("jax", "matplotlib"):
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.findall(r"KL with . call.*: ([\d.]+)", done.stdout)
    one, four = map(float, found)
    assert four < one < 0.6
