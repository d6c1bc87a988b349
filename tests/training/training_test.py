"""`fit` on every kind of data; EMA, accumulation, guard, logs, state."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

BACKEND = keras.backend.backend()


def build(objective="flow", ema=None, **kwargs):
    keras.utils.set_random_seed(0)
    network = kf.networks.MLP(
        2, width=16, depth=1, two_times=True, **kwargs.pop("network", {})
    )
    kwargs.setdefault("seed", 0)
    model = kf.FlowMapInterface(network, objective, ema=ema, **kwargs)
    model.compile(keras.optimizers.SGD(0.1))
    return model


def data(num=32):
    return kf.datasets.Checkerboard().sample(num, 0)


def weights(model):
    return [
        ops.convert_to_numpy(v.value) for v in model.network.trainable_variables
    ]


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return (data()[8 * i : 8 * i + 8],)


def torch_loader(x):
    import torch

    return torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.as_tensor(x)), batch_size=8
    )


def torch_bare(x):
    import torch

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            return x[i]

    return torch.utils.data.DataLoader(Rows(), batch_size=8)


def tf_data(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(8)


def grain_data(x):
    import grain

    return grain.MapDataset.source(x).batch(8)


def generator(x):
    for i in range(0, len(x), 8):
        yield (x[i : i + 8],)


SOURCES = {
    "numpy": lambda x: x,
    "tf.data": tf_data,
    "torch": torch_loader,
    "torch bare array": torch_bare,
    "grain": grain_data,
    "PyDataset": lambda x: Batches(),
    "generator": generator,
}


@pytest.mark.parametrize("name", SOURCES)
def test_fit_takes_every_kind_of_data(name):
    model = build("lsd")
    before = weights(model)
    options = {"batch_size": 8} if name == "numpy" else {}
    history = model.fit(
        SOURCES[name](data()), epochs=1, shuffle=False, verbose=0, **options
    ).history
    assert np.isfinite(history["loss"][0])
    moved = [np.abs(a - b).max() for a, b in zip(before, weights(model))]
    assert max(moved) > 1e-4


@pytest.mark.parametrize("objective", kf.objectives.names())
def test_every_objective_fits_and_follows_its_gradient(objective):
    """One SGD step moves the weights by -lr * gradient of the same loss."""
    if objective == "mean_flow":
        pytest.skip("MeanFlowInterface has its own test")
    teacher = None
    if kf.objectives.get(objective).teacher == "required":
        teacher = build("flow")
        teacher.trainable = False
    model = build(objective, teacher=teacher)
    frozen = weights(teacher) if teacher else []
    before = weights(model)
    x = data(16)
    logs = model.train_on_batch(x, return_dict=True)
    after = weights(model)
    step = np.concatenate([np.ravel(b - a) for a, b in zip(after, before)])
    assert np.isclose(
        np.linalg.norm(step), 0.1 * logs["gradient_norm"], rtol=1e-4
    )
    assert logs["skipped_steps"] == 0
    for a, b in zip(frozen, weights(teacher) if teacher else []):
        np.testing.assert_array_equal(a, b)


def test_mean_flow_logs_unweighted_loss():
    network = kf.networks.MLP(2, width=16, depth=1, two_times=True)
    model = kf.MeanFlowInterface(network, ema=None, seed=0)
    model.compile("sgd")
    logs = model.train_on_batch(data(), return_dict=True)
    # The adaptive weight makes every row's loss |e|^2 / (|e|^2 + eps) < 1.
    assert 0.9 < logs["weighted_loss"] < 1.0
    assert logs["loss"] == logs["mse"] and logs["mse"] > 1.1


@pytest.mark.parametrize("ema", [0.9, kf.EMA(std=0.1), [0.5, kf.EMA(std=0.05)]])
def test_ema_follows_its_formula(ema):
    model = build(ema=ema)
    x = data(8)
    averages = None
    for n in range(1, 4):
        model.train_on_batch(x)
        live = weights(model)
        if averages is None:
            averages = [None] * len(model.emas)
        for i, average in enumerate(model.emas):
            if average.decay is not None:
                beta = min(average.decay, n / (9 + n))
                start = live if averages[i] is None else averages[i]
                if averages[i] is None:
                    # Before the first update the average is the weights
                    # that training started from.
                    start = weights(build())
            else:
                beta = (1 - 1 / n) ** (average.gamma + 1)
                start = averages[i] if averages[i] is not None else live
            averages[i] = [
                beta * a + (1 - beta) * w for a, w in zip(start, live)
            ]
    for average, expected in zip(model.emas, averages):
        assert int(average.updates) == 3
        found = [ops.convert_to_numpy(v.value) for v in average.averages]
        kept = [
            f
            for f, v in zip(found, model.network.variables)
            if any(v is t for t in model.network.trainable_variables)
        ]
        assert len(kept) == len(expected)
        for f, e in zip(kept, expected):
            np.testing.assert_allclose(f, e, rtol=2e-5, atol=1e-6)


def test_power_function_ema_has_the_asked_width():
    """Its weights over time have standard deviation std of the run."""
    ema = kf.EMA(std=0.1)
    steps = 20_000
    n = np.arange(1, steps + 1)
    beta = (1 - 1 / n) ** (ema.gamma + 1)
    log = np.concatenate([np.cumsum(np.log(beta[:0:-1]))[::-1], [0.0]])
    weight = (1 - beta) * np.exp(log)
    time = n / steps
    mean = (weight * time).sum()
    std = np.sqrt((weight * (time - mean) ** 2).sum())
    assert np.isclose(weight.sum(), 1.0, atol=1e-6)
    assert np.isclose(std, 0.1, rtol=1e-3)


def test_gradient_accumulation_updates_ema_once_per_update():
    model = build(ema=0.9)
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model.fit(data(64), batch_size=8, epochs=1, verbose=0)
    assert int(model.emas[0].updates) == 4


def test_accumulated_steps_equal_the_mean_gradient():
    """Two accumulated batches move the weights as their mean gradient."""
    start = weights(build())

    def moved(model):
        return [b - a for a, b in zip(start, weights(model))]

    first = build()
    first.train_on_batch(data(8))
    # The second step's noise, at the first step's weights.
    second = build()
    second.compile(keras.optimizers.SGD(0.0))
    second.train_on_batch(data(8))
    second.compile(keras.optimizers.SGD(0.1))
    second.train_on_batch(data(8))

    both = build()
    both.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    both.train_on_batch(data(8))
    assert all((step == 0).all() for step in moved(both))
    both.train_on_batch(data(8))
    for one, two, mean in zip(moved(first), moved(second), moved(both)):
        assert np.abs(one - two).max() > 1e-5
        np.testing.assert_allclose(mean, (one + two) / 2, atol=1e-6)


def bad_batches(bad):
    for i in range(6):
        x = data(8)
        if i in bad:
            x = x.copy()
            x[0, 0] = np.nan
        yield (x,)


def test_guard_skips_and_counts_non_finite_steps():
    model = build(ema=0.9)
    history = model.fit(
        bad_batches({1, 3}), steps_per_epoch=6, epochs=1, verbose=0
    ).history
    assert int(model.skipped_steps) == 2
    assert int(model.emas[0].updates) == 4
    assert int(model.optimizer.iterations) == 4
    assert np.isfinite(history["loss"][0])
    assert all(np.isfinite(w).all() for w in weights(model))


def test_guard_stops_after_too_many_in_a_row():
    model = build(max_skipped_steps=3)
    model.train_on_batch(data(8))
    before = weights(model)
    # Finite, but their squares are not.
    x = np.full((64, 2), 3e38, dtype="float32")
    with pytest.raises(kf.NonFiniteError, match="3 steps in a row"):
        model.fit(x, batch_size=8, verbose=0, epochs=1)
    for a, b in zip(before, weights(model)):
        np.testing.assert_array_equal(a, b)


def test_loss_scaling_leaves_the_step_as_it_is():
    plain, scaled = build(), build()
    scaled.compile(
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=2.0**10
        )
    )
    logs = [m.train_on_batch(data(8), return_dict=True)
            for m in (plain, scaled)]  # fmt: skip
    assert np.isclose(
        logs[0]["gradient_norm"], logs[1]["gradient_norm"], rtol=1e-4
    )
    for a, b in zip(weights(plain), weights(scaled)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_loss_scaler_and_guard_do_not_both_act():
    """Overflowing gradients are the scaler's: skipped, not counted."""
    model = build(ema=0.9)
    model.compile(
        keras.optimizers.LossScaleOptimizer(
            keras.optimizers.SGD(0.1), initial_scale=3e38
        )
    )
    before = weights(model)
    model.train_on_batch(100.0 * data(8))
    for a, b in zip(before, weights(model)):
        np.testing.assert_array_equal(a, b)
    assert int(model.skipped_steps) == 0
    assert int(model.emas[0].updates) == 0
    assert float(model.optimizer.dynamic_scale) < 3e38


