"""PyTorch's step as a graph, and its fused updates, against Keras's own."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's graphs"
)
POINTS = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")


def made(objective="flow", eagerly=False, network=None, optimizer=None):
    keras.utils.set_random_seed(0)
    flow = objective == "flow"
    if network is None:
        network = kf.networks.MLP(2, 16, 2, two_times=not flow)
    else:
        network = network()
    cls = kf.SiTInterface if flow else kf.FlowMapInterface
    options = {} if flow else {"objective": objective}
    model = cls(network, ema=0.9, seed=0, **options)
    model.compile(
        optimizer or keras.optimizers.AdamW(1e-2), run_eagerly=eagerly
    )
    return model


def trained(model, epochs=2, **kwargs):
    history = model.fit(
        POINTS, batch_size=8, epochs=epochs, verbose=0, shuffle=False, **kwargs
    )
    return history.history


def has_graphs(model):
    graphs = model.__dict__["step_graphs"]._graphs
    found = [graph.verified for graph in graphs.values()]
    return any(found) and all(found)


def assert_equal(model, other, rtol=1e-5, atol=1e-6):
    state = model.variables + model.optimizer.variables
    others = other.variables + other.optimizer.variables
    for a, b in zip(state, others, strict=True):
        np.testing.assert_allclose(
            a.numpy(), b.numpy(), rtol=rtol, atol=atol, err_msg=a.path
        )


@pytest.mark.parametrize("objective", ["flow", "lsd", "esd", "shortcut"])
def test_a_graph_trains_as_the_step_does(objective):
    model, other = made(objective), made(objective, eagerly=True)
    found, expected = trained(model), trained(other)
    assert has_graphs(model)
    assert "step_graphs" not in other.__dict__
    assert_equal(model, other)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def test_batches_and_times_change_in_every_step():
    """Noise that a graph had kept would be the same in each."""
    model = made()
    trained(model)
    losses = [
        float(model.train_on_batch(POINTS[:8], return_dict=True)["loss"])
        for _ in range(4)
    ]
    assert len(set(losses)) == 4


def dropping():
    inputs = {"x": keras.Input((2,), name="x"), "t": keras.Input((), name="t")}
    h = keras.layers.Dense(16, "silu")(inputs["x"])
    h = keras.layers.Dropout(0.5, seed=3)(h)
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def normalizing():
    inputs = {"x": keras.Input((2,), name="x"), "t": keras.Input((), name="t")}
    h = keras.layers.BatchNormalization()(inputs["x"])
    return keras.Model(inputs, keras.layers.Dense(2)(h))


def test_dropout_is_drawn_by_its_own_generator():
    model = made(network=dropping)
    other = made(network=dropping, eagerly=True)
    trained(model), trained(other)
    assert has_graphs(model)
    assert_equal(model, other)


def test_a_step_that_moves_statistics_has_no_graph():
    model = made(network=normalizing)
    other = made(network=normalizing, eagerly=True)
    with pytest.warns(UserWarning, match="writes to its inputs"):
        trained(model)
    trained(other)
    assert_equal(model, other)


class ByNumPy(kf.objectives.Objective):
    """An objective whose noise is NumPy's, which no graph sees."""

    name = "by_numpy"

    def __call__(self, model, batch):
        noise = np.random.normal(size=batch.x.shape).astype("float32")
        t = model.draw_t(batch.x)
        x_t = model.sample_x_t(batch.x, ops.convert_to_tensor(noise), t)
        return {"loss": ops.mean(ops.square(model.net(x_t, t)), axis=1)}


def test_noise_that_is_no_tensor_is_not_kept():
    model = made()
    model.objective = ByNumPy()
    with pytest.warns(UserWarning, match="another result each time"):
        trained(model)


class Scaled(kf.objectives.Objective):
    """An objective with a number that a callback changes."""

    name = "scaled"
    scale = 1.0

    def __call__(self, model, batch):
        t = model.draw_t(batch.x)
        loss = ops.mean(ops.square(model.net(batch.x, t)), axis=1)
        return {"loss": self.scale * loss}


def test_what_a_callback_changes_counts_from_the_next_epoch():
    def change(epoch, logs=None):
        for objective in (model.objective, other.objective):
            objective.scale = 1.0 + epoch

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=change)
    model, other = made(), made(eagerly=True)
    model.objective, other.objective = Scaled(), Scaled()
    trained(model, 3, callbacks=[callback])
    trained(other, 3, callbacks=[callback])
    assert_equal(model, other)


def test_a_step_that_is_not_finite_moves_nothing():
    model = made()
    trained(model)
    before = [v.numpy() for v in model.network.variables]
    with pytest.warns(UserWarning, match="Skipped"):
        model.fit(np.full_like(POINTS, 1e30), batch_size=40, verbose=0)
    for value, v in zip(before, model.network.variables, strict=True):
        np.testing.assert_array_equal(v.numpy(), value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True, "epsilon": 1e-3},
        {"weight_decay": 0.1, "global_clipnorm": 0.1},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(1e-2, 9)},
    ],
)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_the_fused_step_is_kerass(name, options, monkeypatch):
    import torch

    from keras_flows.training import torch_updates

    calls, fused = [], torch._fused_adam_

    def counted(*args, **kwargs):
        calls.append(args)
        return fused(*args, **kwargs)

    def run():
        options_of = {"learning_rate": 1e-2, **options}
        model = made(optimizer=getattr(keras.optimizers, name)(**options_of))
        trained(model)
        assert "_parallel_update_step" not in model.optimizer.__dict__
        return model

    monkeypatch.setattr(torch, "_fused_adam_", counted)
    model = run()
    assert len(calls) == 10 // options.get("gradient_accumulation_steps", 1)
    step = torch_updates.Adam._parallel_update_step
    monkeypatch.setattr(torch_updates, "_adam_step", step)
    assert_equal(model, run(), rtol=1e-4, atol=1e-6)


def test_a_loss_scaler_trains_as_without_a_graph():
    def scaler():
        return keras.optimizers.LossScaleOptimizer(
            keras.optimizers.Adam(1e-2), initial_scale=2.0**8
        )

    model = made(optimizer=scaler())
    other = made(optimizer=scaler(), eagerly=True)
    trained(model), trained(other)
    assert has_graphs(model)
    assert_equal(model, other)
