"""Objectives at the exact flow map of a Gaussian, and off it.

Conditions on the map alone (lsd, psd, ctm, esd, lmd, emd) have a residual of
zero there. Those with a sampled velocity or target have a residual of mean
zero given x_t, so it is the gradient of their loss by the network's one
weight, `delta`, that must vanish at 0, to within its standard error, and not
elsewhere.
"""

import numpy as np
import pytest
from keras import ops
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf
from keras_flows.objectives import CTM
from keras_flows.objectives import FlowMap
from keras_flows.objectives.derivatives import directional

ROWS = 512
PERTURBED = 0.3
# Residuals are sums of float32 terms of size 1: 1e-7 each, 1e-14 squared.
# 1e-11 leaves a margin of some hundreds; a wrong term gives 1e-3 and more.
ZERO = 1e-11
NOT_ZERO = 1e-4

MAPS = {
    "linear": "linear, noise at 0",
    "linear reversed": "linear, noise at 1",
    "trigonometric": "trigonometric, noise at 0",
}
CONDITIONS = [
    ("lsd", {}),
    ("lsd", {"stop_gradient": "none"}),
    ("psd", {"midpoint": True}),
    ("psd", {"midpoint": False}),
    ("psd", {"midpoint": False, "stop_gradient": "none"}),
    ("ctm", {}),
    ("ctm", {"dt": 0.2}),
    ("esd", {}),
    ("esd", {"stop_gradient": "convex"}),
    ("lmd", {}),
    ("emd", {}),
    ("emd", {"stop_gradient": "full"}),
    ("ayf", {}),
    ("shortcut", {}),
]


def build(path, objective, delta=0.0, cls="FlowMapInterface",
          predict="velocity", rows=None, m=(0.4, -0.7),
          **kwargs):  # fmt: skip
    """(model, oracle) with the exact network, perturbed by delta."""
    name, arguments, ours, *_ = CASES[path]
    objective = kf.objectives.get(objective)
    interpolant = getattr(kf.interpolants, name)(**arguments)
    oracle = Oracle(ours, m=m)
    if objective.teacher == "required":
        teacher = ExactNetwork(oracle)
        kwargs["teacher"] = kf.FlowMapInterface(
            teacher, "flow", interpolant=interpolant, ema=None
        )
        kwargs["teacher"].trainable = False
    network = ExactNetwork(oracle, predict, delta=delta, rows=rows)
    if cls == "FlowMapInterface":
        kwargs["objective"] = objective
    model = getattr(kf, cls)(
        network, interpolant=interpolant, ema=None, seed=0, **kwargs
    )
    return model, oracle


def residual_square(model, oracle):
    """Mean square of the map residual over a fixed batch."""
    x = oracle.sample_data(np.random.default_rng(3), ROWS)
    terms = model.loss(ops.convert_to_tensor(x))
    return float(ops.convert_to_numpy(ops.mean(terms["map_loss"])))


# Conditions on the map.


