"""Times as NumPy arrays and numbers: what the tensors give, everywhere."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf


def mlp(**options):
    return kf.networks.MLP(2, 8, 1, **options)


def frozen(model):
    model.trainable = False
    return model


def sit():
    return kf.SiTInterface(mlp(), ema=None, seed=0)


def mean_flow():
    return kf.MeanFlowInterface(mlp(two_times=True), ema=None, seed=0)


# Each kind of prediction, and each class that makes one of its own.
MODELS = {
    "SiT": sit,
    "EDM": lambda: kf.EDMInterface(mlp(), ema=None, seed=0),
    "MeanFlow": mean_flow,
    "FlowMap": lambda: kf.FlowMapInterface(mlp(two_times=True), ema=None),
    "Consistency": lambda: kf.ConsistencyInterface(mlp(), ema=None),
    "Discrete": lambda: kf.DiscreteInterface(mlp(), ema=None),
    "Stochastic": lambda: kf.StochasticInterpolantInterface(
        mlp(), mlp(), ema=None
    ),
    "Reparametrized": lambda: kf.ReparametrizedInterface(
        mean_flow(), "variance_preserving"
    ),
    "Progressive": lambda: kf.ProgressiveInterface(frozen(sit())),
    "DMD": lambda: kf.DMDInterface(frozen(sit())),
}
METHODS = ("net", "pred", "score", "pred_and_score", "denoise", "end")
X = np.random.default_rng(0).standard_normal((3, 2)).astype("float32")


def numbers(time):
    """A time of three examples in every form that has one meaning."""
    return {
        "number": float(time),
        "NumPy number": np.float64(time),
        "scalar array": np.array(time, "float32"),
        "float64 array": np.full(3, time),
        "list": [time] * 3,
        "scalar tensor": ops.convert_to_tensor(time, dtype="float32"),
    }


def as_arrays(found):
    return [ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(found)]


def assert_same(call, *times):
    """call(X, times) gives the same whatever the times' form."""
    tensors = [ops.full((3,), time, dtype="float32") for time in times]
    wanted = as_arrays(call(ops.convert_to_tensor(X), *tensors))
    for form in numbers(0.0):
        given = [numbers(time)[form] for time in times]
        for found, expected in zip(as_arrays(call(X, *given)), wanted):
            assert found.shape == expected.shape, form
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_predictions(name):
    model = MODELS[name]()
    path = model.interpolant
    t, r = (float(path.time_of_level(level)) for level in (0.75, 0.25))
    called = 0
    for method in METHODS:
        if not hasattr(model, method):
            continue
        try:
            getattr(model, method)(
                ops.convert_to_tensor(X), ops.full((3,), t, dtype="float32")
            )
        except ValueError as error:
            assert "not defined" in str(error)
            continue
        assert_same(getattr(model, method), t)
        called += 1
    assert called
    if "map" in model.provides:
        assert_same(model.jump, t, r)
        assert_same(model.pred, t, r)
    elif "end" in model.provides:
        assert_same(model.jump, t, path.t_last)


@pytest.mark.parametrize(
    "sampler",
    [
        kf.samplers.Euler(),
        kf.samplers.Heun(),
        kf.samplers.EulerMaruyama(),
        kf.samplers.DDIM(eta=0.5),
        kf.samplers.DDPM(),
    ],
    ids=repr,
)
def test_a_step(sampler):
    noise = X[::-1].copy()
    model = sit()
    assert_same(
        lambda x, t, r: sampler.step(model, x, t, r, noise, False), 0.75, 0.5
    )


@pytest.mark.parametrize(
    "sampler",
    [
        kf.samplers.EDM(),
        kf.samplers.DPMSolver(),
        kf.samplers.DPMSolverPP(tau=1.0),
        kf.samplers.SASolver(),
        kf.samplers.UniPC(),
    ],
    ids=repr,
)
def test_a_step_with_a_memory(sampler):
    noise, model = X[::-1].copy(), sit()
    state = sampler.begin(model.interpolant, 4)
    assert_same(
        lambda x, t, r: sampler.advance(model, x, t, r, noise, state, 1)[0],
        0.75,
        0.5,
    )


@pytest.mark.parametrize("jump", [kf.samplers.FlowMapJump(renoise=0.5)])
def test_a_jump(jump):
    noise, model = X[::-1].copy(), mean_flow()
    assert_same(
        lambda x, t, r: jump.step(model, x, t, r, noise, False), 0.75, 0.5
    )


@pytest.mark.parametrize("bad", ["0.5", True, np.nan, [0.1, np.inf, 0.2]])
@pytest.mark.parametrize("argument", ["t", "r"])
def test_what_is_no_time_is_named(argument, bad):
    times = {"t": 0.75, "r": 0.25} | {argument: bad}
    with pytest.raises(ValueError, match=f"`{argument}` must be finite"):
        mean_flow().pred(X, **times)
