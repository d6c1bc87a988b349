"""What the package says is public exists, has a docstring, and a page."""

import importlib
import inspect
import pathlib
import re

import pytest

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted(
    path.parent.name
    for path in (ROOT / "keras_flows").glob("*/__init__.py")
    if path.parent.name != "converters"
) + ["plot"]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_there_and_described(name):
    module = importlib.import_module(f"keras_flows.{name}")
    listed = module.__all__
    assert len(set(listed)) == len(listed)
    for each in listed:
        value = getattr(module, each)
        if not inspect.ismodule(value):
            assert inspect.getdoc(value), each


@pytest.mark.parametrize("name", MODULES)
def test_each_module_has_a_page_of_reference(name):
    page = ROOT / "docs" / "reference" / f"{name}.md"
    assert re.search(
        rf"^::: keras_flows\.{name}$", page.read_text(), re.MULTILINE
    )


def test_the_package_lists_one_name_for_one_thing():
    import keras_flows as kf

    found = [getattr(kf, name) for name in kf.__all__]
    assert len({id(each) for each in found}) == len(found)
    # The names of the interfaces' document stay.
    assert kf.Interfaces is kf.Interface and kf.DiT_REPA is kf.REPAInterface
    assert kf.sCTInterface is kf.SCTInterface
    assert kf.sCDInterface is kf.SCDInterface
