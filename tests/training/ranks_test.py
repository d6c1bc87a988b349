"""PyTorch processes that train one model: equal weights, noise of their own.

All of two processes in one launch, since starting them is what takes time;
EQUALITY=all adds the other objectives and four processes.
"""

import os
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import replicas

import keras_flows as kf

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="torch.distributed"
)
SCRIPT = pathlib.Path(replicas.__file__).parent / "ranks.py"


def launch(folder, world, checks):
    """{check: what each process returned}."""
    done = subprocess.run(
        [sys.executable, SCRIPT, folder, str(world), *checks],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        check: [
            pickle.loads((folder / f"{i}_{rank}.pkl").read_bytes())
            for rank in range(world)
        ]
        for i, check in enumerate(checks)
    }


def check_equal(name, found):
    """As one process with the whole batch, and to the bit as each other."""
    expected = replicas.trained(name)
    for one in found:
        assert not isinstance(one, str), one
        worst = replicas.distance(one, expected)
        print(name, len(found), {k: f"{v:.1e}" for k, v in worst.items()})
        assert max(worst.values()) < 1e-5, (name, worst)
    assert max(replicas.distance(found[1], found[0]).values()) == 0.0


def check_other_seeds(found):
    """Seeded apart, and with other data: one model all the same."""
    (start, state, logs, drawn), (start_1, state_1, logs_1, drawn_1) = found
    assert max(np.abs(a - b).max() for a, b in zip(start, start_1)) > 0.1
    assert max(replicas.distance(state_1, state).values()) == 0.0
    # Of data that differ by 1; a mean over both.
    assert logs == logs_1 and len(logs["val_loss"]) == 2
    assert np.abs(drawn - drawn_1).max() > 0.1


def check_noise(found):
    """The same seeds everywhere: noise and dropout differ, and on a rerun
    they are the same."""
    for part in range(2):
        first, second = found[0][0][part], found[0][1][part]
        assert np.abs(first - second).max() > 0.1
        for rank in range(2):
            np.testing.assert_array_equal(
                found[0][rank][part], found[1][rank][part]
            )


def check_said(found, match):
    for text in found:
        assert isinstance(text, str) and match in text, text


def check_failed(found):
    assert found[0].startswith("ProcessesApart"), found[0]
    assert "since process 1 failed" in found[0]
    assert "Apart" not in found[1]


def check_skipped(found):
    """Nothing moves on any rank, statistics included; they stay equal."""
    for before, after, skipped in found:
        assert skipped == 1
        for a, b, c in zip(before, after, found[0][1], strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(b, c)


def check_close(found):
    for apart in found:
        assert not isinstance(apart, str) and apart < 1e-6, apart


def check_sampled(found):
    for said, apart, loss, weights in found:
        assert len(said) == 2 and all("training.whole" in s for s in said)
        assert apart < 1e-6 and np.isfinite(loss).all() and weights > 4


CHECKS = {
    "other_seeds()": check_other_seeds,
    "(noise(), noise())": lambda found: check_noise(list(zip(*found))),
    "uneven(True)": lambda found: check_said(found, "Received: [2, 3]"),
    "uneven(False)": lambda found: check_said(
        found, "1 take a step, 1 have no batch left"
    ),
    "uneven_epochs()": lambda found: check_said(found, "1 have ended `fit`"),
    "other_model()": lambda found: check_said(found, "another model"),
    "one_fails('data')": check_failed,
    "one_fails('callback')": check_failed,
    "one_fails('argument')": check_failed,
    "normalised(False, 1e25)": check_skipped,
    "normalised(True, 1e25)": check_skipped,
    "normalised(False, float('nan'))": check_skipped,
    "held()": lambda found: [np.testing.assert_allclose(one, 0.5, atol=0.05)
                             for one in found],
    "sampled()": check_sampled,
    "split_as_not('AdamW(0.01, global_clipnorm=0.1)')": check_close,
    "average_in_loss()": check_close,
    "not_split('scaled')": lambda found: check_said(found, "LossScaleOptim"),
    "not_split('whole')": lambda found: check_said(found, "Adafactor"),
    "not_split('twice')": lambda found: check_said(found, "split already"),
    "not_split('average')": lambda found: check_said(found, "averages_in_loss"),
    "evaluated_alone()": lambda found: np.testing.assert_equal(
        found, [(2, 2), (0,)]
    ),
}  # fmt: skip


def equalities(names, splits=("", ", kf.training.fully_shard")):
    return {
        f"equal({name!r}{split})": (
            lambda found, name=name: check_equal(name, found)
        )
        for name in names
        for split in splits
    }


@pytest.mark.slow
def test_two_processes(tmp_path):
    run = tmp_path / "run"
    one = replicas.kept(run, 1)
    checks = {
        **CHECKS,
        **equalities(["lsd", "dmd"]),
        f"kept({str(run)!r}, 3, kf.training.fully_shard)": lambda found: [
            replicas.check_kept(one, each, 3) for each in found
        ],
    }
    found = launch(tmp_path, 2, checks)
    for name, check in checks.items():
        try:
            check(found[name])
        except AssertionError as error:
            raise AssertionError(name) from error
    # The epochs' steps were fewer; the newest is still the newest.
    two = found[list(checks)[-1]][0]
    replicas.check_kept(two, replicas.kept(run, 5), 5)
    fresh = replicas.made("lsd", keras.optimizers.Adam(0.01))
    assert kf.callbacks.load_checkpoint(fresh, run) == 2 + 2 + 4


@pytest.mark.skipif(
    os.environ.get("EQUALITY") != "all", reason="long: EQUALITY=all"
)
@pytest.mark.parametrize("world", [2, 4])
def test_every_objective(world, tmp_path):
    checks = equalities(replicas.OBJECTIVES)
    found = launch(tmp_path, world, checks)
    for name, check in checks.items():
        check(found[name])


@pytest.mark.skipif(
    os.environ.get("EQUALITY") != "all", reason="long: EQUALITY=all"
)
def test_four_processes_go_on_as_two(tmp_path):
    run = str(tmp_path / "run")
    four = launch(tmp_path, 4, [f"kept({run!r}, 2)"])
    (tmp_path / "store").unlink()
    two = launch(tmp_path, 2, [f"kept({run!r}, 3)"])
    for one in two[f"kept({run!r}, 3)"]:
        replicas.check_kept(four[f"kept({run!r}, 2)"][0], one, 3)
