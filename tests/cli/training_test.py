"""From data of one's own to a model that is measured, distilled, resumed."""

import json

import keras
import numpy as np
import pytest
from helpers.commands import refused
from helpers.commands import run

import keras_flows as kf

pytestmark = pytest.mark.once

QUICK = ["--steps=2", "--batch-size=4", "--width=8", "--depth=1"]


def test_points_that_are_standardized(tmp_path, capsys, rng):
    """Trained at scale 1, sampled at the data's own, measured, distilled."""
    x = 100.0 + 30.0 * rng.uniform(-1, 1, (2000, 2))
    file = tmp_path / "x.npz"
    np.savez(file, x=x, labels=np.arange(2000) % 3)
    out = tmp_path / "model"
    said = refused(capsys, "train", file, f"--out={out}", *QUICK)
    assert said.endswith("add --standardize.") and not out.exists()
    words = ["train", file, f"--out={out}", "--standardize", *QUICK]
    assert run(*words, "--method=sit") == 0
    assert "SiTInterface (flow)" in capsys.readouterr().out
    assert (out / "samples.png").is_file()
    model = kf.from_preset(out)
    assert model.network.null_label == 3
    made = tmp_path / "made.npy"
    sample = ["sample", out, "--condition=0,2", "--num-steps=2"]
    assert run(*sample, f"--out={made}") == 0
    plain = np.asarray(model.generate(condition=[0, 2], num_steps=2, seed=0))
    np.testing.assert_allclose(
        np.load(made), plain * x.std(0) + x.mean(0), rtol=1e-5
    )
    figures = tmp_path / "figures.json"
    words = ["--steps=1,2", "--num-samples=1000", f"--out={figures}"]
    assert run("eval", out, file, *words) == 0
    found = json.loads(figures.read_text())
    assert found["metric"] == "KL (nats)" and set(found["values"]) == {"1", "2"}
    assert 0.0 < found["floor"] < min(found["values"].values())
    student = tmp_path / "student"
    words = [f"--out={student}", "--steps=2", "--batch-size=4"]
    assert run("distil", out, *words) == 0
    assert run("sample", student, "--condition=1", "--steps=1",
               f"--out={tmp_path / 'b.npy'}") == 0  # fmt: skip
    assert abs(np.load(tmp_path / "b.npy").mean() - 100.0) < 50.0


def test_a_folder_of_images(tmp_path, rng, capsys):
    """Two classes, of any size, one of them grey."""
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            size = 12 + 4 * i, 16, 3 if name == "a" else 1
            keras.utils.save_img(
                tmp_path / "photos" / name / f"{i}.png",
                rng.integers(0, 256, size).astype("float32"),
                scale=False,
            )
    out = tmp_path / "model"
    words = ["train", tmp_path / "photos", f"--out={out}", "--image-size=8"]
    assert run(*words, *QUICK) == 0
    model = kf.from_preset(out)
    assert model.sample_shape == (8, 8, 3) and model.null_label == 2
    assert model.objective.name == "lsd"
    words = ["--num-samples=3", "--num-steps=1", "--image-size=8"]
    assert run("eval", out, tmp_path / "photos", *words) == 0
    assert "Frechet distance in the samples' numbers" in capsys.readouterr().out
    (tmp_path / "photos" / "b" / "broken.png").write_bytes(b"no image")
    words = [tmp_path / "photos", "--out=none", *QUICK]
    assert "broken.png" in refused(capsys, "train", *words)


def test_one_class_is_no_label_and_windows_are_mlps(tmp_path, rng):
    (tmp_path / "one" / "cats").mkdir(parents=True)
    for i in range(4):
        image = np.full((8, 8, 1), 60.0 * i)
        keras.utils.save_img(
            tmp_path / "one" / "cats" / f"{i}.png", image, scale=False
        )
    out = tmp_path / "images"
    words = ["train", tmp_path / "one", f"--out={out}", "--image-size=8"]
    assert run(*words, *QUICK, "--method=mean_flow") == 0
    model = kf.from_preset(out)
    assert model.sample_shape == (8, 8, 1) and model.null_label is None
    np.save(tmp_path / "w.npy", rng.standard_normal((20, 16, 2)))
    out = tmp_path / "windows"
    assert run("train", tmp_path / "w.npy", f"--out={out}", *QUICK) == 0
    assert kf.from_preset(out).sample_shape == (16, 2)


def test_a_folder_of_episodes(tmp_path, rng, capsys):
    (tmp_path / "demos").mkdir()
    for i in range(11):
        state = rng.standard_normal((24, 3))
        np.savez(
            tmp_path / "demos" / f"episode_{i}.npz",
            state=state,
            camera=rng.integers(0, 256, (24, 32, 32, 3), "uint8"),
            action=state[:, :2],
            reward=np.zeros(24),
        )
    out = tmp_path / "policy"
    words = ["train", tmp_path / "demos", f"--out={out}", *QUICK]
    assert run(*words, "--horizon=4", "--act-steps=2") == 0
    policy = kf.from_preset(out)
    assert policy.observation_spec == {
        "camera": (2, 32, 32, 3), "state": (2, 3)
    }  # fmt: skip
    assert policy.interface.objective.name == "mip"
    capsys.readouterr()
    words = ["--num-samples=8", "--num-steps=2"]
    assert run("eval", out, tmp_path / "demos", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("root mean square error of an action, 8")
    assert float(lines[-1].rpartition(": ")[2]) > 0.5
    np.savez(tmp_path / "demos" / "none.npz", state=np.zeros((3, 3)))
    said = refused(capsys, "train", tmp_path / "demos", "--out=none")
    assert "none.npz has no array `action`" in said


@pytest.mark.parametrize(
    "arrays, said",
    [
        ({"a": np.zeros((4, 2)), "b": np.zeros((4, 2))}, "must have one array"),
        ({"x": np.zeros(4)}, "Its shape is (4,)"),
        ({"x": np.eye(4), "y": np.arange(3)}, "one for each of the 4 rows"),
        ({"x": np.eye(4), "y": np.arange(4) - 1}, "must not be below 0"),
        ({"x": np.eye(4), "y": np.arange(4), "label": np.arange(4)},
         "label and y: keep one"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else(tmp_path, capsys, arrays, said):
    np.savez(tmp_path / "x.npz", **arrays)
    words = ["train", tmp_path / "x.npz", f"--out={tmp_path / 'm'}"]
    assert said in refused(capsys, *words)
    (tmp_path / "x.npz").write_bytes(b"PK nothing")
    assert "no .npy or .npz" in refused(capsys, *words)
