"""A run that was interrupted is the run that was not, bit for bit."""

import errno
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
from helpers import survivor

import keras_flows as kf
from keras_flows.training.resume import files

SCRIPT = pathlib.Path(survivor.__file__)


def interrupted():
    raise KeyboardInterrupt


def available(data):
    if data.startswith("grain"):
        pytest.importorskip("grain")
    if "tf.data" in data:
        pytest.importorskip("tensorflow")
    if data == "torch":
        pytest.importorskip("torch")


# Feeds that hand NumPy arrays to every backend alike; "arrays", and those of
# the frameworks, run on all.
ALIKE = ("arrays across epochs", "pydataset", "endless", "grain iter")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, marks=[pytest.mark.once] * (data in ALIKE))
        for data in survivor.DATA
    ],
)
def test_a_run_goes_on_as_if_it_had_not_stopped(data, tmp_path):
    """Stopped twice, in the middle of an epoch and near its end."""
    available(data)
    whole = survivor.digest(*survivor.run(tmp_path / "whole", data))
    for after in (3, 5):
        with pytest.raises(KeyboardInterrupt):
            survivor.run(tmp_path / "broken", data, after, interrupted)
    resumed = survivor.run(tmp_path / "broken", data)
    assert survivor.digest(*resumed) == whole
    assert resumed[1].epoch == list(range(survivor.EPOCHS))


@pytest.mark.slow
@pytest.mark.parametrize(
    "data", ["arrays", "pydataset", "tf.data", "grain map"]
)
def test_killed_runs_go_on(data, tmp_path):
    """By SIGKILL: one of arrays in the gate, KILLS of each kind of data."""
    kills = int(os.environ.get("KILLS", data == "arrays"))
    if not kills:
        pytest.skip("KILLS=5 kills five runs of each kind of data")
    available(data)
    script = [sys.executable, str(SCRIPT)]
    rng = random.Random(int(os.environ.get("KILLS_SEED", 0)))
    # In a process of its own too: here NumPy draws the initial weights.
    done = subprocess.run([*script, tmp_path / "whole", data, "0"], check=True,
                          text=True, capture_output=True)  # fmt: skip
    whole = done.stdout.split()[-1]
    folder, run = tmp_path / "broken", 0
    for _ in range(kills):
        # A step or more beyond the last checkpoint, so that the run moves.
        after = str(rng.randint(3, 5))
        done = subprocess.run([*script, folder / str(run), data, after],
                              text=True, capture_output=True)  # fmt: skip
        if done.returncode == 0:
            assert done.stdout.split()[-1] == whole
            run += 1
            continue
        assert done.returncode == -signal.SIGKILL, done.stderr
    done = subprocess.run([*script, folder / str(run), data, "0"], check=True,
                          text=True, capture_output=True)  # fmt: skip
    assert done.stdout.split()[-1] == whole


@pytest.mark.once
@pytest.mark.slow
def test_several_processes_go_on(tmp_path):
    """Two of PyTorch, each with seeds of its own, from the same step."""
    launches = iter(range(9))

    def launch(folder, after):
        store = tmp_path / f"store{next(launches)}"
        running = [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), folder, "arrays", str(after)],
                env={**os.environ, "WORLD": "2", "RANK_HERE": str(rank),
                     "STORE": str(store), "SEED": str(rank)},
                stdout=subprocess.PIPE, text=True,
            )
            for rank in (0, 1)
        ]  # fmt: skip
        texts = [process.communicate()[0] for process in running]
        return [process.returncode for process in running], texts

    codes, whole = launch(tmp_path / "whole", 0)
    assert codes == [0, 0]
    codes, _ = launch(tmp_path / "broken", 5)
    assert codes == [-signal.SIGKILL] * 2
    # One process is a checkpoint behind the other.
    first = files.saved(tmp_path / "broken" / "process_0")
    files.remove(first[0])
    codes, resumed = launch(tmp_path / "broken", 0)
    assert codes == [0, 0]
    assert [text.split()[-1] for text in resumed] == [
        text.split()[-1] for text in whole
    ]
    # The weights are the same on both, the noise is not.
    assert resumed[0].split()[-1] != resumed[1].split()[-1]


