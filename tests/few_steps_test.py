"""Consistency, moment and distribution matching, and distillation."""

import math

import keras
import numpy as np
import pytest
from keras import ops
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf
from keras_flows.objectives import consistency as theory
from keras_flows.objectives import distribution_matching as matching
from keras_flows.ops import value_and_gradients

LINEAR = kf.interpolants.Linear(noise_at=0.0)
TRIG = kf.interpolants.TrigFlow(0.7)
M, S = (0.4, -0.7), (0.5, 0.8)


def tensor(x):
    return ops.convert_to_tensor(x, dtype="float32")


def array(x):
    return ops.convert_to_numpy(x)


def mlp(two_times=False, dim=2, **kwargs):
    return kf.networks.MLP(dim, 16, 1, two_times=two_times, **kwargs)


def flow(ema=None, **kwargs):
    """A frozen teacher."""
    model = kf.FlowMapInterface(mlp(**kwargs), "flow", ema=ema, seed=1)
    model.trainable = False
    return model


def on_trig(model, path=TRIG):
    model = kf.ReparametrizedInterface(model, path)
    model.trainable = False
    return model


def discrete(schedule, **kwargs):
    kwargs = {"total_steps": 8, "min_levels": 2, "max_levels": 16, **kwargs}
    return kf.ConsistencyInterface(
        mlp(), schedule=schedule, ema=0.9, seed=0, **kwargs
    )


def flow_map(objective, **kwargs):
    return kf.FlowMapInterface(mlp(True), objective, ema=0.9, seed=0, **kwargs)


MODELS = {
    "ayf": lambda: flow_map("ayf", teacher=flow()),
    "shortcut": lambda: flow_map("shortcut"),
    "imm": lambda: flow_map("imm"),
    "cm": lambda: discrete("cm", interpolant=LINEAR, target_decay=0.9),
    "ict": lambda: discrete("ict"),
    "ect": lambda: discrete("ect"),
    "cd": lambda: discrete(
        "constant", interpolant=LINEAR, teacher=flow(0.9), teacher_steps=2
    ),
    "scott": lambda: discrete(
        "constant",
        interpolant=LINEAR,
        teacher=flow(),
        teacher_sampler=kf.samplers.DDIM(eta=0.5),
    ),
    "sct": lambda: kf.SCTInterface(mlp(), warmup_steps=4, ema=0.9, seed=0),
    "scd": lambda: kf.SCDInterface(
        mlp(), on_trig(flow()), x_sigma=0.7, ema=0.9, seed=0
    ),
    "progressive": lambda: kf.ProgressiveInterface(
        flow(), num_steps=(2, 1), steps_per_stage=2
    ),
    "dmd": lambda: kf.DMDInterface(
        flow(), fake_updates=2, num_steps=2, discriminator=mlp()
    ),
    "sid": lambda: kf.DMDInterface(flow(), fake_updates=2, method="sid"),
}
# The others' losses are compared between backends in tests/parity.
EVERYWHERE = ("scott", "dmd")


def values(variables):
    return [np.copy(array(v)) for v in variables]


def changed(before, variables):
    return [
        bool(np.any(a != array(v)))
        for a, v in zip(before, variables, strict=True)
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=() if name in EVERYWHERE else (pytest.mark.once,)
        )
        for name in MODELS
    ],
)
def test_fits_saves_and_loads(name, tmp_path, rng):
    model = MODELS[name]()
    teacher = getattr(model, "teacher", None)
    frozen = values(teacher.variables) if teacher is not None else []
    before = values(model.trainable_variables)
    model.compile(keras.optimizers.Adam(1e-2))
    x = rng.standard_normal((24, 2)).astype("float32")
    logs = model.fit(x, batch_size=8, verbose=0).history
    assert np.isfinite([v[-1] for v in logs.values()]).all()
    assert logs["skipped_steps"] == [0.0] and logs["gradient_norm"][0] > 0
    assert sum(changed(before, model.trainable_variables)) > 2
    if teacher is not None:
        assert not any(changed(frozen, teacher.variables))
        assert not teacher.trainable_variables

    model.save_to_preset(tmp_path / "preset")
    loaded = kf.Interface.from_preset(tmp_path / "preset")
    assert type(loaded) is type(model)
    assert loaded.get_config() == model.get_config()
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(array(a), array(b), err_msg=a.path)
    a, b = (array(m.generate(3, seed=0)) for m in (model, loaded))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert np.isfinite(a).all()


