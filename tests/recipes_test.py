"""The image recipes run, and go on where they were."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parent.parent
BACKEND = keras.backend.backend()


def run(recipe, *arguments):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / recipe), *arguments],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def check(result):
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.once
@pytest.mark.slow
def test_digits_recipe_measures_what_it_trained(tmp_path):
    arguments = ("--steps=4", "--draws=1", "--width=16", "--depth=2",
                 "--batch_size=8", f"--out={tmp_path}")  # fmt: skip
    text = check(run("digits.py", "--objective=repa", *arguments))
    assert "| repa |" in text
    results = json.loads((tmp_path / "results.json").read_text())
    real, repa = results["real"], results["objectives"]["repa"]
    # The classifier is trained; the model is not: the figures tell.
    assert real["accuracy"] > 0.95
    assert repa["steps"]["32"]["accuracy"] < 0.5
    assert repa["steps"]["32"]["fd"] > 3 * real["fd"]
    assert (tmp_path / "repa" / "preset" / "config.json").exists()
    assert (tmp_path / "repa" / "grids" / "samples_00000004.png").exists()
    assert (tmp_path / "digits.png").stat().st_size > 1000


@pytest.mark.once
@pytest.mark.slow
def test_imagenet_recipe_resumes(tmp_path):
    arguments = ("--config=tiny", "--synthetic", "--batch_size=2",
                 "--save_every=1", f"--out={tmp_path}")  # fmt: skip
    check(run("imagenet.py", "--steps=2", *arguments))
    first = json.loads((tmp_path / "results.json").read_text())
    assert first["parameters"] == 33_043_456
    assert np.isfinite(first["loss"])
    again = run("imagenet.py", "--steps=3", *arguments)
    assert again.returncode != 0 and "--resume" in again.stderr
    check(run("imagenet.py", "--steps=3", "--resume", *arguments))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


@pytest.mark.once
def test_imagenet_recipe_names_what_is_missing(tmp_path):
    result = run("imagenet.py", "--config=tiny", f"--out={tmp_path}")
    assert result.returncode != 0 and "--synthetic" in result.stderr
    result = run("imagenet.py", "--config=dit", f"--out={tmp_path}")
    assert result.returncode != 0 and "sit_xl_2" in result.stderr


@pytest.mark.once
@pytest.mark.slow
def test_few_steps_recipe_resumes(tmp_path):
    arguments = ("--steps=12", "--teacher_steps=6", "--num_samples=500",
                 "--width=16", "--depth=1", "--batch_size=8",
                 f"--out={tmp_path}")  # fmt: skip
    chosen = "--methods=lsd,progressive,cd eta=0.5"
    text = check(run("few_steps.py", chosen, *arguments))
    assert "| cd eta=0.5 | teacher |" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["progressive"]["kl"]) == ["1", "2", "4", "8"]
    # Untrained models are far off, and one that was trained stays as it was.
    assert results["lsd"]["kl"]["1"] > 1.0
    assert (tmp_path / "few_steps.png").stat().st_size > 1000
    check(run("few_steps.py", "--methods=lsd,dmd2", *arguments))
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["lsd"] == results["lsd"] and list(again["dmd2"]["kl"]) == ["1"]
    other = run("few_steps.py", "--seed=1", "--methods=lsd", *arguments)
    assert other.returncode and "another configuration" in other.stderr


@pytest.mark.once
@pytest.mark.slow
def test_bridge_recipe_measures_from_board_to_rings(tmp_path):
    arguments = ("--steps=2", "--batch_size=8", "--width=8", "--depth=1",
                 "--num_samples=2000", f"--out={tmp_path}")  # fmt: skip
    check(run("bridge.py", *arguments))
    results = json.loads((tmp_path / "results.json").read_text())
    # Untrained drifts leave the board where it is.
    assert abs(
        results["kl"]["ODE, 16 steps"] / results["untransported"] - 1
    ) < (0.2)
    assert results["floor"] < 0.5 * results["untransported"]
    assert (tmp_path / "bridge.png").stat().st_size > 1000
