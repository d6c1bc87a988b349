"""The same exact models under guidance and inside the holders."""

import exact
import keras
import laws
import numpy as np
import pytest
from keras import ops
from laws import PATHS
from rows import FORM
from rows import ROWS
from rows import around
from rows import flow_map
from rows import frozen
from rows import path_of
from rows import trained_for
from sampling_test import count
from sampling_test import text
from sampling_test import tolerance

import keras_flows as kf


def ids(cells):
    return ["-".join(map(str, cell)) for cell in cells]


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x), dtype="float32")


def check_moments(x, mean, std, tol):
    """Of (B, ..., 2), within tol of the deviation of the data."""
    x = x.reshape(-1, 2)
    wrong = np.abs([x.mean(0) - mean, x.std(0) - std])
    assert np.all(wrong < tol * np.array(laws.STD)), (
        f"mean {text(x.mean(0))} std {text(x.std(0))}, not {text(mean)} and "
        f"{text(std)}"
    )


# Guidance.

GUIDED = [
    *(("sit", path) for path in ROWS["sit"].on),
    ("edm", "ve"), ("discrete eps", "chain"), ("discrete x0", "chain"),
    ("discrete v", "chain"), ("flow", "linear0"), ("mean_flow", "linear1"),
    ("mean_flow", "vp"), ("lsd", "linear0"), ("imm", "linear0"),
    ("consistency", "linear0"), ("consistency", "ve"), ("sct", "trigflow"),
    ("scd", "trigflow"), ("progressive", "linear1"), ("dmd", "linear1"),
]  # fmt: skip


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("name, path", GUIDED, ids=ids(GUIDED))
def test_guidance(name, path, scale):
    """To the data of mean m0 + w (m - m0): a network is affine in m."""
    row, steps = ROWS[name], ROWS[name].steps[-1]
    model = row.build(path, labels=True, **trained_for(row, steps))
    rows = count(row, steps)
    with exact.recording():
        x = model.generate(
            noise=laws.even_noise(rows), condition=np.zeros(rows, "int32"),
            guidance_scale=scale, num_steps=steps, seed=0,
        )  # fmt: skip
    # The mean's error grows with the scale.
    tol = tolerance(row, path, steps) * scale
    check_moments(array(x), laws.guided_mean(scale), laws.STD, tol)


RANGED = {
    "bare": lambda model: model,
    "reparametrized": lambda model: kf.ReparametrizedInterface(
        model, path_of("linear1")
    ),
    "on another path": lambda model: kf.ReparametrizedInterface(
        model, path_of("trigflow")
    ),
}


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("holder", RANGED)
def test_a_scale_of_guidance_that_the_network_takes(holder, scale):
    net = exact.network("linear1", "map", labels=True, guidance=True)
    model = RANGED[holder](
        kf.MeanFlowInterface(net, guidance_range=(1.0, 4.0), ema=None, seed=0)
    )
    with exact.recording() as calls:
        x = model.generate(
            noise=laws.even_noise(64), condition=np.zeros(64, "int32"),
            guidance_scale=scale, seed=0,
        )  # fmt: skip
    check_moments(array(x), laws.guided_mean(scale), laws.STD, 0.02)
    assert len(calls) == 1 and calls[0].rows == 64


# On another path.

SAME = [
    ("sit", "linear1"), ("sit", "vp"), ("edm", "ve"), ("discrete v", "chain"),
    ("flow", "linear0"), ("mean_flow", "linear1"), ("lsd", "linear0"),
    ("lsd", "vp"), ("consistency", "linear1"), ("consistency", "ve"),
    ("sct", "trigflow"),
]  # fmt: skip
MOVED = [
    *(("sit", "linear1", to) for to in ROWS["sit"].on if to != "linear1"),
    *(("edm", "ve", to) for to in ("linear1", "linear0", "vp", "trigflow")),
    ("discrete eps", "chain", "linear1"), ("discrete v", "chain", "vp"),
    *(("lsd", "linear0", to) for to in ("linear1", "trig1", "vp", "trigflow")),
    ("mean_flow", "linear1", "ve"),
    ("consistency", "ve", "linear1"), ("sct", "trigflow", "ve"),
]  # fmt: skip


def sampled(model, steps, rows=64, **kwargs):
    with exact.recording() as calls:
        x = model.generate(
            noise=laws.even_noise(rows),
            num_steps=steps,
            seed=0,
            **kwargs,
        )
    return array(x), calls


