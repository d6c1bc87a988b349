"""A level of the package imports only lower levels; few know the backend."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "keras_flows"
LEVELS = {
    "ops": 0,
    "presets": 0,
    "interpolants": 1,
    "networks": 1,
    "datasets": 1,
    "metrics": 1,
    "objectives": 2,
    "samplers": 2,
    "training": 2,
    "export": 2,
    "interfaces": 3,
    "policies": 4,
    "callbacks": 4,
    "converters": 4,
    "serving": 4,
}
# Folders whose modules may import a backend; `serving` runs exports in
# TensorFlow whatever the backend.
EDGE = {"ops", "training", "export", "datasets", "serving"}
FRAMEWORKS = {"jax", "tensorflow", "torch"}


def imported(path):
    """Every module that a file imports, functions' imports included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    return sorted(ROOT.rglob("*.py"))


def test_every_folder_has_a_level():
    folders = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert folders == set(LEVELS)


@pytest.mark.parametrize(
    "path", modules(), ids=lambda p: str(p.relative_to(ROOT))
)
def test_imports_point_down(path):
    folder = path.relative_to(ROOT).parts[0]
    if folder not in LEVELS:
        return
    for name in imported(path):
        parts = name.split(".")
        if parts[0] in FRAMEWORKS:
            assert folder in EDGE, f"{path} imports {name}"
        if parts[0] != "keras_flows" or len(parts) < 2:
            continue
        if parts[1] in LEVELS and parts[1] != folder:
            assert LEVELS[parts[1]] <= LEVELS[folder], f"{path}: {name}"


def test_import_loads_no_other_framework():
    """On JAX neither TensorFlow nor keras_hub nor torch is imported."""
    code = (
        "import os; os.environ['KERAS_BACKEND'] = 'jax'; import keras, sys; "
        "before = set(sys.modules); import keras_flows; "
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    ).stdout
    new = set(ast.literal_eval(output.splitlines()[-1]))
    assert "keras_flows" in new
    heavy = {"tensorflow", "torch", "keras_hub", "matplotlib"}
    assert not new & (heavy | {"fastapi", "pydantic", "uvicorn", "PIL"})
