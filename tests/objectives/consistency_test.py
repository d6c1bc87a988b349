"""Consistency: tangents, schedules, pairs of times."""

import math
import types

import numpy as np
import pytest
from helpers.few_steps import LINEAR
from helpers.few_steps import TRIG
from helpers.few_steps import M
from helpers.few_steps import S
from helpers.few_steps import array
from helpers.few_steps import discrete
from helpers.few_steps import exact_velocity
from helpers.few_steps import flow
from helpers.few_steps import gaussian
from helpers.few_steps import mlp
from helpers.few_steps import tensor
from keras import ops

import keras_flows as kf
from keras_flows.objectives import schedules


def exact_f(path, x, t):
    """Where the flow of N(M, S^2) takes x from t: m + s (x - mu) / std."""
    t = ops.expand_dims(t, -1)
    a, s = path.alpha(t), path.sigma(t)
    m, std = tensor(M), tensor(S)
    var = ops.square(a * std) + ops.square(s)
    return m + std * (x - a * m) / ops.sqrt(var)


class Off:
    """The exact consistency function, off by `delta` (x + 1) sin t."""

    def __init__(self, path, delta=0.0):
        self.path, self.delta = path, delta

    def velocity(self, x, t, r=None, *, condition=None, network=None,
                 training=False):  # fmt: skip
        """sigma_d F = (cos(t) x - f) / sin(t)."""
        column = ops.expand_dims(t, -1)
        f = exact_f(self.path, x, t) + self.delta * (x + 1.0) * ops.sin(column)
        return (ops.cos(column) * x - f) / ops.sin(column)


@pytest.mark.once
@pytest.mark.parametrize("distilled", [True, False])
def test_tangent_vanishes_at_the_exact_function(distilled, rng):
    """With the flow's velocity; with a sampled one it has only mean zero."""
    model = kf.SCTInterface(mlp(), x_sigma=0.7, warmup_steps=0, seed=0)
    x = gaussian(rng, 4096)
    if distilled:
        model.teacher = types.SimpleNamespace(
            velocity=lambda x, t, condition: exact_velocity(TRIG, x, t)
        )
    sizes = []
    for delta in (0.0, 0.1):
        model.net = Off(TRIG, delta).velocity
        terms = model.loss(x, training=False)
        sizes.append(float(array(ops.mean(terms["tangent_norm"]))))
    if distilled:
        # Float32 over sin t, down to about 0.01.
        assert sizes[0] < 2e-4 and sizes[1] > 0.02
    else:
        assert sizes[0] > 0.1


@pytest.mark.once
def test_warm_up_takes_off_the_second_part():
    """With k = 0 the tangent is that of a flow-matching loss."""
    model = kf.SCTInterface(mlp(), x_sigma=0.7, warmup_steps=10, seed=0)
    assert float(array(model.warmup())) == 0.0
    x = gaussian(np.random.default_rng(0), 64)
    n, t = (
        tensor(np.random.default_rng(1).standard_normal((64, 2))),
        tensor(np.linspace(0.1, 1.4, 64)),
    )
    model.sample_n = lambda shape: n
    model.draw_t = lambda x: t
    x_t = model.sample_x_t(x, n, t)
    cos = array(ops.cos(t))[:, None]
    expected = cos**2 * (
        array(model.net(x_t, t)) - array(model.interpolant.velocity(x, n, t))
    )
    found = array(model.loss(x)["tangent_norm"])
    np.testing.assert_allclose(found, np.sqrt((expected**2).mean(1)), rtol=1e-4)
    for _ in range(5):
        model.after_update(tensor(True))
    assert float(array(model.warmup())) == 0.5


@pytest.mark.once
def test_sct_loss_has_the_learned_weight():
    """e^w |g / (|g| + c)|^2 - w; at w = log(1 / E) its gradient vanishes."""
    model = kf.SCTInterface(mlp(), seed=0)
    x = gaussian(np.random.default_rng(0), 8)
    model.log_weight = lambda t: ops.full_like(t, 0.3)
    terms = {k: array(v) for k, v in model.loss(x).items()}
    size = terms["tangent_norm"]
    square = (size / (size + 0.1)) ** 2
    np.testing.assert_allclose(
        terms["loss"], math.exp(0.3) * square - 0.3, rtol=1e-4
    )


@pytest.mark.once
def test_preconditioning_is_the_published_one():
    """c_skip, c_out and c_in of arXiv 2303.01469 on the exploding path."""
    path = kf.interpolants.VarianceExploding(0.01, 50.0)
    model = kf.ConsistencyInterface(mlp(), path, x_sigma=0.6)
    t = np.geomspace(0.01, 50.0, 9)
    total = np.sqrt(t**2 + 0.36)
    at = tensor(t)
    np.testing.assert_allclose(array(model.c_in(at)), 1 / total, rtol=1e-5)
    np.testing.assert_allclose(
        array(model.c_out(at)), 0.6 * (t - 0.01) / total, rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        array(model.c_skip(at)), 0.36 / ((t - 0.01) ** 2 + 0.36), rtol=1e-5
    )