@pytest.mark.parametrize("name, path", SAME, ids=ids(SAME))
def test_reparametrized_on_the_same_path_is_the_model(name, path):
    bare = ROWS[name].build(path)
    held = kf.ReparametrizedInterface(bare, path_of(path))
    for steps in ROWS[name].steps[:2]:
        a, b = (sampled(model, steps)[0] for model in (bare, held))
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    levels = PATHS[path].levels(4).astype("float32")
    x = laws.even_noise(8)
    for t, r in zip(levels[1:3], levels[2:4], strict=True):
        at, to = (np.full(8, v, "float32") for v in (t, r))
        for method in ("pred", "score", "denoise", "jump"):
            times = (at, to) if method == "jump" else (at,)
            values = []
            for model in (bare, held):
                try:
                    call = getattr(model, method)
                    values.append(array(call(*map(tensor, (x, *times)))))
                except ValueError:
                    values.append(None)
            a, b = values
            assert (a is None) == (b is None), method
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name, path, to", MOVED, ids=ids(MOVED))
def test_reparametrized_on_another_path(name, path, to):
    """Samples by its own default, velocity, score and data; times inside."""
    row = ROWS[name]
    held = kf.ReparametrizedInterface(row.build(path), path_of(to))
    steps = row.steps[-1]
    x, calls = sampled(held, steps, count(row, steps))
    tol = tolerance(row, path, steps) + PATHS[to].end_ratio
    if row.kind == "flow":
        # First order, whatever the model's own sampler is.
        tol = max(tol, 3.0 / steps)
    check_moments(x, np.array(laws.MEAN), np.array(laws.STD), tol)
    low, high = sorted((PATHS[path].t_noise, PATHS[path].t_last))
    times = np.array([call.t[0] for call in calls])
    assert low * (1 - 1e-5) <= times.min(), times.min()
    assert times.max() <= high * (1 + 1e-5), times.max()
    if row.kind == "end":
        return
    o, rng = laws.closed(to), np.random.default_rng(0)
    t = np.repeat(PATHS[to].levels(4)[1:4], 8).astype("float32")
    x = o.sample(rng, t.astype("float64"))
    with exact.recording():
        found = [
            array(method(tensor(x), tensor(t)))
            for method in (held.pred, held.score, held.denoise)
        ]
    at = (x.astype("float64"), t.astype("float64"))
    for got, want in zip(found, (o.velocity, o.score, o.data), strict=True):
        want = want(*at)
        assert np.all(np.abs(got - want) < 2e-3 * (0.1 + np.abs(want).max()))


# REPA.

ALIGNED = [
    ("sit", "linear1"), ("sit", "vp"), ("edm", "ve"),
    ("discrete eps", "chain"), ("mean_flow", "linear1"), ("lsd", "linear0"),
    ("psd", "linear0"), ("imm", "linear0"), ("consistency", "ve"),
    ("sct", "trigflow"), ("scd", "trigflow"),
]  # fmt: skip
BATCH, FEATURES = 64, 3


class OneBatch(keras.utils.PyDataset):
    """One batch (x, None, extras)."""

    def __init__(self, extras=None):
        super().__init__()
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((BATCH, 2)).astype("float32")
        self.extras = extras

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (self.x, None, self.extras) if self.extras else (self.x,)


def aligned_batch():
    features = np.random.default_rng(1).standard_normal((BATCH, 2, FEATURES))
    return OneBatch({"features": features.astype("float32")})


def align(model, depth):
    return kf.REPAInterface(
        model, feature_dim=FEATURES, repa_depth=depth, proj_dim=4
    )


def evaluated(model, batch):
    if not model.compiled:
        model.compile(keras.optimizers.Adam(), run_eagerly=True)
    return model.evaluate(batch, verbose=0, return_dict=True)


@pytest.mark.parametrize("name, path", ALIGNED, ids=ids(ALIGNED))
def test_repa_leaves_the_model_as_it_is_and_two_do_not_meet(name, path):
    bare = ROWS[name].build(path, tokens=True)
    steps = ROWS[name].steps[0]
    x = tensor(laws.even_noise(8))
    t = tensor(np.full(8, PATHS[path].levels(4)[2]))
    methods = ["pred", "score"] if ROWS[name].kind != "end" else []
    before = [array(getattr(bare, method)(x, t)) for method in methods]
    samples = sampled(bare, steps)[0]
    loss = evaluated(bare, OneBatch())["loss"]

    first = align(bare, 1)
    alone = evaluated(first, aligned_batch())
    second = align(bare, 2)
    other = evaluated(second, aligned_batch())
    assert evaluated(first, aligned_batch()) == pytest.approx(alone, rel=1e-5)
    assert alone["repa_loss"] != pytest.approx(other["repa_loss"], rel=1e-3)
    assert evaluated(bare, OneBatch())["loss"] == pytest.approx(loss, rel=1e-5)
    for model, logs in ((first, alone), (second, other)):
        assert logs["diffusion_loss"] == pytest.approx(loss, rel=1e-5)
        for method, want in zip(methods, before, strict=True):
            found = array(getattr(model, method)(x, t))
            np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
        found = sampled(model, steps)[0]
        np.testing.assert_allclose(found, samples, rtol=1e-5, atol=1e-6)


# A model as the teacher of another.