# Consistency: the exact function of Gaussian data.


def exact_f(path, x, t):
    """Where the flow of N(M, S^2) takes x from t: m + s (x - mu) / std."""
    t = ops.expand_dims(t, -1)
    a, s = path.alpha(t), path.sigma(t)
    m, std = tensor(M), tensor(S)
    var = ops.square(a * std) + ops.square(s)
    return m + std * (x - a * m) / ops.sqrt(var)


def exact_velocity(path, x, t):
    t = ops.expand_dims(t, -1)
    a, s, da, ds = path._coefficients(t, x)
    m, std = tensor(M), tensor(S)
    var = ops.square(a * std) + ops.square(s)
    slope = (a * da * ops.square(std) + s * ds) / var
    return da * m + slope * (x - a * m)


def gaussian(rng, rows):
    return tensor(np.array(M) + np.array(S) * rng.standard_normal((rows, 2)))


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
        model.teacher = object()
        model.teach = lambda x, t, condition: exact_velocity(TRIG, x, t)
    sizes = []
    for delta in (0.0, 0.1):
        model.pred = Off(TRIG, delta).velocity
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
        array(model.pred(x_t, t)) - array(model.interpolant.velocity(x, n, t))
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
        model.teacher.pred = lambda x, t, **_: exact_velocity(LINEAR, x, t)
        model.teacher.denoise = lambda x, t, **_: LINEAR.data_from_velocity(
            x, exact_velocity(LINEAR, x, t), t
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
        model.teacher.denoise = lambda x, t, **_: LINEAR.data_from_velocity(
            x, exact_velocity(LINEAR, x, t), t
        )
        x = gaussian(rng, n)
        t = tensor(np.full(n, 0.2))
        x_t = LINEAR.interpolate(x, tensor(rng.standard_normal((n, 2))), t)
        found = array(model.teacher_walk(x_t, t, tensor(np.full(n, s))))
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
            array(theory.num_levels(schedule, tensor(progress), low, high))
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


# A model on another path.

PATHS = ["linear, noise at 0", "trigonometric, noise at 1", "trigflow",
         "variance preserving, linear"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_reparametrized_is_exact(path, rng):
    """Of the exact network on `Linear`, on other paths' exact oracles."""
    network = ExactNetwork(Oracle(CASES["linear, noise at 1"][2]))
    inner = kf.FlowMapInterface(
        network, "lsd", interpolant=kf.interpolants.Linear(1.0), ema=None
    )
    name, arguments, ours, early, late = CASES[path]
    model = kf.ReparametrizedInterface(
        inner, getattr(kf.interpolants, name)(**arguments)
    )
    oracle = Oracle(ours)
    t = np.linspace(early, late, 64).astype("float32")
    r = (t + 0.6 * (late - t)).astype("float32")
    x = oracle.sample(rng, t)
    x_t = tensor(x)
    checks = {
        "pred": (model.pred(x_t, tensor(t)), oracle.velocity(x, t)),
        "denoise": (model.denoise(x_t, tensor(t)), oracle.data(x, t)),
        "score": (model.score(x_t, tensor(t)), oracle.score(x, t)),
        "jump": (
            model.jump(x_t, tensor(t), tensor(r)),
            oracle.jump(x, t, r),
        ),
    }
    for what, (found, expected) in checks.items():
        error = np.abs(array(found) - expected).max()
        assert error < 1e-4 * max(1.0, np.abs(expected).max()), what


@pytest.mark.once
def test_reparametrized_starts_at_the_noise(rng):
    """Where alpha = 0 the ratio is infinite; the samples are the same."""
    edm = kf.EDMInterface(mlp(), ema=None, seed=0)
    model = kf.ReparametrizedInterface(edm, LINEAR)
    z = rng.standard_normal((6, 2)).astype("float32")
    found = array(model.denoise(tensor(z), tensor([0.0] * 6)))
    expected = array(edm.denoise(tensor(80.0 * z), tensor([80.0] * 6)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert np.isfinite(array(model.generate(noise=z, num_steps=3))).all()


# Moment matching.


@pytest.mark.once
def test_imm_is_the_published_estimator(rng):
    """The loss from the model's jumps, written out in NumPy."""
    model = flow_map("imm", objective_args={"particles": 4, "power": 5})
    x = rng.standard_normal((8, 2)).astype("float32")
    draws = [np.array([0.7, 0.4]), np.array([0.5, 0.2])]
    queue = [tensor(d) for d in draws]
    n = rng.standard_normal((8, 2)).astype("float32")
    model.sample_uniform = lambda shape: queue.pop(0)
    model.sample_n = lambda shape: tensor(n)
    terms = model.loss(tensor(x))

    # Noise fractions: on this path t = 1 - f, alpha = t, sigma = 1 - t.
    f, f_r = draws[0], draws[0] * draws[1]
    ratio = f / (1 - f) - 160.0 / 2**5
    f_w = np.where(ratio > f_r / (1 - f_r), ratio / (1 + ratio), f_r)
    t, w, r = (np.repeat(1 - v, 4).astype("float32") for v in (f, f_w, f_r))
    x_t = t[:, None] * x + (1 - t[:, None]) * n
    x_w = w[:, None] * x + (1 - w[:, None]) * n
    ours = array(model.jump(tensor(x_t), tensor(t), tensor(r)))
    target = array(model.jump(tensor(x_w), tensor(w), tensor(r)))
    expected = []
    for g in range(2):
        part = slice(4 * g, 4 * g + 4)
        c_out = abs(t[4 * g] - r[4 * g]) * 0.5

        def kernel(a, b, c_out=c_out):
            d = np.linalg.norm(a[:, None] - b[None], axis=-1)
            return np.exp(-d / c_out / 2).mean()

        a, b = ours[part], target[part]
        mmd = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
        alpha, sigma = t[4 * g], 1 - t[4 * g]
        log_snr = 2 * math.log(alpha / sigma)
        # -dlambda/df of f = sigma, halved.
        slope = 1 / sigma + 1 / alpha
        weight = slope / (1 + math.exp(log_snr - 5)) * alpha
        expected += [mmd, weight / (alpha**2 + sigma**2) * mmd]
    np.testing.assert_allclose(array(terms["mmd"])[::4], expected[::2],
                               rtol=1e-3)  # fmt: skip
    np.testing.assert_allclose(array(terms["loss"])[::4], expected[1::2],
                               rtol=1e-3)  # fmt: skip


@pytest.mark.once
def test_shortcut_pairs_are_dyadic():
    from keras_flows.objectives.flow_map import dyadic

    model = flow_map("shortcut")
    t, r = (array(v) for v in dyadic(model, (2048,)))
    steps = 1.0 / (r - t)
    assert set(np.round(steps).astype(int)) == {1, 2, 4, 8, 16, 32, 64}
    np.testing.assert_allclose(t * steps, np.round(t * steps), atol=1e-3)
    assert t.min() == 0.0 and r.max() == 1.0


# Distribution matching.


def test_dmd_follows_the_difference_of_scores(rng):
    x, real, fake = (
        keras.Variable(rng.standard_normal((3, 4))) for _ in range(3)
    )
    _, (gradient, *others) = value_and_gradients(
        lambda: ops.sum(matching.dmd(x.value, real.value, fake.value)),
        [x, real, fake],
    )
    a, b, c = (array(v) for v in (x, real, fake))
    weight = 1 / np.abs(a - b).mean(1, keepdims=True)
    np.testing.assert_allclose(array(gradient), weight * (c - b) / 4, rtol=1e-5)
    assert not any(array(g).any() for g in others)


def test_sid_measures_the_fisher_divergence(rng):
    """For alpha = 0 its mean is that of w |real - fake|^2, w constant here.

    Generator N(0.5, 0.6^2) against data N(-0.2, 0.9^2), at t = 0.5 of
    `Linear`, with the exact denoisers of both.
    """
    rows = 400_000
    x = 0.5 + 0.6 * rng.standard_normal((rows, 1))
    x_t = 0.5 * x + 0.5 * rng.standard_normal((rows, 1))

    def denoiser(m, s):
        gain = 0.5 * s**2 / (0.25 * s**2 + 0.25)
        return m + gain * (x_t - 0.5 * m)

    real, fake = denoiser(-0.2, 0.9), denoiser(0.5, 0.6)
    unit = 1 / np.abs(x - real)
    loss = array(matching.sid(tensor(x), tensor(real), tensor(fake), 0.0))
    found = (loss / unit[:, 0]).mean()
    expected = ((real - fake) ** 2).mean()
    assert abs(found / expected - 1) < 0.02


def test_the_two_networks_take_turns(rng):
    """Generator first, then the fake network, each by its own optimizer."""
    model = kf.DMDInterface(flow(0.9), fake_updates=2)
    model.compile(
        keras.optimizers.SGD(0.1), keras.optimizers.Adam(1e-2), run_eagerly=None
    )
    x = rng.standard_normal((8, 2)).astype("float32")
    # A copy of the teacher would leave the generator nothing to learn.
    for v in model.fake_network.trainable_variables:
        v.assign(array(v) + 0.1)
    sides = {
        "generator": model.network.trainable_variables,
        "fake": model.fake_network.trainable_variables,
    }
    moved, losses = [], []
    for _ in range(6):
        before = {k: values(v) for k, v in sides.items()}
        logs = model.train_on_batch(x, return_dict=True)
        losses.append((float(logs["generator_loss"]), float(logs["fake_loss"])))
        moved.append(
            [k for k, v in sides.items() if any(changed(before[k], v))]
        )
    assert moved == [["generator"], ["fake"], ["fake"]] * 2
    optimizer = model.optimizer
    assert int(array(optimizer.iterations)) == 2
    assert int(array(optimizer.second.iterations)) == 4
    # Means over what has been: the fake loss appears with its first turn.
    assert losses[0][1] == 0 and losses[1][1] > 0


def test_the_teacher_has_no_slots():
    model = kf.DMDInterface(flow(0.9))
    model.compile(keras.optimizers.Adam(1e-3))
    model.optimizer.build(model.trainable_variables)
    trained = [
        *model.network.trainable_variables,
        *model.fake_network.trainable_variables,
    ]
    # Neither the teacher's nor the averages'.
    assert {id(v) for v in model.trainable_variables} == {
        id(v) for v in trained
    }
    # Adam has two slots for each, and every optimizer two scalars of its own.
    slots = [v for v in model.optimizer.variables if len(v.shape)]
    assert len(slots) == 2 * len([v for v in trained if len(v.shape)])
    size = sum(math.prod(v.shape) for v in trained)
    assert sum(math.prod(v.shape) for v in slots) == 2 * size


@pytest.mark.once
def test_pairs_regress_the_generator(rng):
    """DMD's regression: |G(noise) - x|^2, nothing else without the teacher."""
    model = kf.DMDInterface(flow(), regression_weight=3.0)
    z = rng.standard_normal((8, 2)).astype("float32")
    x = tensor(rng.standard_normal((8, 2)))
    model._generator_loss = lambda made, n, t, condition: ops.zeros_like(t)
    terms = model.loss(x, None, {"noise": tensor(z)}, training=False)
    made = array(model.denoise(tensor(z), tensor([0.0] * 8)))
    np.testing.assert_allclose(
        array(terms["generator_loss"]),
        3.0 * ((made - array(x)) ** 2).mean(1),
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="noise.*regression_weight"):
        model.loss(x)


@pytest.mark.once
def test_the_best_discriminator_is_the_ratio_of_densities(rng):
    """Its loss is stationary at the logit log p(x_t) / q(x_t).

    Data N(M, S^2) and samples N(0, 0.7^2), noised to t on `Linear`.
    """
    model = kf.DMDInterface(
        flow(), discriminator=mlp(), discriminator_weight=1.0
    )
    scale, shift = keras.Variable(1.0), keras.Variable(0.0)

    def log_ratio(x_t, t, condition):
        t = ops.expand_dims(t, -1)
        total = 0.0
        for sign, mean, std in ((1.0, M, S), (-1.0, (0.0, 0.0), (0.7, 0.7))):
            mean = t * tensor(mean)
            std = ops.sqrt(ops.square(t * tensor(std)) + ops.square(1.0 - t))
            z = (x_t - mean) / std
            total -= sign * ops.sum(0.5 * ops.square(z) + ops.log(std), -1)
        return scale * total + shift

    model._logit = log_ratio
    model.produce = lambda draws, condition: 0.7 * draws[0]
    model._fake_loss = lambda made, n, t, condition: ops.zeros_like(t)
    x = gaussian(rng, 100_000)

    def gradient(*at):
        scale.assign(at[0])
        shift.assign(at[1])
        return np.array([
            float(array(g)) for g in value_and_gradients(
                lambda: ops.mean(model.loss(x, training=False)["fake_loss"]),
                [scale, shift],
            )[1]
        ])  # fmt: skip

    # Both sides have 100,000 rows: standard errors are about 0.003.
    np.testing.assert_allclose(gradient(1.0, 0.0), 0.0, atol=0.012)
    assert gradient(0.5, 0.0)[0] < -0.05 and gradient(2.0, 0.0)[0] > 0.05
    assert gradient(1.0, -0.5)[1] < -0.1 and gradient(1.0, 0.5)[1] > 0.1


@pytest.mark.once
def test_the_adversarial_term_moves_the_generator(rng):
    """G's gradient is that of 3 log(1 + e^-D) on top of its own."""
    t, n = tensor(np.full(8, 0.5)), tensor(rng.standard_normal((8, 2)))
    made = keras.Variable(rng.standard_normal((8, 2)), dtype="float32")
    model = kf.DMDInterface(flow(), discriminator=mlp())

    # A copy of the teacher would leave DMD's own gradient at zero.
    for v in model.fake_network.trainable_variables:
        v.assign(array(v) + 0.1)

    def gradient(weight):
        model.adversarial_weight = weight
        return array(value_and_gradients(
            lambda: ops.sum(model._generator_loss(made.value, n, t, None)),
            [made],
        )[1][0])  # fmt: skip

    own = gradient(0.0)
    added = array(value_and_gradients(
        lambda: 3.0 * ops.sum(ops.log1p(ops.exp(-ops.mean(
            model.discriminator({"x": 0.5 * made.value + 0.5 * n, "t": t}), 1
        )))),
        [made],
    )[1][0])  # fmt: skip
    assert np.abs(added).max() > 1e-3 and np.abs(own).max() > 1e-3
    np.testing.assert_allclose(gradient(3.0), own + added, rtol=1e-4, atol=1e-6)


@pytest.mark.once
def test_back_simulation_starts_where_sampling_does(rng):
    """G's starts are its own samples, noised anew to its own times."""
    model = kf.DMDInterface(flow(), num_steps=4)
    seen = []
    denoise = model.denoise

    def record(x, t, condition=None, network=None):
        seen.append(array(t).copy())
        return denoise(x, t, condition=condition, network=network)

    model.denoise = record
    model.produce(model.draw(tensor(rng.standard_normal((256, 2)))))
    assert [set(t) for t in seen[:3]] == [{0.0}, {0.25}, {0.5}]
    counts = np.unique(seen[3], return_counts=True)
    np.testing.assert_allclose(counts[0], [0.0, 0.25, 0.5, 0.75])
    assert counts[1].min() > 40
    assert model.default_sampler.times(LINEAR, 4).tolist() == [
        0.0, 0.25, 0.5, 0.75, 1.0,
    ]  # fmt: skip


def test_each_step_has_rivals_of_its_own(rng):
    """Its rows meet its fake network and its discriminator, no other's.

    The teacher has stable targets: they are means over one step's samples.
    """
    teacher = kf.FlowMapInterface(
        mlp(), "flow", stable_target=True, ema=None, seed=0
    )
    teacher.trainable = False

    def build(discriminator, **options):
        return kf.DMDInterface(
            teacher, discriminator=discriminator, num_steps=2, **options
        )

    model = build(mlp(), separate_fakes=True)
    assert len(model.fake_networks) == len(model.discriminators) == 2
    for rival in (*model.fake_networks, *model.discriminators):
        for v in rival.trainable_variables:
            v.assign(array(v) + 0.1 * rng.standard_normal(v.shape))
    made, n = (tensor(rng.standard_normal((10, 2))) for _ in range(2))
    t = tensor(rng.uniform(0.2, 0.8, 10))
    for name in ("_fake_loss", "_generator_loss"):
        found = array(getattr(model, name)(made, n, t, None))
        for step in range(2):
            single = build(mlp())
            single.fake_network.set_weights(
                model.fake_networks[step].get_weights()
            )
            single.discriminator.set_weights(
                model.discriminators[step].get_weights()
            )
            rows = slice(5 * step, 5 * step + 5)
            expected = getattr(single, name)(made[rows], n[rows], t[rows], None)
            np.testing.assert_allclose(
                found[rows], array(expected), rtol=1e-4, atol=1e-6
            )
    # Each example is a sample of both steps, the second from the first.
    noise, (anew,), _ = draws = model.draw(made)
    samples = array(model.produce(draws))
    t = [ops.full((10,), time) for time in (0.0, 0.5)]
    first = model.denoise(model.start(noise), t[0])
    second = model.denoise(model.sample_x_t(first, anew, t[1]), t[1])
    np.testing.assert_allclose(samples[:10], array(first), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        samples[10:], array(second), rtol=1e-5, atol=1e-6
    )
    # The loss of an example is the mean over its samples, step after step.
    rows = {}

    def known(name):
        def loss(made, n, t, condition):
            rows[name] = [tuple(v.shape) for v in (made, n)]
            return ops.arange(20, dtype="float32")

        return loss

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_generator_loss", "_fake_loss"):
            patch.setattr(model, name, known(name))
        patch.setattr(model, "discriminators", [])
        terms = model.loss(made, training=False)
    for name in ("generator_loss", "fake_loss"):
        np.testing.assert_allclose(array(terms[name]), 5.0 + np.arange(10))
        assert rows[f"_{name}"] == [(20, 2), (20, 2)]
    # No step learns from those after it.
    weigh = tensor(rng.standard_normal((10, 2)))
    variables = model.network.trainable_variables
    gradients = [
        value_and_gradients(lambda f=f: ops.sum(weigh * f()), variables)[1]
        for f in (
            lambda: model.produce(draws)[10:],
            lambda: model.denoise(
                model.sample_x_t(ops.stop_gradient(first), anew, t[1]), t[1]
            ),
        )
    ]
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=1e-4, atol=1e-6)
    trained = {id(v) for v in model.trainable_variables}
    for rival in (*model.fake_networks, *model.discriminators):
        assert {id(v) for v in rival.trainable_variables} <= trained
    again = kf.DMDInterface.from_config(model.get_config())
    assert again.separate_fakes and len(again.discriminators) == 2
    model.compile(keras.optimizers.SGD(1e-2))
    history = model.fit(array(made), batch_size=10, epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


# Progressive distillation.


@pytest.mark.once
def test_progressive_target_is_one_step_to_where_two_lead(rng):
    """The loss vanishes when one DDIM step goes where the two go."""
    model = kf.ProgressiveInterface(flow(), num_steps=(2, 1), steps_per_stage=2)
    x = gaussian(rng, 512)

    def exact(x, t, **_):
        return LINEAR.data_from_velocity(x, exact_velocity(LINEAR, x, t), t)

    model.teacher.denoise = exact
    model.interface.denoise = exact
    seen = {}

    def target(x_t, t, **_):
        """Two steps of the exact denoiser, and the x of one like them."""
        r = t + 0.5
        w = 0.5 * (t + r)
        seen["t"] = array(t)
        walked = x_t
        for a, b in ((t, w), (w, r)):
            a, b = ops.expand_dims(a, -1), ops.expand_dims(b, -1)
            x_hat = exact(walked, a[:, 0])
            noise = (walked - a * x_hat) / (1 - a)
            walked = b * x_hat + (1 - b) * noise
        t, r = ops.expand_dims(t, -1), ops.expand_dims(r, -1)
        kept = (1 - r) / (1 - t)
        return (walked - kept * x_t) / (r - t * kept)

    model.denoise = target
    terms = model.loss(x)
    # The walk and its inverse, in float32.
    assert array(terms["distance"]).max() < 1e-9
    assert set(np.unique(seen["t"])) == {0.0, 0.5}
    model.denoise = exact
    assert array(ops.mean(model.loss(x)["distance"])) > 1e-4


def test_progressive_takes_over_its_student(rng):
    model = kf.ProgressiveInterface(flow(), num_steps=(2, 1), steps_per_stage=2)
    model.compile(keras.optimizers.SGD(0.05))
    x = rng.standard_normal((8, 2)).astype("float32")
    start = values(model.snapshot.variables)
    model.train_on_batch(x)
    assert not any(changed(start, model.snapshot.variables))
    assert array(model._stage()[0]) == 2 and bool(array(model._stage()[1]))
    model.train_on_batch(x)
    assert any(changed(start, model.snapshot.variables))
    assert not any(
        changed(values(model.network.variables), model.snapshot.variables)
    )
    assert array(model._stage()[0]) == 1
    assert not bool(array(model._stage()[1]))


# Teachers.


@pytest.mark.once
def test_the_average_teaches_with_guidance(rng):
    """The teacher's first EMA, and n + scale (p - n) with the null label."""
    teacher = flow(0.9, num_classes=3)
    for v in teacher.emas[0].averages:
        v.assign(rng.standard_normal(v.shape) * 0.3)
    teacher.emas[0].updates.assign(5)
    student = kf.FlowMapInterface(
        mlp(True, num_classes=3), "lmd", teacher=teacher,
        teacher_guidance_scale=2.5, ema=None,
    )  # fmt: skip
    x, t = tensor(rng.standard_normal((4, 2))), tensor([0.1, 0.3, 0.5, 0.7])
    label = ops.convert_to_tensor([0, 1, 2, 0], dtype="int32")
    average = teacher.emas[0].averaged()
    p, n = (
        array(teacher.pred(x, t, condition=c, network=average))
        for c in (label, ops.full_like(label, 3))
    )
    found = array(student.teach(x, t, label))
    np.testing.assert_allclose(found, n + 2.5 * (p - n), rtol=1e-4, atol=1e-6)
    live = array(teacher.pred(x, t, condition=label))
    assert np.abs(live - p).max() > 0.01


BAD = {
    "another path": (
        lambda: kf.SCDInterface(mlp(), flow()),
        "student's interpolant.*Linear.*TrigFlow.*ReparametrizedInterface",
    ),
    "another shape": (
        lambda: flow_map("lmd", teacher=flow(dim=3)),
        r"sample_shape.*\(3,\).*\(2,\)",
    ),
    "another condition": (
        lambda: flow_map("lmd", teacher=flow(num_classes=3)),
        "student's condition.*int32.*none",
    ),
    "trainable": (
        lambda: flow_map(
            "lmd", teacher=kf.FlowMapInterface(mlp(), "flow", ema=None)
        ),
        "`teacher` is trainable.*teacher.trainable = False",
    ),
    "no interface": (
        lambda: flow_map("lmd", teacher=mlp()),
        "`teacher` must be a trained Interface",
    ),
    "guidance without a null label": (
        lambda: flow_map("lmd", teacher=flow(), teacher_guidance_scale=2.0),
        "teacher_guidance_scale.*null label",
    ),
    "multistep teacher": (
        lambda: discrete(
            "constant", interpolant=LINEAR, teacher=flow(),
            teacher_sampler="dpm_solver++",
        ),
        "one-step sampler",
    ),
    "schedule": (lambda: discrete("easy"), "`schedule`.*easy"),
    "levels": (lambda: discrete("cm", min_levels=1), "min_levels.*1"),
    "a student carried over": (
        lambda: kf.DMDInterface(on_trig(flow())),
        "ReparametrizedInterface cannot be trained as a `student`",
    ),
    "halving": (
        lambda: kf.ProgressiveInterface(flow(), num_steps=(8, 3)),
        r"`num_steps` must halve.*\(8, 3\)",
    ),
    "pairs and data": (
        lambda: kf.DMDInterface(
            flow(), regression_weight=1.0, discriminator=mlp()
        ),
        "`regression_weight`.*`discriminator`.*one of them",
    ),
    "method": (lambda: kf.DMDInterface(flow(), method="gan"), "`method`.*gan"),
    "particles": (
        lambda: flow_map("imm").loss(ops.zeros((6, 2))),
        "`particles`.*4.*6",
    ),
    "loss scale": (
        lambda: kf.DMDInterface(flow()).compile(
            keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        ),
        "cannot scale the loss",
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    make, message = BAD[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()
