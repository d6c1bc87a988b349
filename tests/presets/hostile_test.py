"""Presets and archives of somebody who means harm: refused, and cheaply."""

import json
import re
import subprocess
import sys

import pytest
from helpers import hostile_presets as hostile

pytestmark = pytest.mark.once
KINDS = {
    "config": hostile.CONFIGS,
    "weights": hostile.WEIGHTS,
    "folder": hostile.FOLDERS,
    "archive": hostile.ARCHIVES,
}
CASES = {
    f"{kind}: {name}": message
    for kind, cases in KINDS.items()
    for name, (_, message) in cases.items()
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """{case: what came of it}, from one process that loads them all."""
    folder = tmp_path_factory.mktemp("hostile") / "here"
    folder.mkdir()
    run = subprocess.run(
        [sys.executable, hostile.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    lines = [
        json.loads(line)
        for line in run.stdout.splitlines()
        if line.startswith('{"case"')
    ]
    found = {line.pop("case"): line for line in lines}
    assert set(found) == set(CASES), run.stderr[-2000:]
    assert [p.name for p in folder.parent.iterdir()] == ["here"]
    return found


@pytest.mark.parametrize("case", CASES)
def test_refused_for_the_reason_within_limits(outcomes, case):
    found = outcomes[case]
    assert re.search(CASES[case], found["outcome"]), found["outcome"]
    assert not found["outcome"].startswith(("loaded", "unexpected"))
    assert found["left"] == []
    assert found["seconds"] < 60
    assert found["megabytes"] < 500


def test_there_are_many():
    assert len(CASES) >= 40
