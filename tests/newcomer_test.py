"""The first page and its commands, as a stranger would run them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[1]


def play(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "newcomer.py"), *arguments],
        cwd=tmp_path, text=True, capture_output=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )  # fmt: skip


def test_every_step_of_the_first_page(tmp_path):
    for module in ("tf2onnx", "onnxruntime", "uvicorn", "sklearn"):
        pytest.importorskip(module)
    if not shutil.which("curl"):
        pytest.skip("needs curl")
    done = play(tmp_path, "--out=here", "--pages=docs/first_hour.md")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    record = json.loads((tmp_path / "here" / "newcomer.json").read_text())
    shell = [s["output"] for s in record["steps"] if s["kind"] == "shell"]
    assert shell[0].startswith("Ready: http://127.0.0.1:")
    assert len(json.loads(shell[1])["samples"]) == 4
    assert "<title>" in shell[2] or "</html>" in shell[2]
    made = {path.name for path in (tmp_path / "here").iterdir()}
    assert {"series.png", "digits.png", "digits4", "digits4_page"} <= made


def test_a_step_that_fails_is_told(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "## Good\n```python\na = 1\n```\n## Bad\n```python\na()\n```\n"
    )
    done = play(tmp_path, "--out=here", f"--pages={page}")
    assert done.returncode == 1
    assert "Bad: failed: 'int' object is not callable" in done.stdout
    again = play(tmp_path, "--out=here", f"--pages={page}")
    assert again.returncode != 0 and "--out must be a new" in again.stderr
