"""A level of the package imports only lower levels; few know the backend."""

import ast
import pathlib
import subprocess
import sys

import pytest

from keras_flows.ops.private import NAMES

pytestmark = pytest.mark.once

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
    "cli": 4,
}
# Folders whose modules may import a backend; `serving` runs exports in
# TensorFlow whatever the backend.
EDGE = {"ops", "training", "export", "datasets", "serving"}
FRAMEWORKS = {"jax", "tensorflow", "torch"}


# Modules beside the folders, and their levels.
MODULES = {
    "_backend": 0,
    "_command": 0,
    "_quiet": 0,
    "_version": 0,
    "plot": 1,
    "parametrization": 2,
}
# Private names of others for what has no public one.
FOREIGN = {
    name.rpartition(".")[2] for names in NAMES.values() for name in names
}


def public_names():
    """Where the names in keras_flows/__init__.py come from."""
    names = {}
    for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = (
                    f"{node.module}.{alias.name}"
                )
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            names[node.targets[0].id] = names[node.value.id]
    return names


PUBLIC = public_names()


def resolved(name):
    """keras_flows.Interface as keras_flows.interfaces.Interface."""
    parts = name.split(".")
    if parts[0] != "keras_flows" or len(parts) < 2 or parts[1] in LEVELS:
        return name
    return ".".join([PUBLIC.get(parts[1], name), *parts[2:]])


def imported(tree, package):
    """Every module or name that a file imports, functions' imports included.

    Also what is taken from the package itself: `from keras_flows import x`,
    and `keras_flows.x` after `import keras_flows`.

    Args:
        tree: the file's syntax tree.
        package: names of its package, for relative imports.
    """
    whole = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                if alias.name.split(".")[0] == "keras_flows":
                    whole.add(alias.asname or "keras_flows")
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level]
            parts = [*base] if node.level else []
            parts += [node.module] if node.module else []
            for alias in node.names:
                yield resolved(".".join([*parts, alias.name]))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in whole:
                yield resolved(f"keras_flows.{node.attr}")


def upward(tree, folder):
    """What a file of a folder imports and may not."""
    for name in imported(tree, ["keras_flows", folder]):
        parts = name.split(".")
        if parts[0] in FRAMEWORKS and folder not in EDGE:
            yield name
        if parts[0] == "keras_flows" and len(parts) > 1:
            if parts[1] in (folder, "__version__"):
                continue
            # A name that is in no folder belongs to the top.
            level = (LEVELS | MODULES).get(parts[1], max(LEVELS.values()) + 1)
            if level > LEVELS[folder]:
                yield name


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def borrowed(tree):
    """Private names of another file that a file uses: (line, name)."""
    own = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            if isinstance(node.ctx, ast.Store):
                own.add(getattr(node, "attr", getattr(node, "id", None)))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, alias.name
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            holder = ast.unparse(node.value)
            if holder not in ("self", "cls", "super()"):
                if node.attr not in own | FOREIGN:
                    yield node.lineno, ast.unparse(node)


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
    if folder in LEVELS:
        assert not list(upward(ast.parse(path.read_text()), folder))


@pytest.mark.parametrize(
    "code, folder, found",
    [
        ("from keras_flows import samplers", "networks", ["samplers"]),
        ("from keras_flows import Interface", "samplers", ["interfaces"]),
        ("from keras_flows import from_preset", "networks", []),
        ("import keras_flows as k\nk.policies.Policy", "export", ["policies"]),
        ("import keras_flows\nkeras_flows.EMA", "ops", ["training"]),
        ("import keras_flows as kf\nkf.ops.jvp", "networks", []),
        ("from ..samplers import ode", "metrics", ["samplers"]),
        ("from . import ode", "samplers", []),
        ("def f():\n    import torch.nn", "networks", ["torch"]),
        ("import torch", "ops", []),
        ("from keras_flows import nothing", "policies", ["nothing"]),
    ],
)
def test_imports_that_point_up_are_seen(code, folder, found):
    names = [name.split(".") for name in upward(ast.parse(code), folder)]
    assert [n[n[0] == "keras_flows"] for n in names] == found


@pytest.mark.parametrize(
    "path", modules(), ids=lambda p: str(p.relative_to(ROOT))
)
def test_files_are_short_and_keep_to_public_names(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not list(borrowed(ast.parse(text)))


@pytest.mark.parametrize(
    "path",
    sorted(pathlib.Path(__file__).parent.rglob("*.py")),
    ids=lambda p: p.name,
)
def test_test_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 500


def test_what_is_imported_at_its_first_use():
    """Each is there by its name, listed, and not imported before."""
    code = (
        "import sys, keras_flows as kf\n"
        # They register what `presets.convert` knows.
        "assert 'keras_flows.converters' in sys.modules\n"
        "for name in kf.LATER:\n"
        "    assert 'keras_flows.' + name not in sys.modules, name\n"
        "    assert name in dir(kf)\n"
        "    assert getattr(kf, name).__name__ == 'keras_flows.' + name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT.parent)


@pytest.mark.parametrize(
    "code, found",
    [
        ("from keras_flows.ops.rows import _rows", ["_rows"]),
        ("model._emas", ["model._emas"]),
        ("module.part._emas", ["module.part._emas"]),
        ("self._emas; super()._emas; cls._emas; model.__class__", []),
        ("self._emas = 1\nother._emas", []),
        ("optimizer._iterations", []),
    ],
)
def test_private_names_of_others_are_seen(code, found):
    assert [name for _, name in borrowed(ast.parse(code))] == found


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
