"""Hostile and damaged checkpoints: each is refused, with its reason."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import hostile
from helpers.checkpoints import published
from helpers.checkpoints import save_safetensors
from helpers.checkpoints import save_torch

from keras_flows.presets.convert_files import read_checkpoint

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(sys.platform != "linux", reason="memory by /proc"),
]

TESTS = pathlib.Path(__file__).parents[1]


def test_every_hostile_file_is_refused_with_its_reason(tmp_path):
    """In one process: at most 500 MB and 60 s each."""
    hostile.write(tmp_path)
    cases = {k: (str(p), kind) for k, (p, kind, _) in hostile.CASES.items()}
    listed = tmp_path / "cases.json"
    listed.write_text(json.dumps(cases))
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, hostile.__file__, str(listed)],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["cases"]) == len(hostile.CASES) >= 100
    wrong = {
        name: message
        for name, (message, _) in found["cases"].items()
        if not message.startswith("ValueError: `source`")
        or cases[name][0] not in message
        or not re.search(hostile.CASES[name][2], message)
        or len(message) > 1500
    }
    assert not wrong
    assert max(seconds for _, seconds in found["cases"].values()) < 60
    assert found["megabytes"] < 500
    assert not (tmp_path / "made").exists()


@pytest.fixture(params=["safetensors", "npz", "pt", "legacy", "msgpack"])
def whole(request, tmp_path):
    """A small file of each format that is in order."""
    state = {
        "a.weight": np.arange(6.0, dtype="float32").reshape(2, 3),
        "b.bias": np.arange(5.0),
        "c": np.asarray(7, "int64"),
    }
    path = tmp_path / f"a.{request.param}"
    if request.param == "safetensors":
        save_safetensors(path, state)
    elif request.param == "npz":
        np.savez_compressed(path, **state)
    elif request.param == "msgpack":
        folder = TESTS / "published" / "convert_meanflow.msgpack"
        path.write_bytes(folder.read_bytes())
    else:
        import torch

        path = tmp_path / "a.pt"
        zipped = request.param == "pt"
        tree = {k: torch.from_numpy(v.copy()) for k, v in state.items()}
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    return path


def test_whatever_is_damaged_is_a_value_error(whole):
    """A bit turned anywhere, or the end cut off anywhere."""
    data, rng = whole.read_bytes(), np.random.default_rng(0)
    state = read_checkpoint(whole).state
    assert state
    refused = 0
    for i in range(200):
        damaged = bytearray(data)
        # Where files are described, at both ends, more often.
        place = int(len(data) * rng.beta(0.3, 0.3)) % len(data)
        if i % 4:
            damaged[place] ^= 1 << int(rng.integers(8))
        else:
            del damaged[place:]
        whole.write_bytes(damaged)
        try:
            read = read_checkpoint(whole).state
        except ValueError as error:
            assert str(whole) in str(error)
            refused += 1
            continue
        # What has a sum loads as it was, or not at all.
        if whole.suffix == ".npz":
            for name, value in read.items():
                np.testing.assert_array_equal(value, state[name])
    assert refused > 50


def test_a_tensor_is_read_as_torch_reads_it(tmp_path):
    """Views, shared storages, parameters, dtypes, both of torch's formats."""
    import torch

    base = torch.arange(24.0).reshape(4, 6)
    tree = {
        "view": base[1:3, ::2],
        "turned": base.T,
        "shared": base,
        "half": base.half(),
        "bfloat": base.bfloat16(),
        "eight": base.to(torch.uint16),
        "none": torch.zeros(0),
        "one": torch.tensor(3),
        "flags": base > 3,
        "parameter": torch.nn.Parameter(base[0]),
        "layer": dict(torch.nn.Linear(2, 3).state_dict()),
    }
    for zipped in (True, False):
        path = tmp_path / "a.pt"
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
        state = read_checkpoint(path).state
        names = set(tree) - {"layer"} | {"layer.weight", "layer.bias"}
        assert set(state) == names
        for name, value in state.items():
            part = tree
            for key in name.split("."):
                part = part[key]
            expected = part.detach().float().numpy()
            np.testing.assert_array_equal(value.astype("float32"), expected)


def test_more_is_read_where_the_file_is_trusted(tmp_path):
    """`max_bytes` is the one way to raise the limit, and to lower it."""
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(20_000_000, "float32"))
    with pytest.raises(ValueError, match="`max_bytes=80000000`"):
        read_checkpoint(path)
    assert read_checkpoint(path, max_bytes=80_000_000).state["a"].nbytes == 8e7
    state, _ = published("convert_sit")
    small = save_torch(tmp_path / "a.pt", state)
    with pytest.raises(ValueError, match="more than the 1,000 that"):
        read_checkpoint(small, max_bytes=1000)
    with pytest.raises(ValueError, match="`max_bytes` must be an int"):
        read_checkpoint(small, max_bytes=1e3)