@pytest.mark.parametrize("path", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("objective, options", CONDITIONS)
def test_residual_vanishes_at_the_exact_map(path, objective, options):
    given = kf.objectives.get(objective, **options)
    found = [
        residual_square(*build(path, given, delta))
        for delta in (0.0, PERTURBED)
    ]
    assert found[0] < ZERO
    # CTM sees the perturbation over one step of dt, 0.01 by default.
    step = options.get("dt", 0.01) if objective == "ctm" else 1.0
    assert found[1] > NOT_ZERO * min(1.0, (10 * step) ** 2)


@pytest.mark.parametrize("objective", ["lsd", "esd", "lmd", "emd"])
def test_residual_by_differences(objective):
    """h = 5e-3: an error of h^2 f''' and 1e-6 / h, both about 1e-4."""
    options = {"derivative": "finite_difference"}
    found = residual_square(
        *build(MAPS["linear"], kf.objectives.get(objective, **options))
    )
    assert found < 1e-6


@pytest.mark.parametrize("with_teacher", [False, True])
def test_ctm_with_a_teacher(with_teacher):
    """The teacher's Euler step of dt errs by dt^2 / 2 of acceleration."""
    path = MAPS["trigonometric"]
    kwargs = {}
    if with_teacher:
        kwargs["teacher"] = build(path, "flow")[0]
        kwargs["teacher"].trainable = False
    found = [
        residual_square(*build(path, kf.objectives.CTM(dt), **kwargs))
        for dt in (0.02, 0.04)
    ]
    if not with_teacher:
        assert max(found) < ZERO
    else:
        # The residual grows as dt^2, its square as dt^4, but for pairs
        # nearer than dt.
        assert found[1] < 1e-4
        assert 12 < found[1] / found[0] < 17


def test_ctm_steps_towards_the_end_and_not_past_it():
    """The exact map is consistent both ways, so look at the times."""
    model, oracle = build(MAPS["linear reversed"], "ctm")
    t, r = np.float32([0.9, 0.9, 0.3]), np.float32([0.1, 0.895, 0.3])
    x_t = ops.convert_to_tensor(oracle.sample(np.random.default_rng(0), t))
    seen = []

    class Recorder:
        teacher = None

        def jump(self, x_t, t, r, condition=None):
            seen.append(ops.convert_to_numpy(r))
            return model.jump(x_t, t, r)

    ends = map(ops.convert_to_tensor, (t, r))
    CTM().residual(Recorder(), x_t, None, *ends, None)
    np.testing.assert_allclose(seen[0], [0.89, 0.895, 0.3], rtol=1e-6)
    for to in seen[1:]:
        np.testing.assert_array_equal(to, r)


def wrong_esd(model, x_t, v, t, r, condition):
    """The velocity at the END of the jump."""
    x_r = model.jump(x_t, t, r)
    return directional(
        lambda x, t: model.jump(x, t, r),
        (x_t, t),
        (model.pred(x_r, r), ops.ones_like(t)),
    )[1]


def wrong_psd(model, x_t, v, t, r, condition):
    """The two weights swapped, g = 0.3."""
    w = t + 0.3 * (r - t)
    first = model.pred(x_t, t, w)
    second = model.pred(model.jump(x_t, t, w), w, r)
    return model.pred(x_t, t, r) - (0.7 * first + 0.3 * second)


def wrong_lsd(model, x_t, v, t, r, condition):
    """The velocity where the jump starts."""
    x_r, dx_dr = directional(
        lambda r: model.jump(x_t, t, r), (r,), (ops.ones_like(r),)
    )
    return dx_dr - model.pred(x_t, r)


@pytest.mark.parametrize("wrong", [wrong_esd, wrong_psd, wrong_lsd])
def test_wrong_conditions_are_seen(wrong):
    """The known mistakes are far above `ZERO` at the exact map."""

    class Wrong(FlowMap):
        name = "wrong"

        def residual(self, *arguments):
            return wrong(*arguments)

    found = residual_square(*build(MAPS["linear"], Wrong()))
    assert found > NOT_ZERO


# Losses with a sampled target: gradients by `delta`.

MANY = 20_000


def gradients(term, delta, **kwargs):
    """Mean and standard error over the rows of d(term)/d(delta).

    Every row has a delta of its own, and its loss depends on no other.
    """
    model, oracle = build(delta=delta, rows=MANY, **kwargs)
    x = oracle.sample_data(np.random.default_rng(0), MANY)
    x = ops.convert_to_tensor(x)
    _, (by_row,) = kf.ops.value_and_gradients(
        lambda: ops.sum(model.loss(x)[term]), [model.network.delta]
    )
    by_row = ops.convert_to_numpy(by_row).astype("float64")
    return by_row.mean(), by_row.std() / MANY**0.5


def check_stationary(term, **kwargs):
    """Gradient 0 at delta = 0 within 4 standard errors; 10 above at 0.3."""
    mean, error = gradients(term, 0.0, **kwargs)
    assert error > 0
    assert abs(mean) < 4 * error, (mean, error)
    mean, error = gradients(term, PERTURBED, **kwargs)
    assert mean > 10 * error, (mean, error)


@pytest.mark.parametrize("path", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("stop_gradient", ["full", "target"])
def test_mean_flow_as_a_map_is_stationary(path, stop_gradient):
    check_stationary(
        "map_loss",
        path=path,
        objective=kf.objectives.MF(stop_gradient),
        diagonal_portion=0.0,
    )


@pytest.mark.parametrize("fm_portion", [0.0, 1.0])
@pytest.mark.parametrize("norm_power", [0.0, 1.0])
def test_mean_flow_is_stationary(norm_power, fm_portion):
    """Also under the adaptive weight: given x_t the residual is symmetric."""
    check_stationary(
        "loss",
        path="linear, noise at 1",
        objective="mean_flow",
        cls="MeanFlowInterface",
        norm_power=norm_power,
        fm_portion=fm_portion,
    )


def test_improved_mean_flow_is_stationary():
    check_stationary(
        "loss",
        path="linear, noise at 1",
        objective=kf.objectives.MeanFlow("predicted"),
        cls="MeanFlowInterface",
        norm_power=0.0,
        fm_portion=0.0,
    )


@pytest.mark.parametrize("path", MAPS.values(), ids=MAPS)
def test_diagonal_is_stationary(path):
    check_stationary(
        "velocity_loss", path=path, objective="lsd", diagonal_portion=1.0
    )


def test_mean_flow_residual_is_not_zero():
    """Its target is a sample; only its mean is the exact map's."""
    path = MAPS["linear"]
    assert residual_square(*build(path, "mf")) > 0.1


@pytest.mark.parametrize(
    "cls, path, predict, scale",
    [
        ("SiTInterface", "linear, noise at 1", "velocity", "mse"),
        ("SiTInterface", "trigonometric, noise at 1", "velocity", "loss"),
        ("EDMInterface", "variance exploding", "edm", "loss"),
    ],
)
def test_flow_is_stationary(cls, path, predict, scale):
    check_stationary(
        scale, path=path, objective="flow", cls=cls, predict=predict
    )


# Means far from 0, so that an action predicted 10 % short is seen.
ACTIONS = {"path": "linear, noise at 0", "predict": "data", "m": (1.5, 0.9)}


@pytest.mark.parametrize(
    "objective", ["regression", "straight_flow", "tsd", "mip"]
)
def test_policy_objectives_are_stationary_at_the_posterior_mean(objective):
    """E[x | x_t] is E[x] at the noise end, whatever the network sees there."""
    check_stationary("loss", objective=objective, **ACTIONS)


@pytest.mark.parametrize("objective", ["tsd", "mip"])
@pytest.mark.parametrize("term", ["first", "second"])
def test_both_terms_of_two_step_policies_are_stationary(objective, term):
    check_stationary(term, objective=objective, **ACTIONS)


# What the terms count.


def test_rows_weighting():
    """Each term's batch mean is the mean over its own rows."""
    path, portion = MAPS["linear"], 0.75
    by_rows, oracle = build(
        path, "mf", PERTURBED, diagonal_portion=portion, weighting="rows"
    )
    by_batch, _ = build(
        path, "mf", PERTURBED, diagonal_portion=portion, weighting="batch"
    )
    x = ops.convert_to_tensor(
        oracle.sample_data(np.random.default_rng(0), ROWS)
    )
    a, b = (
        {k: ops.convert_to_numpy(v) for k, v in model.loss(x).items()}
        for model in (by_rows, by_batch)
    )
    np.testing.assert_allclose(
        a["velocity_loss"] * portion, b["velocity_loss"], rtol=1e-5
    )
    np.testing.assert_allclose(
        a["map_loss"] * (1 - portion), b["map_loss"], rtol=1e-5
    )
    assert np.count_nonzero(a["velocity_loss"]) == 0.75 * ROWS
    assert np.count_nonzero(a["map_loss"]) == 0.25 * ROWS
    np.testing.assert_allclose(
        a["loss"], a["velocity_loss"] + a["map_loss"], rtol=1e-6
    )
