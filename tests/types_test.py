"""Every public signature is annotated, as `mypy` then reads it."""

import importlib
import inspect
import pathlib

import pytest

import keras_flows as kf

pytestmark = pytest.mark.once

ROOT = pathlib.Path(kf.__file__).parent
MODULES = [
    "",
    *(f".{path.parent.name}" for path in ROOT.glob("*/__init__.py")),
    ".datasets.robots",
    ".plot",
]
# Of classes: their constructors, and of what users call most these as well.
METHODS = {
    "Generator": ("generate", "encode", "show", "export"),
    "Policy": ("adapt", "predict_chunk", "reset", "select_action", "export"),
    "FrechetDistance": ("__call__", "record", "statistics"),
    "HistogramKL": ("__call__", "floor", "report"),
    "Checkerboard": ("sample", "sample_labelled", "density"),
}


def public():
    """{name: function} of all that has a signature of ours."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"keras_flows{name}")
        for each in getattr(module, "__all__", ()):
            value = getattr(module, each)
            if not getattr(value, "__module__", "").startswith("keras_flows"):
                continue
            if not inspect.isclass(value):
                found[f"{name}.{each}"] = value
                continue
            for method in ("__init__", *METHODS.get(each, ())):
                if method in vars(value):
                    found[f"{name}.{each}.{method}"] = vars(value)[method]
    return {
        name: inspect.unwrap(function)
        for name, function in found.items()
        if inspect.isfunction(inspect.unwrap(function))
        and inspect.unwrap(function).__module__.startswith("keras_flows")
    }


def test_public_signatures_are_annotated():
    functions = public()
    assert len(functions) > 200
    bare = []
    for name, function in functions.items():
        signature = inspect.signature(function)
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                if parameter.annotation is parameter.empty:
                    bare.append(f"{name}({parameter.name})")
        if signature.return_annotation is signature.empty:
            if not name.endswith("__init__") or signature.parameters:
                bare.append(f"{name} ->")
    assert not bare


def test_the_marker_of_types_is_shipped():
    assert (ROOT / "py.typed").is_file()
    assert "py.typed" in (ROOT.parent / "pyproject.toml").read_text()
