"""The image recipes run, and go on where they were."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_flows as kf

ROOT = pathlib.Path(__file__).parents[2]
BACKEND = keras.backend.backend()


def python(*arguments):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )


def run(recipe, *arguments):
    return python(str(ROOT / "recipes" / recipe), *arguments)


ONE_PROCESS = """
import importlib.util, json, os, sys
from absl import flags
from absl.testing import flagsaver
path, lines = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, os.path.dirname(path))
spec = importlib.util.spec_from_file_location("recipe", path)
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
errors = []
for line in lines:
    with flagsaver.flagsaver():
        try:
            flags.FLAGS([path, *line])
            recipe.main([path])
            errors.append(None)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")
print("ERRORS" + json.dumps(errors))
"""


def run_lines(recipe, *lines):
    """The error, or None, of each command line, all in one process.

    A process takes longer to start than these runs take. What was printed
    comes last.
    """
    path = str(ROOT / "recipes" / recipe)
    result = python("-c", ONE_PROCESS, path, json.dumps(lines))
    printed, errors = check(result).split("ERRORS")
    return *json.loads(errors), printed


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
def test_imagenet_recipe_names_what_is_missing_and_resumes(tmp_path):
    arguments = ("--config=tiny", "--synthetic", "--batch_size=2",
                 "--save_every=1", f"--out={tmp_path}")  # fmt: skip
    no_data, unknown, trained, again, resumed, _ = run_lines(
        "imagenet.py",
        ("--config=tiny", f"--out={tmp_path}"),
        ("--config=dit", f"--out={tmp_path}"),
        ("--steps=2", *arguments),
        ("--steps=3", *arguments),
        ("--steps=3", "--resume", *arguments),
    )
    assert "--synthetic" in no_data and "sit_xl_2" in unknown
    assert trained is None and resumed is None
    assert "UsageError" in again and "--resume" in again
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["parameters"] == 33_043_456
    assert np.isfinite(results["loss"])
    header, *lines = (tmp_path / "log.csv").read_text().splitlines()
    rows = [dict(zip(header.split(","), line.split(","))) for line in lines]
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(np.isfinite(float(row["loss"])) for row in rows)


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
    resumed, other, _ = run_lines(
        "few_steps.py",
        ("--methods=lsd,dmd2", *arguments),
        ("--seed=1", "--methods=lsd", *arguments),
    )
    assert resumed is None and "another configuration" in other
    again = json.loads((tmp_path / "results.json").read_text())
    assert again["lsd"] == results["lsd"] and list(again["dmd2"]["kl"]) == ["1"]


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


@pytest.mark.once
@pytest.mark.slow
def test_checkerboard_recipe_draws_its_data_once(tmp_path):
    line = ("--steps=20", "--batch_size=64", "--width=8", "--depth=1",
            "--num_samples=500", "--noexport", f"--out={tmp_path}")  # fmt: skip
    enough, few, _ = run_lines(
        "checkerboard.py", (*line, "--data_size=64"), (*line, "--data_size=63")
    )
    assert enough is None and "must be at least --batch_size" in few
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data_size"] == 64


@pytest.mark.once
@pytest.mark.slow
def test_benchmark_of_images(tmp_path):
    text = check(
        python(
            str(ROOT / "tools" / "benchmark.py"), "--suite=images",
            "--size=S/8", "--batch_size=2", "--rounds=1", "--steps=1",
            "--objectives=mean_flow", f"--out={tmp_path}",
        )
    )  # fmt: skip
    assert "mean_flow" in text and "images/s" in text
    results = json.loads((tmp_path / f"{BACKEND}_images_s_8.json").read_text())
    assert results["settings"]["size"] == "S/8"
    assert results["flow_matching"]["ratio"] == 1.0
    for name in ("flow_matching", "mean_flow"):
        row = results[name]
        rate = 2e3 / row["milliseconds"]
        assert np.isclose(row["images_per_second"], rate)


SMALL = (
    "--steps=4", "--width=16", "--depth=1", "--num_samples=30", "--draws=2",
    "--batch_size=8",
)  # fmt: skip


@pytest.mark.once
@pytest.mark.slow
def test_scenes_are_measured_beside_real_ones(tmp_path):
    text = check(
        run("images.py", "--method=sit,lsd", "--pool=500", "--patch_size=8",
            "--probe_steps=60", *SMALL, f"--out={tmp_path}")
    )  # fmt: skip
    assert "| lsd | 1 |" in text and "| real images |" in text
    results = json.loads((tmp_path / "results.json").read_text())
    real, noise = results["real"], results["untrained"]
    # The probe is trained; the models are not: the figures tell.
    assert real["accuracy"]["floor_hue"] > 0.8
    assert noise["accuracy"]["floor_hue"] < 0.5
    assert noise["fd"] > 3 * real["fd"] and noise["recall"] < 0.1
    assert real["fd_range"][0] <= real["fd"] <= real["fd_range"][1]
    assert set(real["accuracy"]) == set(kf.datasets.Scenes.factors)
    lsd = results["methods"]["lsd"]
    assert list(lsd["calls"]) == ["1", "2", "4", "32"]
    # It began with the weights of the SiT before it.
    assert lsd["before"]["training_steps"] == 4
    assert lsd["calls"]["1"]["fd"] > 3 * real["fd"]
    model = kf.from_preset(tmp_path / "lsd" / "preset")
    assert model.null_label["shape"] == 4
    assert (tmp_path / "images.png").stat().st_size > 1000


@pytest.mark.once
@pytest.mark.slow
def test_any_folder_or_what_is_wrong_with_it(tmp_path):
    images = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)

    def folder(name, count, channels=3):
        path = tmp_path / name
        path.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (20, 16, channels), "uint8")
            pixels[:10] = 255  # a side that is up
            images.fromarray(pixels.squeeze()).save(path / f"{i}.png")
        return tmp_path / name.split("/")[0]

    folder("mine/one class", 20)
    mine = folder("mine/one class/and grey ones", 10, 1)
    few, none = folder("few", 9), tmp_path / "none"
    none.mkdir()
    line = ("--data=folder", "--size=16", "--patch_size=2", "--latents",
            "--autoencoder_steps=5", "--method=sit", "--probe_steps=30",
            *SMALL, f"--out={tmp_path / 'out'}")  # fmt: skip
    unsaid, empty, small, repa, good, printed = run_lines(
        "images.py",
        line,
        (*line, f"--folder={none}"),
        (*line, f"--folder={few}"),
        (*line, f"--folder={mine}", "--method=repa"),
        (*line, f"--folder={mine}"),
    )
    assert "--data=folder needs --folder=PATH" in unsaid
    assert "holds no images" in empty and "holds 9 images" in small
    assert "--method=repa is for --network=dit on pixels" in repa
    assert good is None and "in latents (4, 4, 8)" in printed
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    # One class says nothing; which way is up does.
    assert list(results["real"]["accuracy"]) == ["upright"]
    assert results["methods"]["sit"]["training_steps"] == 4
    assert results["methods"]["sit"]["calls"]["32"]["nearest"] > 0.1
