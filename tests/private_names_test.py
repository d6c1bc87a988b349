"""What is used below the public names of others is listed, all in one file."""

import ast
import pathlib

import keras
import pytest

from keras_flows.ops import private

pytestmark = pytest.mark.once

ROOT = pathlib.Path(private.__file__).parents[1]
LISTED = {name for names in private.NAMES.values() for name in names}
# Modules that are nobody's promise, beside those with an underscore.
INNER = ("keras.src", "tensorflow.python", "jax.experimental", "jax.extend")


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def of_keras():
    """Private names of what we inherit from, or hold: classes and objects."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    objects = [model, model.layers[0], model.weights[0]]
    objects += [keras.optimizers.Adam(), keras.metrics.Mean()]
    objects += [keras.callbacks.ModelCheckpoint("a.keras")]
    return {n for each in objects for n in dir(each) if is_private(n)}


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def own_names(tree):
    """Names that a file defines, or sets on an object of its own."""
    own = set()
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, (ast.Attribute, ast.Name)):
            if isinstance(node.ctx, ast.Store):
                own.add(getattr(node, "attr", getattr(node, "id", None)))
        elif isinstance(node, ast.Subscript):
            # model.__dict__["_name"] = ...
            if isinstance(node.ctx, ast.Store):
                own.add(getattr(node.slice, "value", None))
    return own


def imported(node):
    """Inner names of other packages that an import brings."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        inner = name.startswith(INNER) or any(map(is_private, name.split(".")))
        if inner and name.split(".")[0] != "keras_flows":
            yield name


def used(tree, own, foreign):
    """Private names of others in a file: (line, name).

    Args:
        tree: its syntax tree.
        own: private names that are ours, in any file.
        foreign: names that are Keras's, though a file of ours may have them
            for something of its own.
    """
    here = own_names(tree)
    for node in ast.walk(tree):
        for name in imported(node):
            yield node.lineno, name
        if isinstance(node, ast.ClassDef) and node.bases:
            for method in node.body:
                if isinstance(method, FUNCTIONS) and is_private(method.name):
                    if method.name in foreign:
                        yield method.lineno, method.name
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            theirs = node.attr in foreign and node.attr not in here
            inherited = ast.unparse(node.value) == "super()"
            if theirs or inherited or node.attr not in own:
                yield node.lineno, node.attr
            elif isinstance(node.ctx, ast.Store) and is_set_on_other(node):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in foreign and node.value not in here:
                yield node.lineno, node.value
        elif isinstance(node, ast.Call) and asks(node):
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            for name in names:
                if isinstance(name, str) and is_private(name):
                    if name not in own | foreign:
                        yield node.lineno, name


def is_set_on_other(node):
    """`self._part._name = ...`, on an object that `self` holds."""
    return isinstance(node.value, ast.Attribute)


def asks(node):
    """getattr(x, "_name") and its like, and x.get("_name")."""
    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return called in ("getattr", "hasattr", "setattr", "get", "pop")


def modules():
    return {p: ast.parse(p.read_text()) for p in sorted(ROOT.rglob("*.py"))}


def found():
    """{name: places} over the whole package."""
    trees, foreign = modules(), of_keras()
    own, places = set().union(*map(own_names, trees.values())), {}
    for path, tree in trees.items():
        for line, name in used(tree, own, foreign):
            places.setdefault(name, []).append(f"{path.name}:{line}")
    return places


def test_all_private_names_of_others_are_listed():
    places = found()
    assert not {n: p for n, p in places.items() if n not in LISTED}
    # And what is used no more is listed no more.
    assert not LISTED - set(places)


def test_the_list_says_where_each_was_seen():
    assert set(private.NAMES) == set(private.SEEN)
    assert all(reason for n in private.NAMES.values() for reason in n.values())


@pytest.mark.parametrize(
    "code, names",
    [
        ("from keras.src.backend import nn", ["keras.src.backend.nn"]),
        ("import torch._dynamo", ["torch._dynamo"]),
        ("from jax._src import core", ["jax._src.core"]),
        ("torch._C._functorch.peek()", ["_C", "_functorch"]),
        ("model._layers", ["_layers"]),
        ("self._layers; self._mine", ["_layers"]),
        ("getattr(layer, '_is_thing')", ["_is_thing"]),
        ("self._mine; cls.__name__; other._mine", []),
        ("super()._mine()", ["_mine"]),
        ("class A(B):\n    def _layers(self): pass", ["_layers"]),
        ("self.env._mine = 1", ["_mine"]),
        ("kwargs.get('_thing'); ('_layers',)", ["_layers", "_thing"]),
        ("from keras_flows.ops import rows", []),
    ],
)
def test_uses_are_seen(code, names):
    seen = [n for _, n in used(ast.parse(code), {"_mine"}, {"_layers"})]
    assert sorted(seen) == names