def test_evaluate_repeats_and_leaves_training_alone():
    model, other = build("lsd"), build("lsd")
    first = model.evaluate(data(), verbose=0, return_dict=True)
    second = model.evaluate(data(), verbose=0, return_dict=True)
    assert first == second
    assert set(first) == {"loss", "velocity_loss", "map_loss"}
    model.train_on_batch(data(8))
    other.train_on_batch(data(8))
    for a, b in zip(weights(model), weights(other)):
        np.testing.assert_array_equal(a, b)


def test_logs_are_means_over_examples():
    """A short last batch counts by its rows."""
    model = build("regression", diagonal_portion=1.0)
    model.compile(keras.optimizers.SGD(0.0))
    x = data(12)
    logged = model.fit(x, batch_size=8, shuffle=False, verbose=0).history[
        "loss"
    ][0]
    loss = ops.convert_to_numpy(model.loss(ops.convert_to_tensor(x))["loss"])
    assert np.isclose(logged, loss.mean(), rtol=1e-5)


def test_seeds():
    same = [build(seed=3).train_on_batch(data(8)) for _ in range(2)]
    other = build(seed=4).train_on_batch(data(8))
    assert same[0] == same[1]
    assert same[0] != other


def test_labels_are_dropped_at_the_asked_ratio():
    network = kf.networks.MLP(2, width=8, depth=1, num_classes=3)
    model = kf.SiTInterface(network, cond_drop_ratio=0.3, ema=None, seed=0)
    labels = ops.convert_to_tensor(np.zeros(20_000), dtype="int32")
    dropped = ops.convert_to_numpy(model.drop_condition(labels))
    assert set(np.unique(dropped)) == {0, 3}
    # Standard error 0.0032.
    assert abs((dropped == 3).mean() - 0.3) < 0.013


