"""Registered names, sizes and cards."""

import json
import pathlib

import pytest
from helpers.handles import packed
from helpers.handles import same
from helpers.handles import sha256

import keras_flows as kf

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("own_caches")]
ROOT = pathlib.Path(__file__).parents[2]


def figures():
    """{(preset, metric): number} as docs/results has them."""
    results = ROOT / "docs" / "results"
    found = {}
    boards = json.loads((results / "presets.json").read_text())
    for name, result in boards.items():
        steps = dict(zip((1, 2, 4, 8, 16), result["samples"]["kl"]))
        for n in (1, 4, 16):
            plural = "s" if n > 1 else ""
            found[name, f"KL, {n} step{plural}"] = round(steps[n], 4)
    runs = json.loads((results / "metaworld.json").read_text())["runs"]
    for name, objective in (
        ("flow_shelf_place", "flow"),
        ("mip_shelf_place", "mip:public"),
    ):
        run = next(
            run
            for run in runs
            if (run["task"], run["objective"], run["seed"])
            == ("shelf-place-v3", objective, 0)
        )
        for n, result in run["success"].items():
            plural = "s" if n != "1" else ""
            found[name, f"success, {n} step{plural}"] = result["success"]
    digits = json.loads((results / "digits.json").read_text())["objectives"]
    for objective in ("sit", "edm", "mean_flow", "repa"):
        name, steps = f"{objective}_digits", digits[objective]["steps"]
        one_step = objective == "mean_flow"
        for n in ("1", "2", "4", "32") if one_step else ("4", "32"):
            plural = "s" if n != "1" else ""
            found[name, f"FD, {n} step{plural}"] = round(steps[n]["fd"], 2)
        n, text = ("1", "1 step") if one_step else ("32", "32 steps")
        found[name, f"accuracy, {text}"] = round(steps[n]["accuracy"], 4)
    for data in ("scenes", "mnist"):
        methods = json.loads((results / f"{data}.json").read_text())["methods"]
        for method, shown, n in (
            ("sit", ("4", "32"), "32"),
            ("lsd", ("1", "2", "4", "32"), "1"),
        ):
            calls = methods[method]["calls"]
            for each in shown:
                fd = f"FD, {each} call{'s' * (each != '1')}"
                found[f"{data}_{method}", fd] = round(calls[each]["fd"], 2)
            text = f"lowest accuracy, {n} call{'s' * (n != '1')}"
            least = min(calls[n]["accuracy"].values())
            found[f"{data}_{method}", text] = round(least, 4)
    return found


def test_registry_tells_what_the_results_tell():
    # What other tests register has a handle.
    shipped = {
        name: entry
        for name, entry in kf.presets.BUILTIN.items()
        if entry.handle is None
    }
    told = {
        (name, metric): value
        for name, entry in shipped.items()
        for metric, value in entry.metrics.items()
    }
    assert told == figures()
    for name in shipped:
        entry = kf.presets.BUILTIN[name]
        card = kf.presets.preset_folder(name) / "README.md"
        for metric, value in entry.metrics.items():
            assert f"| {metric} | {value} |" in card.read_text()
        assert (ROOT / entry.recipe).is_file()
        text = kf.presets.describe(name)
        assert text.startswith(f"{name}: {entry.description}\n")
        assert entry.recipe in text and entry.results in text
        weights = kf.presets.preset_folder(name) / "model.weights.h5"
        assert f"{weights.stat().st_size / 1e6:.1f} MB" in text
        assert text in kf.presets.describe()
    assert "FlowMapInterface, 425,031 parameters" in kf.presets.describe(
        "lsd_checkerboard"
    )
    with pytest.raises(ValueError, match="Perhaps: mip_shelf_place"):
        kf.presets.describe("mip_shelf_plac")


def test_a_registered_name_leads_to_its_handle(server, saved, monkeypatch):
    monkeypatch.setattr(
        kf.presets.registry, "BUILTIN", dict(kf.presets.BUILTIN)
    )
    monkeypatch.setattr(
        kf.presets.handles, "BUILTIN", kf.presets.registry.BUILTIN
    )
    folder, model = saved
    content = packed(folder)
    server.files["a.tgz"] = content
    handle = f"{server.url}/files/a.tgz#{sha256(content)}"
    entry = kf.presets.Entry("Two-dimensional toy.", handle=handle)
    kf.presets.register("my_toy", entry)
    same(kf.from_preset("my_toy"), model)
    assert handle in kf.presets.describe("my_toy")
    with pytest.raises(ValueError, match="exists"):
        kf.presets.register("my_toy", entry)
    with pytest.raises(ValueError, match="`handle`"):
        kf.presets.register("other", kf.presets.Entry("Nowhere."))


def test_card(tmp_path):
    model = kf.FlowMapInterface(
        kf.networks.MLP(2, 8, 1, two_times=True), "psd", ema=None
    )
    model.save_to_preset(
        tmp_path / "map",
        card=kf.presets.Card(
            description="A toy.",
            license="apache-2.0",
            data="Checkerboard, 4 x 4.",
            metrics={"KL | 1 step": 0.5},
            command="python recipes/checkerboard.py",
            tags=("toy: a",),
        ),
    )
    text = (tmp_path / "map" / "README.md").read_text()
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "library_name": "keras_flows",
        "license": "apache-2.0",
        "tags": ["keras", "keras_flows", "FlowMapInterface", "toy: a"],
    }
    for line in (
        "# map",
        "| Class | FlowMapInterface |",
        "| Objective | psd |",
        "| Interpolant | Linear |",
        "| Network | MLP |",
        f"| Parameters | {model.count_params():,} |",
        "| KL \\| 1 step | 0.5 |",
        "Checkerboard, 4 x 4.",
        "python recipes/checkerboard.py",
    ):
        assert line in text.splitlines(), line
    # Nothing is claimed that is not known.
    model.save_to_preset(tmp_path / "plain")
    plain = (tmp_path / "plain" / "README.md").read_text()
    assert "Not given." in plain and "license:" not in plain
    assert "## Data" not in plain and "Metric" not in plain