# Where a writer may be killed: the n-th of these calls.
WRITERS_DEATH = """
import os, sys, numpy as np
from keras_flows.training.resume import files
def save(step):
    arrays = {"v0": np.full(1000, step, "float32")}
    files.write(sys.argv[1], step, arrays, {}, [])
    files.tidy(sys.argv[1], 1)
save(1)
places = 0
for place in range(200):
    child = os.fork()
    if child == 0:
        left = place
        def die(call):
            def run(*args, **kwargs):
                global left
                if left == 0:
                    os._exit(9)
                left -= 1
                return call(*args, **kwargs)
            return run
        for name in ("fsync", "rename", "replace", "mkdir", "open", "rmdir"):
            setattr(os, name, die(getattr(os, name)))
        np.savez = die(np.savez)
        save(2 + place)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    path, meta = files.newest(sys.argv[1])
    value = files.read(path, meta)["v0"]
    assert (value == meta["step"]).all() and meta["step"] >= 1 + bool(place)
    if code == 0:
        break
    assert code == 9
    places += 1
    files.write(sys.argv[1], 2 + place, {"v0": value * 0 + 2 + place}, {}, [])
print(places)
"""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_writer_that_is_killed_leaves_the_last_one_whole(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WRITERS_DEATH, tmp_path / "run"],
        text=True, capture_output=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) >= 8


@pytest.mark.once
def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    """Each file cut short and with a flipped bit, 200 times: none loads."""
    survivor.run(tmp_path, "grain iter", keep=2)
    newest, last = files.saved(tmp_path)
    names = sorted(p for p in newest.rglob("*") if p.is_file())
    assert len(names) == 3  # state, meta, batches that were read ahead
    rng = random.Random(0)
    for case in range(200):
        path = names[case % len(names)]
        content = path.read_bytes()
        at = rng.randrange(len(content))
        if case % 2:
            bad = content[:at]
        else:
            bad = bytearray(content)
            bad[at] ^= 1 << rng.randrange(8)
        path.write_bytes(bad)
        with pytest.warns(UserWarning, match=newest.name):
            assert files.newest(tmp_path)[0] == last
        path.write_bytes(content)
    assert files.newest(tmp_path)[0] == newest
    for path in tmp_path.rglob("meta.json"):
        path.write_text("{}")
    with pytest.raises(ValueError, match="None of the 2 checkpoints"):
        survivor.run(tmp_path, "grain iter")


@pytest.mark.parametrize("fault", ["full", "a file"])
def test_training_goes_on_where_nothing_can_be_written(
    fault, tmp_path, monkeypatch
):
    """The disk fills up, or the folder goes: a warning, and the last copy."""
    folder = tmp_path / "run"
    savez = np.savez

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def spoil():
        # The thread that writes may be at the checkpoint of this step.
        while not (folder / files.name_of(6)).exists():
            time.sleep(0.01)
        if fault == "full":
            monkeypatch.setattr(np, "savez", full)
        else:
            folder.rename(tmp_path / "aside")
            folder.write_text("in the way")

    with pytest.warns(UserWarning, match="was not kept"):
        _, history = survivor.run(folder, "arrays", 7, spoil)
    assert history.epoch == list(range(survivor.EPOCHS))
    monkeypatch.setattr(np, "savez", savez)
    kept = folder if fault == "full" else tmp_path / "aside"
    _, meta = files.newest(kept)
    assert meta["step"] == 6
    if fault == "full":
        whole = survivor.digest(*survivor.run(tmp_path / "whole", "arrays"))
        assert survivor.digest(*survivor.run(folder, "arrays")) == whole


@pytest.mark.once
def test_sigterm_saves_and_ends(tmp_path, capsys):
    def term():
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        survivor.run(tmp_path, "arrays", 3, term)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert files.newest(tmp_path)[1]["step"] == 3
    assert "step 3" in capsys.readouterr().out


