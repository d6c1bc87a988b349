"""`steps_per_execution`: several steps in one call, as one by one."""

import warnings

import keras
import numpy as np
import pytest

import keras_flows as kf

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="Keras has no steps_per_execution on PyTorch",
)
BATCHES = 10


def points(bad=()):
    x = kf.datasets.Checkerboard().sample(16 * BATCHES, 0)
    x = x.reshape(BATCHES, 16, 2).copy()
    for i in bad:
        x[i] = np.nan
    return x.reshape(-1, 2)


class Seen(keras.callbacks.Callback):
    """The logs of each call."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append((batch, dict(logs)))


def trained(several, callbacks=(), bad=(), epochs=2, **options):
    keras.utils.set_random_seed(0)
    model = kf.FlowMapInterface(
        kf.networks.MLP(2, 16, 2, two_times=True),
        "lsd",
        ema=0.9,
        seed=0,
        **options,
    )
    model.compile(
        keras.optimizers.Adam(1e-2), steps_per_execution=several,
        jit_compile=True,
    )  # fmt: skip
    data = kf.datasets.Batches(
        Rows(points(bad)), 16, lambda row, rng: (row,), shuffle=False
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        history = model.fit(
            data, epochs=epochs, verbose=0, callbacks=list(callbacks)
        ).history
    skipped = [str(w.message) for w in said if "Skipped" in str(w.message)]
    return model, history, skipped


class Rows:
    classes = None

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def assert_same(one, other):
    for a, b in zip(one.variables, other.variables, strict=True):
        np.testing.assert_allclose(
            np.array(a), np.array(b), rtol=2e-4, atol=2e-6, err_msg=a.path
        )


def test_several_steps_in_one_call_are_the_same_steps():
    """10 batches in calls of 4: the last call has 2."""
    seen = Seen(), Seen()
    one, single, _ = trained(1, [seen[0]])
    other, several, _ = trained(4, [seen[1]])
    assert int(one.optimizer.iterations.numpy()) == 2 * BATCHES
    assert_same(one, other)
    for name, values in single.items():
        np.testing.assert_allclose(several[name], values, rtol=1e-4)
    calls = [batch for batch, _ in seen[1].logs]
    assert calls == [3, 7, 11] * 2
    steps = [seen[0].logs[i][1] for i in (3, 7, 9, 13, 17, 19)]
    for (_, found), expected in zip(seen[1].logs, steps, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_skipped_step_among_several_is_told_and_changes_nothing():
    one, single, said = trained(1, bad=(2, 9), epochs=1)
    other, several, told = trained(4, bad=(2, 9), epochs=1)
    assert single["skipped_steps"] == several["skipped_steps"] == [2.0]
    assert_same(one, other)
    assert "step 3 " in said[0] and "step 10 " in said[1]
    assert "1 of the steps up to 4" in told[0]
    assert "1 of the steps up to 10" in told[1]


def test_too_many_skipped_steps_end_a_run_of_several():
    with pytest.raises(kf.NonFiniteError, match="in 7 steps in a row"):
        trained(4, bad=range(1, BATCHES), max_skipped_steps=6)


def test_a_checkpoint_counts_steps_and_not_calls(tmp_path):
    keep = kf.callbacks.Checkpoint(tmp_path / "one", every_steps=5)
    other, history, _ = trained(4, [keep])
    assert keep.step == 2 * BATCHES
    one, single, _ = trained(1)
    assert_same(one, other)
    # And the run goes on where it is.
    keep = kf.callbacks.Checkpoint(tmp_path / "one", every_steps=5)
    longer, history, _ = trained(4, [keep], epochs=3)
    assert keep.step == 3 * BATCHES
    assert_same(trained(1, epochs=3)[0], longer)


def test_callbacks_of_every_few_steps_count_steps(tmp_path):
    metric = kf.callbacks.SampleMetric(
        lambda samples: 1.0, 5, num_samples=2, num_steps=1
    )
    trained(4, [metric])
    # After the calls that passed 5, 10, 15 and 20.
    assert [step for step, _ in metric.values] == [8, 10, 18, 20]


class Weighted(keras.utils.PyDataset):
    """Batches (x, None, weight)."""

    def __init__(self):
        super().__init__()
        self.x = points().reshape(BATCHES, 16, 2)
        self.weight = np.linspace(0.5, 2.0, 16 * BATCHES, dtype="float32")

    def __len__(self):
        return BATCHES

    def __getitem__(self, i):
        return self.x[i], None, self.weight[16 * i : 16 * (i + 1)]


def test_parts_that_are_missing_stay_missing():
    found = []
    for several in (1, 4):
        keras.utils.set_random_seed(0)
        model = kf.SiTInterface(kf.networks.MLP(2, 16, 1), ema=None, seed=0)
        model.compile(
            keras.optimizers.Adam(1e-2), steps_per_execution=several,
            jit_compile=True,
        )  # fmt: skip
        model.fit(Weighted(), shuffle=False, verbose=0)
        found.append(model.get_weights())
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