def test_conditional_fit_and_stochastic_interpolant():
    x, labels = kf.datasets.Checkerboard().sample_labelled(64, 0)
    network = kf.networks.MLP(2, width=8, depth=1, num_classes=8)
    model = kf.SiTInterface(network, ema=0.9, seed=0)
    model.compile("adam")
    model.fit(x, labels, batch_size=16, verbose=0)
    assert model.generate(condition=labels[:5], num_steps=2).shape == (5, 2)

    model = kf.StochasticInterpolantInterface(
        kf.networks.MLP(2, width=8, depth=1),
        kf.networks.MLP(2, width=8, depth=1, name="noise_mlp"),
        ema=0.9,
        seed=0,
    )
    model.compile("adam")
    logs = model.fit(x, x[::-1].copy(), batch_size=16, verbose=0).history
    assert logs["loss"][0] == pytest.approx(
        logs["velocity_loss"][0] + logs["noise_loss"][0], rel=1e-5
    )
    assert int(model.noise_emas[0].updates) == 4
    for sampler in ("heun", "euler_maruyama"):
        moved = model.generate(noise=x, num_steps=4, sampler=sampler, seed=0)
        assert np.isfinite(ops.convert_to_numpy(moved)).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16"])
def test_mixed_precision_trains_in_float32_losses(policy):
    network = kf.networks.MLP(2, width=16, depth=2, two_times=True,
                              dtype=policy)  # fmt: skip
    model = kf.FlowMapInterface(network, "lsd", ema=0.9, seed=0)
    model.compile("adam")
    logs = model.train_on_batch(data(), return_dict=True)
    assert np.isfinite(logs["loss"])
    terms = model.loss(ops.convert_to_tensor(data()))
    assert all(
        keras.backend.standardize_dtype(t.dtype) == "float32"
        for t in terms.values()
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA through TensorFlow")
def test_xla_compiles_the_jvp_loss_once():
    """A loss differentiated through a JVP must not compile in every step."""
    import time

    model = build("lsd")
    model.compile("adam", jit_compile=True)
    start = time.perf_counter()
    model.train_on_batch(data(8))
    compilation = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(10):
        model.train_on_batch(data(8))
    # Ten compilations would take ten times as long as the first.
    assert time.perf_counter() - start < compilation
