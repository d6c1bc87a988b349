"""Starts other than noise, all states of a walk, and the way back to noise."""

import dataclasses

import numpy as np
import pytest
from helpers.close import close
from helpers.gaussian import array
from helpers.gaussian import build
from helpers.gaussian import noise
from helpers.gaussian import slope
from helpers.mixture import ENDS
from helpers.mixture import labelled
from helpers.mixture import model_of
from helpers.mixture import paths
from keras import ops
from oracle import CASES

import keras_flows as kf
from keras_flows.interpolants import DiscreteVariancePreserving
from keras_flows.samplers.grids import GRIDS
from keras_flows.samplers.grids import jump_grid
from keras_flows.samplers.grids import time_grid

STEPS = (24, 48)


def rms(error):
    return np.sqrt(np.mean(np.square(error)))


def cut(path):
    """A time on the way, a timestep on the chain."""
    return float(path.nearest_step(path.time_of_level(np.float64(0.6))))


# From a state of the path.


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", ["heun", "flow_map_jump", "unipc"])
def test_a_state_goes_where_the_flow_takes_it(case, sampler):
    """Against the closed form, and of the solver's order."""
    model, oracle = build(case)
    if sampler == "flow_map_jump" and "map" not in model.provides:
        pytest.skip("EDM's model knows no map.")
    path, rng = model.interpolant, np.random.default_rng(0)
    t = cut(path)
    x = oracle.sample(rng, np.full(32, t))
    expected = oracle.jump(x.astype("float64"), np.full(32, t),
                           np.full(32, path.t_data))  # fmt: skip
    errors = []
    for n in STEPS:
        found = model.generate(start=(x, t), sampler=sampler, num_steps=n)
        errors.append(rms(array(found) - expected))
    assert errors[-1] < 5e-3
    if sampler != "flow_map_jump" and path.t_last == path.t_data:
        assert slope(STEPS, errors) > 1.5, errors


@pytest.mark.once
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", ENDS)
def test_grids_run_on_from_a_time(grid, case):
    """The same spacing: a grid of the whole path, cut, is one from there."""
    path = ENDS[case]
    for make in (time_grid, jump_grid):
        t = cut(path)
        found = make(path, 6, grid, 1.7, start=t)
        assert found[0] == pytest.approx(t) and len(found) == 7
        assert found[-1] == make(path, 6, grid)[-1]
        assert path.toward_data(found[:-1], found[1:]).all()
        assert (np.diff(found) != 0).all()
        if isinstance(path, DiscreteVariancePreserving):
            whole = 1000 * found
            np.testing.assert_allclose(whole, np.round(whole), atol=1e-9)
            continue
        whole = make(path, 12, grid, 1.7)
        rest = make(path, 8, grid, 1.7, start=whole[4])
        np.testing.assert_allclose(rest, whole[4:], rtol=1e-9, atol=1e-9)


@pytest.mark.once
def test_noise_may_start_later():
    """DDIM's "leading" timesteps, and a flow from 0.9997, by hand."""
    chain = DiscreteVariancePreserving()
    leading = np.append((np.arange(0, 1000, 100)[::-1] + 2) / 1000, 0.0)
    for path, times in (
        (chain, leading),
        (paths.Linear(1.0), np.array([0.9997, 0.6, 0.2, 0.0])),
        (paths.VarianceExploding(), np.array([20.0, 3.0, 0.4, 0.002, 0.0])),
    ):
        model, steps = model_of(path), len(times) - 1
        z = np.random.default_rng(1).standard_normal((8, 2)).astype("float32")
        sampler = kf.samplers.DDIM(grid=tuple(times))
        found = model.generate(noise=z, num_steps=steps, sampler=sampler)
        sigma = 1.0 if path is chain else times[0] if path.t_data == 0 else 0
        x = ops.convert_to_tensor((sigma * z).astype("float32"))
        for t, r in zip(times[:-1], times[1:]):
            t, r = (ops.full((8,), v, dtype="float32") for v in (t, r))
            x = kf.samplers.DDIM().step(model, x, t, r, None, False)
        close(array(found), array(x), 4)


# All states.


@pytest.mark.parametrize("sampler", ["heun", "unipc", "ddpm"])
@pytest.mark.parametrize("size", [None, 20])
def test_the_trajectory_has_every_state(sampler, size):
    model, oracle = build("linear, noise at 1")
    z = noise(np.random.default_rng(0), oracle)
    kwargs = {"noise": z, "num_steps": 16, "sampler": sampler, "seed": 3}
    states = array(model.generate(
        **kwargs, batch_size=size, return_trajectory=True
    ))  # fmt: skip
    times = kf.samplers.get(sampler).times(model.interpolant, 16)
    assert states.shape == (17, 32, 2)
    close(states[0], z, 6)
    close(states[-1], array(model.generate(**kwargs)), 5)
    if sampler == "ddpm":
        return
    for t, x in zip(times, states):
        start, end = (np.full(32, v) for v in (times[0], t))
        assert rms(x - oracle.jump(states[0], start, end)) < 0.02