@pytest.mark.once
@pytest.mark.parametrize("path", [LINEAR, TRIG, None])
def test_the_function_is_the_identity_where_the_path_ends(path, rng):
    model = kf.ConsistencyInterface(mlp(), path)
    x = tensor(rng.standard_normal((5, 2)))
    end = model.interpolant.t_last
    found = array(model.denoise(x, tensor([end] * 5)))
    np.testing.assert_allclose(found, array(x), atol=1e-6)
    # And a jump ends on the function, without noise.
    t = tensor([0.5 * (model.interpolant.t_noise + end)] * 5)
    np.testing.assert_allclose(
        array(model.jump(x, t, tensor([end] * 5))),
        array(model.denoise(x, t)),
        rtol=1e-5,
    )


@pytest.mark.once
def test_distillation_agrees_with_the_flow():
    """The teacher's DDIM step errs by the square of its length.

    So at the exact function the distance, a square, falls as levels^-4.
    """
    found = []
    for levels in (33, 65):
        model = discrete(
            "constant",
            interpolant=LINEAR,
            teacher=flow(),
            max_levels=levels,
            norm="l2",
        )
        model.net = lambda x, t, **_: exact_f(LINEAR, x, t)
        model.teacher.model.pred = lambda x, t, **_: exact_velocity(
            LINEAR, x, t
        )
        model.teacher.model.denoise = lambda x, t, **_: (
            LINEAR.data_from_velocity(x, exact_velocity(LINEAR, x, t), t)
        )
        x = gaussian(np.random.default_rng(0), 8192)
        found.append(float(array(ops.mean(model.loss(x)["distance"]))))
    assert found[0] < 1e-4
    assert 10 < found[0] / found[1] < 24


@pytest.mark.once
def test_stochastic_teacher_walks_to_the_right_law(rng):
    """DDIM(eta=1) by the exact teacher keeps the marginals, the ODE too."""
    n, s = 20_000, 0.5
    for eta in (0.0, 1.0):
        model = discrete(
            "constant",
            interpolant=LINEAR,
            teacher=flow(),
            teacher_sampler=kf.samplers.DDIM(eta=eta),
            teacher_steps=16,
        )
        model.teacher.model.denoise = lambda x, t, **_: (
            LINEAR.data_from_velocity(x, exact_velocity(LINEAR, x, t), t)
        )
        x = gaussian(rng, n)
        t = tensor(np.full(n, 0.2))
        x_t = LINEAR.interpolate(x, tensor(rng.standard_normal((n, 2))), t)
        found = array(
            model.teacher.walk(
                x_t, t, tensor(np.full(n, s)), None, model.sample_n
            )
        )
        std = np.sqrt((s * np.array(S)) ** 2 + (1 - s) ** 2)
        # Sampling error 0.7 %, and the steps' own.
        np.testing.assert_allclose(found.std(0), std, rtol=0.03)
        np.testing.assert_allclose(found.mean(0), s * np.array(M), atol=0.02)
        correlation = np.corrcoef(found[:, 0], array(x_t)[:, 0])[0, 1]
        # The ODE is a map; the SDE forgets.
        assert correlation > 0.999 if eta == 0 else correlation < 0.9


def test_schedules_of_levels():
    """Against the formulas of 2303.01469 and 2310.14189, in plain Python."""

    def levels(schedule, progress, low, high):
        return float(
            array(schedules.num_levels(schedule, tensor(progress), low, high))
        )

    for p in (0.0, 0.3, 1.0):
        n = math.ceil(math.sqrt(p * (151**2 - 4) + 4) - 1) + 1
        assert levels("cm", p, 2, 150) == n
    assert levels("cm", 1.0, 2, 150) == 151
    steps, total = (0, 99, 100, 399, 799, 800), 800
    for k in steps:
        stage = min(k // math.floor(total / (math.log2(1280 / 10) + 1)), 7)
        n = min(10 * 2**stage, 1280) + 1
        assert levels("ict", k / total, 10, 1280) == n, k


@pytest.mark.once
@pytest.mark.parametrize("schedule", ["constant", "ict", "ect"])
def test_pairs_of_times(schedule):
    model = discrete(schedule, max_levels=17, min_levels=2)
    path = model.interpolant
    x = ops.zeros((512, 2))
    for _ in range(8 if schedule == "ict" else 1):
        model.after_update(tensor(True))
    t, s, weight = (array(v) for v in model.draw_pair(x))
    # "ect" takes its times from the law, which may go beyond the end.
    assert ((s < t) | (t <= path.sigma_min)).all()
    assert s.min() >= path.sigma_min - 1e-6
    if schedule == "ect":
        # One of eight updates: stage 1, q^j = 2, n(t) -> 1 for large noise.
        large = t > 20
        assert large.sum() > 5
        expected = 0.5 * (t - path.sigma_min) + path.sigma_min
        np.testing.assert_allclose(s[large], expected[large], rtol=1e-4)
        weight, t, s = weight[large], t[large], s[large]
    else:
        intervals = 16 if schedule == "constant" else 17 - 1
        u = np.linspace(0, 1, intervals + 1)
        low, high = path.sigma_min ** (1 / 7), path.sigma_max ** (1 / 7)
        grid = (low + u * (high - low)) ** 7
        index = np.abs(grid[None] - t[:, None]).argmin(1)
        np.testing.assert_allclose(t, grid[index], rtol=1e-3)
        np.testing.assert_allclose(s, grid[index - 1], rtol=1e-3)
    expected = 1.0 if schedule == "constant" else 1.0 / (t - s)
    np.testing.assert_allclose(weight, expected, rtol=2e-3)