def test_the_best_epoch_is_kept(tmp_path):
    made = survivor.model()
    keep = kf.callbacks.Checkpoint(tmp_path, every_steps=1, keep=1, best="loss")
    history = made.fit(
        survivor.POINTS, survivor.LABELS, batch_size=16, epochs=6, verbose=0,
        callbacks=keep,
    )  # fmt: skip
    best = int(np.argmin(history.history["loss"]))
    other = survivor.model()
    # 70 rows are 5 batches of 16.
    step = kf.callbacks.load_checkpoint(other, tmp_path, "best")
    assert step == 5 * (best + 1)
    assert len(files.saved(tmp_path)) == (1 if best == 5 else 2)
    assert kf.callbacks.load_checkpoint(other, tmp_path) == 30
    for a, b in zip(other.get_weights(), made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_callbacks_go_on(tmp_path):
    """EarlyStopping counts its epochs across the interruption."""

    def run(folder, after=0):
        made = survivor.model()
        stop = keras.callbacks.EarlyStopping(
            "val_loss", patience=3, restore_best_weights=True, min_delta=1.0
        )
        lower = keras.callbacks.ReduceLROnPlateau(
            "loss", patience=1, min_delta=1.0
        )
        made.compile(keras.optimizers.Adam(1e-2))
        history = made.fit(
            survivor.POINTS, survivor.LABELS, batch_size=16, epochs=20,
            validation_split=0.2, verbose=0,
            callbacks=[
                kf.callbacks.Checkpoint(folder, every_steps=2), stop, lower,
                survivor.End(after, interrupted),
            ],
        )  # fmt: skip
        return made, history

    whole = run(tmp_path / "whole")
    assert len(whole[1].epoch) == 4
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 11)
    resumed = run(tmp_path / "broken")
    assert survivor.digest(*resumed) == survivor.digest(*whole)
    # It was stopped, and is not begun again.
    again = run(tmp_path / "broken")
    assert again[1].epoch == whole[1].epoch


def test_a_run_that_is_done_trains_no_more(tmp_path, capsys):
    made, history = survivor.run(tmp_path, "arrays")
    again, same = survivor.run(tmp_path, "arrays")
    assert "nothing is trained" in capsys.readouterr().out
    assert survivor.digest(again, same) == survivor.digest(made, history)


MISFITS = {
    "data": (lambda m: m.fit(survivor.POINTS[:66], survivor.LABELS[:66],
                             batch_size=16, epochs=9), "rows was 70"),
    "batch": (lambda m: m.fit(survivor.POINTS, survivor.LABELS,
                              batch_size=32, epochs=9), "has 5 steps, and 3"),
    "generator": (lambda m: m.fit((b for b in [(survivor.POINTS,)])),
                  "PyDataset"),
    "initial_epoch": (lambda m: m.fit(survivor.POINTS, survivor.LABELS,
                                      initial_epoch=2),
                      "initial_epoch"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_what_does_not_fit_the_run_is_refused(name, tmp_path, monkeypatch):
    survivor.run(tmp_path, "arrays")
    call, match = MISFITS[name]
    made = survivor.model()
    before = made.get_weights()
    fit = made.fit
    keep = kf.callbacks.Checkpoint(tmp_path)
    monkeypatch.setattr(
        made, "fit", lambda *a, **k: fit(*a, callbacks=keep, verbose=0, **k)
    )
    with pytest.raises(ValueError, match=match):
        call(made)
    # What is refused has changed nothing.
    for a, b in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_model_is_refused(tmp_path):
    survivor.run(tmp_path, "arrays")
    network = kf.networks.MLP(2, 8, 1, two_times=True, num_classes=2)
    other = kf.FlowMapInterface(network, "lsd", ema=[0.9, 0.99], seed=3)
    other.compile(keras.optimizers.Adam(1e-2))
    with pytest.raises(ValueError, match="another model or optimizer"):
        kf.callbacks.load_checkpoint(other, tmp_path)


@pytest.mark.once
@pytest.mark.parametrize(
    "options, name",
    [
        ({"every_steps": 0}, "every_steps"),
        ({"every_minutes": -1}, "every_minutes"),
        ({"keep": 0}, "keep"),
        ({"best": 3}, "best"),
    ],
)
def test_arguments(options, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        kf.callbacks.Checkpoint("somewhere", **options)


@pytest.mark.once
def test_values_of_every_dtype_come_back(tmp_path):
    import ml_dtypes

    arrays = {
        "a": np.arange(6, dtype="int8").reshape(2, 3),
        "b": np.arange(4).astype(ml_dtypes.bfloat16),
        "c": np.array(3, "uint32"),
        "d": np.array([np.nan, np.inf], "float64"),
        "e": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
    }
    path = files.write(tmp_path, 7, arrays, {"more": [1, None]}, [])
    meta = files.check(path)
    assert meta["step"] == 7 and meta["more"] == [1, None]
    found = files.read(path, meta)
    for key, value in arrays.items():
        assert found[key].dtype == value.dtype
        assert found[key].tobytes() == value.tobytes()
    json.dumps(meta)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert files.newest(tmp_path)[0] == path