# Back to noise.


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("sampler", ["heun", "euler", "dormand_prince"])
def test_encode_leads_back_to_the_noise(case, sampler):
    """The closed form's noise, of the solver's order; generate returns x."""
    model, oracle = build(case, n_mu=0.3, n_sigma=1.5)
    path, rng = model.interpolant, np.random.default_rng(0)
    x = oracle.sample_data(rng, 32)
    # From the mean of x_t where networks are called last.
    last = np.full(32, path.t_last)
    near = (
        oracle.path.alpha(last)[:, None] * x
        + oracle.path.sigma(last)[:, None] * 0.3
    )
    state = oracle.jump(near, last, np.full(32, path.t_noise))
    sigma = oracle.path.sigma(np.float64(path.t_noise))
    expected = (state / sigma - 0.3) / 1.5
    steps = (1,) if sampler == "dormand_prince" else STEPS
    errors, back = [], []
    for n in steps:
        given = {"num_steps": max(n, 2), "sampler": sampler}
        z = model.encode(x, **given)
        errors.append(rms(array(z) - expected))
        back.append(rms(array(model.generate(noise=z, **given)) - x))
    if sampler == "dormand_prince":
        assert errors[0] < 5e-3 and back[0] < 5e-3
        return
    # Where a step leads from t_last to the data it is not reversed.
    limit = {"heun": 0.02, "euler": 0.1}[sampler]
    assert errors[-1] < limit and back[-1] < limit, (errors, back)
    order = {"heun": 1.7, "euler": 0.8}[sampler]
    if path.t_last == path.t_data:
        assert slope(STEPS, errors) > order, errors
        assert slope(STEPS, back) > order, back


def test_encode_with_labels_and_batches():
    model = labelled(paths.Linear(1.0))
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    y = np.array([0, 1, 2, 1, 0])
    given = {"condition": y, "guidance_scale": 1.5, "num_steps": 30}
    z = model.encode(x, **given)
    parts = model.encode(x, **given, batch_size=2)
    close(array(parts), array(z), 5)
    back = model.generate(noise=array(z).astype("float32"), sampler="heun",
                          **given)  # fmt: skip
    assert rms(array(back) - x) < 5e-3
    other = model.encode(x, **{**given, "condition": 2 - y})
    assert rms(array(other - z)) > 1e-3


def test_a_bridge_leads_back_to_its_start():
    model = kf.StochasticInterpolantInterface(
        kf.networks.MLP(2, 8, 1),
        interpolant=paths.StochasticInterpolant(gamma="none"),
        ema=None,
    )
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    z = model.encode(x)
    back = model.generate(noise=z, sampler="heun", num_steps=50)
    assert rms(array(back) - x) < 1e-3
    halfway = model.generate(start=(x, 0.5), num_steps=4, sampler="euler")
    assert np.isfinite(array(halfway)).all()


def mlp(**kwargs):
    return kf.SiTInterface(kf.networks.MLP(2, 4, 1), ema=None, **kwargs)


X = np.zeros((3, 2), "float32")
ERRORS = {
    "one thing": ({"start": X}, r"`start` must be \(x, t\)"),
    "shape": ({"start": (X[:, :1], 0.5)}, "`start` must have shape"),
    "times": ({"start": (X, [0.1, 0.2, 0.3])}, "time of `start`.*one number"),
    "nan": ({"start": (X, float("nan"))}, "time of `start`.*one number"),
    "beyond": ({"start": (X, 1.5)}, "time of `start`.*1.0.*1.5"),
    "at the data": ({"start": (X, 0.0)}, "time of `start`.*data"),
    "noise too": ({"start": (X, 0.5), "noise": X}, "`start`.*`noise`"),
    "count": ({"start": (X, 0.5), "num_samples": 4}, "'start': 3"),
    "grid": (
        {"start": (X, 0.5), "sampler": kf.samplers.Euler((0.6, 0.0)),
         "num_steps": 1},
        "`grid` is not that of `start`, 0.5",
    ),
    "trajectory": (
        {"num_samples": 2, "sampler": "dormand_prince",
         "return_trajectory": True},
        "`return_trajectory=True`.*chooses its steps",
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    given, message = ERRORS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        mlp().generate(**given)


@pytest.mark.once
def test_what_cannot_go_back_says_so():
    for sampler in ("ddpm", "unipc", kf.samplers.DDIM(clip=1.0)):
        with pytest.raises(ValueError, match="`sampler` of `encode`.*'heun'"):
            mlp().encode(X, sampler=sampler)
    with pytest.raises(ValueError, match="`x` must have shape"):
        mlp().encode(X[:, :1])
    network = kf.networks.MLP(2, 4, 1)
    model = kf.ConsistencyInterface(network, ema=None)
    with pytest.raises(ValueError, match="`encode` is not defined"):
        model.encode(X)
    chain = kf.DiscreteInterface(kf.networks.MLP(2, 4, 1), ema=None)
    with pytest.raises(ValueError, match="`num_steps` of `encode`"):
        chain.encode(X, num_steps=1, sampler="ddim")
    with pytest.raises(ValueError, match="timestep, k / 1000.*0.5005"):
        chain.generate(start=(X, 0.5005))
    policy = kf.FlowMapInterface(network, "regression", ema=None)
    with pytest.raises(ValueError, match="`start` is not defined"):
        policy.generate(start=(X, 0.5))
    assert dataclasses.replace(kf.samplers.DDIM(), eta=0.5).reversible is False
