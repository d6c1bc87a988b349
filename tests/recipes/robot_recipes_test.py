"""The recipes of demonstrations run on files that they make."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_flows as kf
from keras_flows.datasets import robots

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = [pytest.mark.once, pytest.mark.slow]


def run(recipe, *arguments):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    backend = keras.backend.backend()
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / recipe), *arguments],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def results(recipe, out, *arguments):
    arguments = (*arguments, "--synthetic", "--width=64", "--depth=1",
                 "--batch_size=64", f"--out={out}")  # fmt: skip
    result = run(recipe, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    assert (out / "preset" / "config.json").exists()
    return json.loads((out / "results.json").read_text())


@pytest.mark.parametrize("recipe", ["pusht.py", "robomimic.py"])
def test_help_tells_the_flags_of_all_that_a_recipe_imports(recipe):
    """And nothing but the recipe speaks."""
    result = run(recipe, "--help")
    for flag in ("--steps", "--synthetic", "--batch_size", "--seed", "--out"):
        assert f"  {flag}:" in result.stdout.replace("[no]", "")
    assert not result.stderr


def test_pusht_recipe_learns(tmp_path):
    pytest.importorskip("zarr")
    found = results(
        "pusht.py", tmp_path, "--objective=regression", "--steps=120",
        "--learning_rate=3e-3",
    )  # fmt: skip
    assert found["episodes"] == {"train": 36, "held_out": 4}
    error = found["errors"]["1"]["distance"]
    mean = found["errors_of_the_mean_action"]["distance"]
    assert 0 < error < 0.7 * mean


def test_robomimic_recipe_learns_relative_actions(tmp_path):
    pytest.importorskip("h5py")
    found = results(
        "robomimic.py", tmp_path, "--task=transport_ph", "--actions=relative",
        "--objective=mip", "--steps=60", "--learning_rate=3e-3",
    )  # fmt: skip
    assert found["config"]["horizon"] == 10
    mean = found["errors_of_the_mean_action"]
    for steps in "12":
        errors = found["errors"][steps]
        assert 0 < errors["position"] < 0.7 * mean["position"]
        assert 0 < errors["gripper"] < mean["gripper"]


def test_metaworld(tmp_path):
    """Episodes of several processes are those of one."""
    pytest.importorskip("metaworld")
    arguments = (
        "metaworld.py", f"--out={tmp_path}", "--tasks=reach-v3",
        "--objectives=regression", "--demonstrations=3", "--starts=3",
        "--num_envs=3", "--processes=2", "--steps=4", "--batch_size=16",
    )  # fmt: skip
    result = run(*arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    (entry,) = results["runs"]
    episodes = robots.demonstrations("reach-v3", 3)
    windows = robots.Windows(episodes, 16, 2, 8, 16)
    assert entry["windows"] == windows.num_windows
    expert = kf.policies.evaluate_expert(
        [robots.make_env("reach-v3")],
        robots.EVALUATION_START + np.arange(3),
    )
    assert results["expert"]["reach-v3"] == expert.summary()
    assert (tmp_path / "success.png").stat().st_size > 10_000
    assert "reach-v3" in (tmp_path / "table.md").read_text()
