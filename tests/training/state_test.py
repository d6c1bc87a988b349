"""What no flag, no bad batch and no dtype may change: fixed and float state."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf
from keras_flows.training import Fixed

BACKEND = keras.backend.backend()
PATH = kf.interpolants.Linear(0.0)


def numpy(v):
    return ops.convert_to_numpy(ops.cast(v.value, "float32"))


def points(num=64):
    return np.random.default_rng(0).standard_normal((num, 2)).astype("float32")


def network(**kwargs):
    return kf.networks.MLP(2, **{"width": 8, "depth": 1, **kwargs})


def trained(model):
    """The averages of trained weights, and not of fixed features."""
    live = {id(v) for v in model.network.trainable_variables}
    pairs = zip(model.emas[0].averages, model.network.variables)
    return [average for average, v in pairs if id(v) in live]


def with_statistics():
    """A network with a BatchNormalization."""
    x, t = keras.Input((2,), name="x"), keras.Input((), name="t")
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    h = keras.layers.BatchNormalization()(keras.layers.Dense(8)(h))
    return keras.Model({"x": x, "t": t}, keras.layers.Dense(2)(h))


def teacher():
    model = kf.SiTInterface(network(), interpolant=PATH, ema=0.9, seed=0)
    model.trainable = False
    return model


HOLDERS = {
    "average": lambda: kf.SiTInterface(network(), ema=0.9, seed=0),
    "lmd": lambda: kf.FlowMapInterface(
        network(two_times=True), "lmd", teacher=teacher(), seed=0
    ),
    "target": lambda: kf.ConsistencyInterface(
        network(), target_decay=0.9, seed=0
    ),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_averages_stay_fixed_whatever_the_flag(name):
    model = HOLDERS[name]()
    averages = [
        layer for layer in model._flatten_layers() if isinstance(layer, kf.EMA)
    ]
    assert averages
    before = len(model.trainable_variables)
    model.trainable = False
    model.trainable = True
    for average in averages:
        average.trainable = True
        assert not average.trainable
        assert not average.trainable_variables
        assert not any(v.trainable for v in average.variables)
    ids = {id(v) for average in averages for v in average.variables}
    assert not ids & {id(v) for v in model.trainable_variables}
    assert before == len(model.trainable_variables) or name == "lmd"


def test_fixed_ends_the_flag_and_freezes_what_it_is_given():
    class Holder(keras.Model):
        def __init__(self):
            super().__init__()
            self.free = keras.layers.Dense(2)
            self.fixed = Fixed(name="fixed")
            self.fixed.held = network()
            self.fixed.listed = [keras.Variable(1.0)]
            self.free.build((None, 2))

    model = Holder()
    held = len(model.fixed.held.variables) + 1
    assert len(model.fixed.variables) == held
    for flag in (False, True):
        model.trainable = flag
        assert model.fixed.trainable_variables == []
        assert len(model.trainable_variables) == 2 * flag
        assert len(model.fixed.non_trainable_variables) == held
    model.fixed.held.trainable = True
    model.fixed.freeze()
    assert len(model.trainable_variables) == 2


def test_a_frozen_encoder_stays_fixed():
    frozen = kf.networks.Frozen(keras.Sequential([keras.layers.Dense(2)]))
    assert isinstance(frozen, Fixed)


OPTIMIZERS = {
    "plain": lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.AdamW(1e-2, weight_decay=0.1), initial_scale=8.0
    ),
}


def float_state(model):
    """All floats but the metrics' and the loss scale."""
    variables = [*model.variables, *model.optimizer.variables]
    return {
        f"{i} {v.path}": numpy(v)
        for i, v in enumerate(variables)
        if keras.backend.is_float_dtype(v.dtype) and "scale" not in v.path
    }


def bad_batch(model, kind):
    """A batch whose loss, or whose gradients alone, are not finite."""
    x = points(16)
    x[5] = {"nan": np.nan, "inf": np.inf, "overflow": 1e15}[kind]
    return (x,)


