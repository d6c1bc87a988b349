"""The Dockerfiles name what there is; building them needs Docker."""

import json
import pathlib
import re
import tomllib

import pytest

from keras_flows.cli.flags import parser

pytestmark = pytest.mark.once

ROOT = pathlib.Path(__file__).parents[1]
FILES = ["Dockerfile", "Dockerfile.cuda"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", FILES)
def test_files_and_extras_are_there(name):
    text = (ROOT / name).read_text()
    copied = re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().split()
    for each in " ".join(copied).split():
        assert (ROOT / each).exists() and f"!{each}" in ignored, each
    extras = PROJECT["project"]["optional-dependencies"]
    (chosen,) = re.findall(r'"\.\[([\w,]+)\]"', text)
    assert set(chosen.split(",")) <= set(extras)
    for bound in re.findall(r'"jax\[cuda13\](.*?)"', text):
        assert extras["jax"] == [f"jax{bound}"]


def test_what_the_image_starts_is_a_command():
    text = (ROOT / "Dockerfile").read_text()
    (arguments,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    flags = parser().parse_args(["serve", *json.loads(arguments)])
    assert flags.host == "0.0.0.0"  # noqa: S104
