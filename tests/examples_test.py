"""The examples run as they are, and say something good."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
pytestmark = [pytest.mark.once, pytest.mark.slow]

# What the printed numbers must reach.
GOOD = {
    # KL of data, of one step and of four; an untrained model has above 3.
    "points": lambda data, one, one_kl, four, four_kl: (
        data < 0.1 and one_kl < 1.6 and four_kl < 1.2
    ),
    "images": lambda plain, _, guided, __: plain > 50 and guided > 80,
    "policy": lambda clear, of, arrived: clear >= 6 and arrived >= 8,
    "own": lambda kl: kl < 1.2,
    # Starts, and per cent of them: the policy, and its two exports.
    "own_robot": lambda _, *rates: len(rates) == 3 and min(rates) >= 60,
    "serve": lambda alone, http: max(alone, http) < 1e-5,
}
# Of those that take flags: less than a user would train.
FLAGS = {"own_robot": ["--out=.", "--steps=300", "--trials=20"]}
# Examples of more than 50 lines, and why.
LONGER = {"own_robot": "to be copied for a robot of one's own"}


def test_every_example_is_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_example(name, tmp_path):
    path = EXAMPLES / f"{name}.py"
    text = path.read_text()
    assert len(text.splitlines()) <= 50 or name in LONGER
    if name == "own_robot":
        pytest.importorskip("tf2onnx")
    if name == "serve":
        pytest.importorskip("tensorflow")
        pytest.importorskip("uvicorn")
    folders = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [sys.executable, str(path), *FLAGS.get(name, [])],
        cwd=tmp_path,
        env={
            **os.environ,
            "KERAS_BACKEND": keras.backend.backend(),
            "MPLBACKEND": "agg",
            "PYTHONPATH": os.pathsep.join(folders),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    line = result.stdout.strip().splitlines()[-1]
    found = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e[+-]\d+)?", line)
    assert GOOD[name](*map(float, found)), line
    pictures = {p.name for p in tmp_path.glob("*.png")}
    assert pictures == ({f"{name}.png"} if f"{name}.png" in text else set())