@pytest.mark.parametrize("kind", ["nan", "inf", "overflow"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_changes_no_float(name, kind):
    keras.utils.set_random_seed(0)
    model = kf.SiTInterface(with_statistics(), ema=0.9, seed=0)
    model.compile(OPTIMIZERS[name]())
    model.fit(points(), batch_size=16, epochs=1, verbose=0)
    before, seed = float_state(model), numpy(model.seed_generator.state)
    if kind == "overflow":
        # A loss of 1e30 is finite, and so are not its gradients' squares.
        model.network.layers[-1].kernel.assign(1e15 * ops.ones((8, 2)))
        before = float_state(model)
    model.train_on_batch(*bad_batch(model, kind))
    after = float_state(model)
    assert before.keys() == after.keys()
    for path in before:
        np.testing.assert_array_equal(before[path], after[path], path)
    assert np.any(seed != numpy(model.seed_generator.state))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_good_steps_still_move_the_statistics(name):
    model = kf.SiTInterface(with_statistics(), ema=0.9, seed=0)
    model.compile(OPTIMIZERS[name]())
    layer = next(x for x in model.network.layers if hasattr(x, "moving_mean"))
    before = numpy(layer.moving_mean)
    model.fit(points(), batch_size=16, verbose=0)
    after = numpy(layer.moving_mean)
    assert np.abs(after - before).max() > 1e-3
    averaged = model.emas[0].averaged().get_layer(layer.name)
    np.testing.assert_array_equal(numpy(averaged.moving_mean), after)


def test_a_loss_that_alone_is_not_finite_is_skipped_by_a_scaler():
    class Endless(kf.SiTInterface):
        def loss(self, x, condition=None, extras=None, *, training=True):
            terms = super().loss(x, condition, extras, training=training)
            return {**terms, "loss": terms["loss"] + np.float32(np.inf)}

    model = Endless(network(), ema=0.9, seed=0)
    model.compile(OPTIMIZERS["scaled"]())
    model.train_on_batch(points(16))
    assert int(model.optimizer.inner_optimizer.iterations) == 0
    before = float_state(model)
    model.train_on_batch(points(16))
    for path, value in float_state(model).items():
        np.testing.assert_array_equal(before[path], value, path)
    assert int(model.skipped_steps.value) == 2


POLICIES = {
    "bfloat16": "float32",
    "float16": "float32",
    "mixed_bfloat16": "float32",
    "float32": "float32",
    "float64": "float64",
}


@pytest.mark.parametrize("by", ["network", "global"])
@pytest.mark.parametrize("policy", POLICIES)
def test_averages_are_float32_under_every_policy(policy, by):
    if policy == "float64" and BACKEND == "jax":
        pytest.skip("JAX has no float64 by default")
    default = keras.config.dtype_policy()
    try:
        if by == "global":
            keras.config.set_dtype_policy(policy)
        model = kf.SiTInterface(
            network(dtype=None if by == "global" else policy),
            ema=0.999,
            seed=0,
        )
        assert keras.config.dtype_policy().name == (
            policy if by == "global" else default.name
        )
    finally:
        keras.config.set_dtype_policy(default)
    (ema,) = model.emas
    assert {v.dtype for v in trained(model)} == {POLICIES[policy]}
    compute = [layer.compute_dtype for layer in model.network.layers]
    assert [x.compute_dtype for x in ema.averaged().layers] == compute
    ema.updates.assign(20_000)
    averages = trained(model)
    for v in averages:
        v.assign(ops.zeros_like(v.value))
    for v in model.network.trainable_variables:
        v.assign(ops.ones_like(v.value))
    for _ in range(300):
        ema.update(model.network, ops.convert_to_tensor(True))
    for v in averages:
        np.testing.assert_allclose(numpy(v), 1 - 0.999**300, rtol=1e-4)


def test_averages_under_bfloat16_sample_as_the_network_does():
    model = kf.SiTInterface(network(dtype="bfloat16"), ema=0.9, seed=0)
    a, b = (
        model.generate(4, seed=0, num_steps=2, use_ema=u) for u in (False, True)
    )
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(ops.cast(x, "float32")) for x in (a, b))
    )


@pytest.mark.parametrize("n", [1, 10, 10_000, 20_000_000])
@pytest.mark.parametrize("std", [0.01, 0.05, 0.2])
def test_the_power_function_is_exact(n, std):
    ema = kf.EMA(std=std)
    found = float(ops.convert_to_numpy(ema.rate(n)))
    exact = 1.0
    if n > 1:
        exact = -np.expm1((np.float64(ema.gamma) + 1) * np.log1p(-1.0 / n))
    np.testing.assert_allclose(found, exact, rtol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.9999, 0.9999999])
def test_the_constant_decay_is_exact(decay):
    for n in (1, 10, 10_000, 20_000_000):
        found = float(ops.convert_to_numpy(kf.EMA(decay=decay).rate(n)))
        exact = max(1.0 - decay, 9.0 / (9.0 + n))
        np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_updates_late_in_a_long_run_follow_the_power_function():
    model = kf.SiTInterface(network(), ema=kf.EMA(std=0.05), seed=0)
    (ema,) = model.emas
    ema.updates.assign(20_000_000)
    averages = trained(model)
    for v in averages:
        v.assign(ops.zeros_like(v.value))
    for v in model.network.trainable_variables:
        v.assign(ops.ones_like(v.value))
    for _ in range(50):
        ema.update(model.network, ops.convert_to_tensor(True))
    exact = -np.expm1(50 * (ema.gamma + 1) * np.log1p(-1.0 / 2e7))
    for v in averages:
        np.testing.assert_allclose(numpy(v), exact, rtol=2e-4)