TEACHERS = [
    *(("sit", path) for path in ROWS["sit"].on), ("edm", "ve"),
    ("discrete eps", "chain"), ("discrete x0", "chain"),
    ("discrete v", "chain_cosine"), ("flow", "linear0"), ("lsd", "linear0"),
]  # fmt: skip


def a_batch(rows=256):
    z = laws.even_noise(rows)
    return tensor(np.array(laws.MEAN) + np.array(laws.STD) * z)


@pytest.mark.parametrize("level", [None, 1.0])
@pytest.mark.parametrize("method", ["dmd", "sid"])
@pytest.mark.parametrize("name, path", TEACHERS, ids=ids(TEACHERS))
def test_dmd_starts_from_its_teacher(name, path, method, level):
    """One step of the teacher's copy is its denoiser where the step starts."""
    teacher = frozen(ROWS[name].build(path))
    model = kf.DMDInterface(teacher, method=method, start_level=level)
    terms = model.loss(a_batch())
    assert all(np.isfinite(array(v)).all() for v in terms.values())
    x, calls = sampled(model, 1)
    t = np.full(64, model.sampling_times()[2][0])
    assert (t[0] == PATHS[path].t_noise) == (level == 1.0)
    o = laws.closed(path)
    start = laws.even_noise(64)
    if not (PATHS[path].chain and level == 1.0):
        start = start * o.path.sigma(t)[:, None]
    np.testing.assert_allclose(x, o.data(start, t), atol=2e-3)
    assert len(calls) == 1


SCORED = [("sit", "linear1"), ("sit", "linear0"), ("sit", "vp"),
          ("edm", "ve"), ("discrete", "chain")]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("method", ["dmd", "sid"])
@pytest.mark.parametrize("kind, path", SCORED, ids=ids(SCORED))
def test_dmd_has_nothing_to_learn_at_the_exact_generator(
    kind, path, method, steps
):
    """Teacher and fake network agree on its samples; not on others'."""

    def loss(predicts):
        teacher, student = (
            around(kind, exact.network(path, what, FORM[kind]), path)
            for what in ("mean", predicts)
        )
        # The flow's ends are the data's from its start on.
        model = kf.DMDInterface(
            frozen(teacher), student, method=method, num_steps=steps,
            start_level=1.0,
        )  # fmt: skip
        return np.abs(array(model.loss(a_batch())["generator_loss"])).mean()

    assert loss("end") < 1e-5


@pytest.mark.parametrize("name, path", TEACHERS, ids=ids(TEACHERS))
def test_progressive_starts_from_its_teacher(name, path):
    teacher = frozen(ROWS[name].build(path))
    model = kf.ProgressiveInterface(teacher, num_steps=(4, 2))
    terms = model.loss(a_batch())
    assert all(np.isfinite(array(v)).all() for v in terms.values())
    x, calls = sampled(model, 2)
    assert np.isfinite(x).all() and len(calls) == 2


HALVED = [("sit", path) for path in ROWS["sit"].on] + [("edm", "ve")]


@pytest.mark.parametrize("kind, path", HALVED, ids=ids(HALVED))
def test_progressive_loss_vanishes_at_the_exact_student(kind, path):
    """Two exact steps of a teacher of 2 N are one of the student of N."""

    def of(steps):
        grid = PATHS[path].levels(steps).tolist()
        net = exact.network(path, "step", FORM[kind], grid=grid)
        return around(kind, net, path)

    for steps in (1, 2, 4):
        model = kf.ProgressiveInterface(
            frozen(of(2 * steps)), of(steps), num_steps=(steps,)
        )
        distance = array(model.loss(a_batch())["distance"]).mean()
        assert distance < 1e-5, (steps, distance)


# Policies.

OBJECTIVES = ("regression", "straight_flow", "tsd", "mip", "flow", "lsd",
              "psd", "mf", "shortcut")  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_policy(objective):
    """Chunks (4, 2) of the exact action law, whatever is observed."""
    interface = flow_map(objective)("linear0", shape=(4, 2), observations=(6,))
    observation = keras.Input((2, 3))
    encoder = keras.Model(observation, keras.layers.Flatten()(observation))
    policy = kf.policies.Policy(
        interface, encoder, act_steps=2, observation_normalizer="identity",
        action_normalizer="identity",
    )  # fmt: skip
    rows = 2000
    seen = np.random.default_rng(0).standard_normal((rows, 2, 3))
    with exact.recording():
        x = policy.predict_chunk(seen.astype("float32"), seed=0)
    assert x.shape == (rows, 4, 2)
    mean, std = np.array(laws.MEAN), np.array(laws.STD)
    tol = 0.02 + 4.0 / (4 * rows) ** 0.5
    if objective in ("regression", "straight_flow", "mip"):
        std = 0.0 * std
    elif objective == "tsd":
        std = 0.09 * std**2 / ((0.9 * std) ** 2 + 0.1**2)
    elif objective == "flow":
        tol += 1.5 / 9
    check_moments(np.asarray(x, "float64"), mean, std, tol)
