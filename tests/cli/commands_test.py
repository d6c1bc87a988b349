"""The command line: what it prints, writes and refuses."""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from helpers.commands import refused
from helpers.commands import run

import keras_flows as kf
from keras_flows.cli import flags

pytestmark = pytest.mark.once

ROOT = pathlib.Path(kf.__file__).parents[1]


def process(tmp_path, *words, code="", **environment):
    """`python -m keras_flows` with `code` run before anything else."""
    (tmp_path / "sitecustomize.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    without = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, "-m", "keras_flows", *map(str, words)],
        env=without | {"PYTHONPATH": path} | environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("command", flags.COMMANDS)
def test_every_flag_is_explained(command, capsys):
    assert run(command, "--help") == 0
    assert "--backend" in capsys.readouterr().out
    (choices,) = [a for a in flags.parser()._actions if a.dest == "command"]
    for action in choices.choices[command]._actions:
        assert action.help, action.dest


def test_help_and_a_wrong_flag_need_no_keras(tmp_path):
    bar = "import sys; sys.modules['keras'] = sys.modules['numpy'] = None"
    found = process(tmp_path, "sample", "--help", code=bar)
    assert found.returncode == 0 and "--num-samples" in found.stdout
    found = process(tmp_path, "sample", "--nonsense", code=bar)
    assert found.returncode == 2 and "Traceback" not in found.stderr


def test_the_kinds_of_checkpoints_are_all_there_are():
    assert set(flags.CHECKPOINTS) == set(kf.presets.CONVERTERS)


@pytest.mark.parametrize(
    "missing, words, said",
    [
        ("torch", ["--backend=torch"], "--backend=torch is not installed"),
        ("jax torch tensorflow", [], "none is installed"),
    ],
)
def test_a_missing_backend_is_one_sentence(tmp_path, missing, words, said):
    code = f"import sys; sys.modules.update(dict.fromkeys({missing.split()}))"
    found = process(tmp_path, "presets", *words, code=code)
    assert found.returncode == 1 and not found.stdout
    (line,) = found.stderr.strip().splitlines()
    assert line.startswith("keras-flows: ") and said in line


def test_one_good_line_and_no_chatter(tmp_path):
    """Under TensorFlow, which greets; --backend is heard."""
    found = process(
        tmp_path, "sample", "lsd_checkerboard", "--out=a.npy",
        "--num_samples=8", "--backend=tensorflow",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout == "a.npy: 8 samples of 2\n"
    assert found.stderr == ""
    assert np.load(tmp_path / "a.npy").shape == (8, 2)


def test_a_backend_other_than_the_running_one_is_refused(capsys):
    other = {"jax", "torch"} - {kf.samplers.base.ops.__name__}
    other = "jax" if "torch" in sys.modules else other.pop()
    said = refused(capsys, "presets", f"--backend={other}")
    assert said.startswith(f"--backend={other}: Keras runs on ")


def test_presets(capsys):
    assert run("presets") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(kf.presets.names())
    assert run("presets", "sit_digits") == 0
    assert "accuracy" in capsys.readouterr().out
    assert "Perhaps: sit_digits" in refused(capsys, "presets", "sit_digit")


def test_samples_are_those_of_generate(tmp_path, capsys):
    out = tmp_path / "a.npz"
    words = ["--condition=3,7", "--num-steps=2", "--guidance-scale=1.5"]
    assert run("sample", "sit_digits", f"--out={out}", *words) == 0
    model = kf.from_preset("sit_digits")
    expected = model.generate(
        condition=[3, 7], num_steps=2, guidance_scale=1.5, seed=0
    )
    np.testing.assert_allclose(
        np.load(out)["samples"], np.asarray(expected), atol=1e-5
    )
    said = refused(capsys, "sample", "sit_digits", f"--out={out}")
    assert said == (
        f"--out={out} exists and is left alone: name another, or add "
        "--overwrite."
    )
    again = [f"--out={out}", "--overwrite", "--seed=1", *words]
    assert run("sample", "sit_digits", *again) == 0
    assert not np.array_equal(np.load(out)["samples"], np.asarray(expected))


def test_pictures(tmp_path):
    for name, condition in (("sit_digits", "3"), ("lsd_checkerboard", None)):
        out = tmp_path / f"{name}.png"
        words = [f"--condition={condition}"] if condition else []
        words += ["--num-steps=1", "--num-samples=4"]
        assert run("sample", name, f"--out={out}", *words) == 0
        assert out.read_bytes()[1:4] == b"PNG"


def test_a_policy_acts_on_an_observation(tmp_path, capsys):
    policy = kf.from_preset("mip_shelf_place")
    seen = np.zeros((3, *policy.observation_spec), "float32")
    np.save(tmp_path / "seen.npy", seen)
    out = tmp_path / "chunks.npy"
    words = ["sample", "mip_shelf_place", f"--out={out}"]
    assert "--observation=FILE" in refused(capsys, *words)
    assert run(*words, f"--observation={tmp_path / 'seen.npy'}") == 0
    expected = policy.predict_chunk(seen, seed=0)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)


@pytest.mark.parametrize(
    "words, said",
    [
        (["sample", "none_such"], "none_such"),
        (["sample", "lsd_checkerboard", "--out=a.jpg"], ".png, .npy or .npz"),
        (["sample", "lsd_checkerboard", "--observation=a"], "of policies"),
        (["train", "nowhere", "--out=m"], "no such file or folder"),
        (["eval", "mip_shelf_place", "checkerboard"], "measured on episodes"),
        (["eval", "sit_digits", "digits", "--metric=kl"], "not of images"),
        (["export", "lsd_checkerboard"], "--out is missing"),
        (["export", "mip_shelf_place", "--out=x", "--guidance-scale=2"],
         "A policy has no --guidance-scale"),
        (["check-jvp", "nowhere.module:Net"], "cannot be imported"),
        (["check-jvp", "math:Net"], "math has no Net"),
        (["results", "none.json"], "neither a preset nor a JSON file"),
        (["serve", "--preset=lsd_checkerboard", "--port=99999"], "0 to 65535"),
        (["convert", "none.pt", "--kind=sit", "--out=x"], "Not converted"),
        (["convert", "none.pt", "--kind=sit", "--out=x", "--options={"],
         "must be JSON"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_done_is_told_in_a_sentence(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_results_are_one_table(tmp_path, capsys):
    for name, values in (("a", {"1": 0.5, "4": 0.25}), ("b", {"1": 0.125})):
        figures = {"metric": "KL (nats)", "values": values, "model": name}
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    out = tmp_path / "table.md"
    files = sorted(tmp_path.glob("*.json"))
    assert run("results", *files, f"--out={out}") == 0
    expected = (
        "KL (nats) by calls\n\n"
        "| calls | 1 | 4 |\n| --- | --- | --- |\n"
        "| a | 0.5 | 0.25 |\n| b | 0.125 |  |\n"
    )
    assert out.read_text() == capsys.readouterr().out == expected


NETWORKS = """
import keras, torch
class Right(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def forward(self, x, t):
        return torch.tanh(self.layer(torch.cat([x, t[:, None]], 1)))
class Wrong(Right):
    def forward(self, x, t):
        return super().forward(x, t) * x.detach().exp()
"""


def test_derivatives_of_a_torch_module(tmp_path, monkeypatch, capsys):
    (tmp_path / "nets_of_a_test.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "nets_of_a_test:Right"
    assert "--shape" in refused(capsys, "check-jvp", name)
    assert run("check-jvp", name, "--shape=2") == 0
    assert "derivatives are right" in capsys.readouterr().out
    said = refused(capsys, "check-jvp", "nets_of_a_test:Wrong", "--shape=2")
    assert "derivatives are wrong" in said


@pytest.mark.slow
def test_a_killed_export_leaves_nothing(tmp_path):
    out = tmp_path / "made" / "served"
    words = ["export", "lsd_checkerboard", f"--out={out}"]
    with subprocess.Popen(
        [sys.executable, "-m", "keras_flows", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "torch"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as found:
        end = time.monotonic() + 120
        while not list(out.parent.glob(".served-*/preset")):
            assert time.monotonic() < end and found.poll() is None
            time.sleep(0.05)
        found.terminate()
        _, errors = found.communicate(timeout=60)
    assert found.returncode == 130 and "interrupted" in errors
    assert not list(out.parent.iterdir())
