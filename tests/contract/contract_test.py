"""The contract: a call does what it says, or refuses an argument by name.

A few hundred calls of the public API with drawn arguments, the same ones in
every run; tools/fuzz.py draws more. CALLS=2000 here does, too.
"""

import inspect
import itertools
import os
import time

import keras
import pytest

hypothesis = pytest.importorskip("hypothesis")

from contract import calls
from contract import draw
from contract import world
from contract.values import integer
from contract.values import real

import keras_flows as kf

CALLS = int(os.environ.get("CALLS", "0"))
# Of drawn calls, those with a good outcome: see `calls.outcome`.
SHARE = 0.98

# What a caller is handed and does not make, and parts for other modules.
INNER = {
    "Batch", "Bound", "Config", "Converter", "Conversion", "EndOfFlow",
    "Endpoint", "Entry", "FeatureExtractor", "FeatureTap", "Fixed",
    "FlowMap", "Frozen", "FullySharded", "Generator", "Guided", "Holder",
    "ImageEncoder", "Interpolant", "Loop", "NonFiniteError", "Objective",
    "OnPath", "Plan", "Preset", "Reads", "Request", "RowSplit", "Sampler",
    "Served", "Source", "Teacher", "TimeLaw", "TrainStep", "Trainable",
    "InceptionV3", "CrossAttention", "Dense", "Flow", "Regression",
    "StraightFlow", "BridgeMatching", "check_fit", "make_request",
    "register_converter", "stable_endpoints", "time_pairs", "resolve",
    "serialize", "names", "settle", "coverage", "check_layout_map",
    "is_functional", "dino_encoder", "Labels", "OtherValues",
    "deserialize_network", "fixed_copy", "input_specs", "inverse",
    "labels_of", "load_checkpoint", "registered_config",
    "serialize_network", "serialized", "Limits", "limits", "set_limits",
    # Of several processes, which tests/training/ranks_test starts.
    "fully_shard", "whole",
    # It sets where a whole process keeps what it compiles.
    "compilation_cache",
    # A training and an export; measuring, of whatever model; a bar.
    "distil", "write_page", "by_calls", "ProgressBar",
}  # fmt: skip
MODULES = (
    kf, kf.callbacks, kf.datasets, kf.datasets.robots, kf.interpolants,
    kf.metrics, kf.networks, kf.objectives, kf.policies, kf.presets,
    kf.samplers, kf.serving, kf.training,
)  # fmt: skip


def public():
    """(name in its module, thing) of every public function and class."""
    for module in MODULES:
        for name, thing in vars(module).items():
            ours = getattr(thing, "__module__", "").startswith("keras_flows")
            if name.startswith("_") or not ours or not callable(thing):
                continue
            if getattr(thing, "__name__", "") not in INNER:
                yield name, thing


@pytest.mark.once
def test_every_public_name_is_called():
    called = " ".join(target.call for target in draw.TARGETS)
    aliases = {"Interfaces", "DiT_REPA", "sCTInterface", "sCDInterface"}
    missing = sorted(
        {
            name
            for name, _ in public()
            if name not in aliases and f".{name}" not in called
        }
    )
    assert not missing, missing


@pytest.mark.once
def test_arguments_exist():
    """A misspelt argument would be refused by name, and prove nothing."""
    unknown = {}
    for target in draw.TARGETS:
        if not target.call.startswith(("kf.", "robots.")) or "(" in target.call:
            continue
        thing = eval(target.call, {"kf": kf, "robots": kf.datasets.robots})
        parameters = inspect.signature(thing).parameters.values()
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            continue
        extra = set(target.kinds()) - {p.name for p in parameters}
        if extra:
            unknown[target.call] = extra
    assert not unknown, unknown


@pytest.mark.once
@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (integer(1), ["1", "np.int64(2)"], ["0", "-1", "'2'", "None", "0.5"]),
        (real(0.0), ["1.0", "np.float32(.5)"], ["-1.0", "'a'", "1j", "[1]"]),
        (real(none=True), ["None"], ["float('nan')", "float('inf')"]),
    ],
)
def test_verdicts(kind, good, bad):
    import numpy as np

    for text in good:
        assert kind.verdict(eval(text, {"np": np})) == "good", text
    for text in bad:
        assert kind.verdict(eval(text, {"np": np})) == "bad", text


SPACE = {"before": {}, "turns": itertools.count()}
KINDS = {
    "refused by name": (lambda x: _refuse("`x` is wrong"), "'a'", None),
    "refused without a name": (
        lambda x: _refuse("wrong"), "'a'", "ValueError without a name",
    ),
    "refused though right": (
        lambda x: _refuse("`x` is wrong"), "1", "refuses what is right",
    ),
    "crash": (lambda x: {}[x], "'a'", "raises KeyError"),
    "taken": (lambda x: 1.0, "'a'", "taken silently"),
    "not finite": (lambda x: float("nan"), "1", "wrong result"),
    "right": (lambda x: 1.0, "1", None),
}  # fmt: skip


def _refuse(message):
    raise ValueError(message)


@pytest.mark.once
@pytest.mark.parametrize("name", KINDS)
def test_the_judge_tells_faults(name):
    fn, text, fault = KINDS[name]
    target = calls.Target("fn", {"x": ("1", integer(1))})
    found = calls.outcome(target, {"x": text}, {**SPACE, "fn": fn})
    assert found.fault == fault


@pytest.mark.once
def test_the_judge_sees_a_broken_model(monkeypatch):
    broken = {"model": 0.0}
    monkeypatch.setattr(world, "samples", lambda model: broken["model"])
    monkeypatch.setattr(world, "renew", lambda space, name: None)
    space = {
        **SPACE,
        "before": {"model": 0.0},
        "model": None,
        "fn": lambda x: broken.update(model=1.0) or _refuse("`x`"),
    }
    target = calls.Target("fn", {"x": ("1", integer(1))})
    found = calls.outcome(target, {"x": "'a'"}, space)
    assert found.fault == "leaves a model unusable"


@pytest.mark.once
@pytest.mark.parametrize("wait", ["time.sleep(9)", "spin()"])
def test_the_judge_stops_a_call(wait):
    def spin():
        while True:
            pass

    with pytest.raises(calls.Hang), calls.limit(0.2, 0.4):
        eval(wait, {"time": time, "spin": spin})


def test_drawn_calls_keep_the_contract():
    """The same calls on every backend, PyTorch's more."""
    torch = keras.backend.backend() == "torch"
    count = CALLS or (200 if torch else 50)
    found = list(draw.outcomes(count, seed=20251121))
    bad = [each for each in found if each.fault]
    assert len(found) == count
    told = "\n".join(f"{e.fault}: {e.call}\n    {e.detail}" for e in bad)
    assert len(bad) <= (1.0 - SHARE) * count, told
