"""Every public method and every sampler: the closed form, or a ValueError.

Where the mathematics says that a method or a sampler applies, it must not be
refused; elsewhere it may agree all the same. A refusal comes before the first
network call and names what applies.
"""

import dataclasses
import functools
import re

import exact
import laws
import numpy as np
import pytest
from keras import ops
from laws import PATHS
from rows import ROWS
from rows import trained_for
from rows import trained_times
from sampling_test import expected
from sampling_test import text

import keras_flows as kf

# Models whose methods are all held against the closed form.
MODELS = [
    *(("sit", path) for path in ROWS["sit"].on),
    ("edm", "ve"),
    ("discrete eps", "chain"), ("discrete x0", "chain"),
    ("discrete v", "chain_cosine"),
    ("flow", "linear0"), ("mean_flow", "linear1"),
    ("lsd", "linear0"), ("lsd", "vp"), ("imm", "linear0"),
    ("consistency", "linear1"), ("consistency", "vp"), ("consistency", "ve"),
    ("sct", "trigflow"), ("scd", "trigflow"),
    ("progressive", "linear1"), ("progressive", "vp"),
    ("progressive edm", "ve"),
    ("dmd", "linear1"), ("sid", "vp"), ("dmd edm", "ve"),
    ("regression", "linear0"), ("straight_flow", "linear0"),
    ("tsd", "linear0"), ("mip", "linear0"),
    ("bridge", "brownian"), ("bridge", "sine"), ("bridge", "none"),
]  # fmt: skip
# What a sampler makes of a model hardly depends on the backend: a few of each
# kind run on all three.
EVERYWHERE = {
    ("sit", "linear1"), ("edm", "ve"), ("discrete eps", "chain"),
    ("lsd", "vp"), ("consistency", "ve"), ("progressive", "vp"),
    ("dmd", "linear1"), ("regression", "linear0"), ("tsd", "linear0"),
    ("bridge", "brownian"),
}  # fmt: skip
STUDENT_STEPS = 2
ROWS_OF_STATES = 16
MANY = 4000


@functools.lru_cache(maxsize=None)
def build(name, path):
    return ROWS[name].build(path, **trained_for(ROWS[name], STUDENT_STEPS))


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x), dtype="float32")


class Bridge:
    """Closed forms of x_t = t x_1 + (1 - t) x_0 + gamma(t) z."""

    def __init__(self, gamma):
        self.gamma = {
            "none": lambda t: 0.0 * t,
            "sine": lambda t: np.sin(np.pi * t) ** 2,
            "brownian": lambda t: np.sqrt(t * (1.0 - t)),
        }[gamma]
        self.m, self.s, self.m_0, self.s_0 = map(
            np.array,
            (
                laws.MEAN,
                laws.STD,
                laws.START_MEAN,
                laws.START_STD,
            ),
        )

    def mean(self, t):
        t = t[:, None]
        return t * self.m + (1.0 - t) * self.m_0

    def var(self, t):
        t = t[:, None]
        own = (t * self.s) ** 2 + ((1.0 - t) * self.s_0) ** 2
        return own + self.gamma(t) ** 2

    def velocity(self, x, t):
        """The flow of N(mean, var)."""
        h = 1e-5
        rate = (self.mean(t + h) - self.mean(t - h)) / (2 * h)
        growth = (self.var(t + h) - self.var(t - h)) / (4 * h * self.var(t))
        return rate + growth * (x - self.mean(t))

    def data(self, x, t):
        gain = t[:, None] * self.s**2 / self.var(t)
        return self.m + gain * (x - self.mean(t))

    def score(self, x, t):
        return -(x - self.mean(t)) / self.var(t)

    def jump(self, x, t, r):
        root = np.sqrt(self.var(r) / self.var(t))
        return self.mean(r) + root * (x - self.mean(t))


def oracle_of(name, path):
    return Bridge(path) if ROWS[name].kind == "bridge" else laws.closed(path)


# What must agree, by kind; everything else agrees or raises.
MUST = {
    "flow": {"pred", "score", "denoise"},
    "map": {"pred", "score", "denoise", "average", "jump", "end"},
    "end": {"end"},
    "step": set(),
    "policy": set(),
    "bridge": {"pred"},
}
# Of a student of fixed steps only these mean something at any time.
OF_STEPS = ("pred", "average", "score")
METHODS = ("pred", "average", "score", "denoise", "jump", "end")


def states(name, path):
    """x_t, t, r and the end, at three levels; float32 numbers in float64."""
    rng, o = np.random.default_rng(0), oracle_of(name, path)
    if ROWS[name].kind == "bridge":
        levels = np.array([0.25, 0.5, 0.75, 1.0 - 1e-3])
    elif PATHS[path].chain:
        levels = np.array([0.75, 0.5, 0.25, 1e-3])
    else:
        levels = PATHS[path].levels(4)[1:]
    t = np.repeat(levels[:-1], ROWS_OF_STATES)
    r = np.repeat(levels[1:], ROWS_OF_STATES)
    end = np.full_like(t, levels[-1])
    t, r, end = (v.astype("float32").astype("float64") for v in (t, r, end))
    z = rng.standard_normal((len(t), 2))
    x = o.mean(t) + np.sqrt(o.var(t)) * z
    return x.astype("float32").astype("float64"), t, r, end


def wanted(method, name, path, x, t, r, end):
    """The numbers that would be right, several where a name has two uses."""
    o = oracle_of(name, path)
    if method == "pred":
        return [o.velocity(x, t)]
    if method == "average":
        return [(o.jump(x, t, r) - x) / (r - t)[:, None]]
    if method == "score":
        return [o.score(x, t)]
    if method == "denoise":
        found = [o.data(x, t)]
        if ROWS[name].kind == "end":
            # The clean point that a consistency model's flow ends on.
            alpha = PATHS[path].path.alpha(end)[:, None]
            found.append(o.jump(x, t, end) / alpha)
        return found
    return [o.jump(x, t, r if method == "jump" else end)]


def called(method, model, x, t, r, end):
    x, t, r, end = (tensor(v) for v in (x, t, r, end))
    if method == "average":
        return model.pred(x, t, r)
    if method in ("jump", "end"):
        return model.jump(x, t, r if method == "jump" else end)
    return getattr(model, method)(x, t)


@pytest.mark.parametrize(
    "name, path, method",
    [
        pytest.param(name, path, method, id=f"{name}-{path}-{method}")
        for name, path in MODELS
        for method in METHODS
        if ROWS[name].kind != "step" or method in OF_STEPS
    ],
)
def test_method(name, path, method):
    """The closed form to 1e-3 of its size, or a ValueError."""
    model, at = build(name, path), states(name, path)
    must = method in MUST[ROWS[name].kind]
    if method == "score" and name == "bridge":
        must = path != "none"
    try:
        with exact.recording() as calls:
            found = ops.convert_to_numpy(called(method, model, *at))
    except ValueError as error:
        assert not must, error
        assert not calls
        return
    ok = False
    for want in wanted(method, name, path, *at):
        scale = np.abs(want).max(axis=0) + 0.1
        ok = ok or np.all(np.abs(found - want) < 2e-3 * scale)
    assert ok, f"{text(found[:2])} and not {text(want[:2])}"


LIKELIHOODS = [
    ("sit", "linear1"), ("sit", "vp"), ("edm", "ve"),
    ("discrete eps", "chain"), ("flow", "linear0"), ("lsd", "linear0"),
    ("consistency", "ve"), ("sct", "trigflow"), ("progressive", "linear1"),
    ("dmd", "linear1"), ("regression", "linear0"), ("tsd", "linear0"),
    ("bridge", "brownian"), ("bridge", "none"),
]  # fmt: skip


@pytest.mark.parametrize(
    "name, path", LIKELIHOODS, ids=[f"{n}-{p}" for n, p in LIKELIHOODS]
)
def test_likelihood(name, path):
    """log N(x; m, s^2) within 0.02, or a ValueError before any call."""
    pytest.importorskip("scipy")
    model = build(name, path)
    x = np.array([[0.1, 0.2], [1.0, -0.5]], "float32")
    mean, std = np.array(laws.MEAN), np.array(laws.STD)
    want = -0.5 * (((x - mean) / std) ** 2).sum(1)
    want = want - np.log(std).sum() - np.log(2.0 * np.pi)
    try:
        found = kf.samplers.log_likelihood(model, x, trace="exact")
    except ValueError as error:
        assert ROWS[name].kind not in ("flow", "map"), error
        return
    found = ops.convert_to_numpy(found)
    assert np.all(np.abs(found - want) < 0.02), (found, want)


# Samplers.


@dataclasses.dataclass(frozen=True)
class Walk:
    """A sampler as it is tried.

    Args:
        make: the sampler or its name.
        steps: how many.
        tol: of the moments, in deviations of the data: 3.5 / N of first
            order; 4,000 samples add 4 standard errors.
        calls: network calls in N steps, None where it is not fixed.
        random: whether it draws noise.
    """

    make: object
    steps: int
    tol: float
    calls: object = None
    random: bool = False


def one(n):
    return n


def two(n):
    return 2 * n - 1


SAMPLERS = {
    "euler": Walk("euler", 64, 0.06, one),
    "heun": Walk("heun", 32, 0.03, two),
    "ddim": Walk("ddim", 64, 0.06, one),
    "ddim eta": Walk(kf.samplers.DDIM(eta=1.0), 128, 0.06, one, True),
    "ddpm": Walk("ddpm", 128, 0.06, one, True),
    "dpm_solver": Walk("dpm_solver", 32, 0.03),
    "dpm_solver++": Walk("dpm_solver++", 32, 0.03, one),
    "dpm_solver++sde": Walk("dpm_solver++sde", 64, 0.06, one, True),
    "sa_solver": Walk("sa_solver", 64, 0.06, one, True),
    "unipc": Walk("unipc", 32, 0.03, one),
    "edm": Walk("edm", 64, 0.06, two, True),
    "euler_maruyama": Walk("euler_maruyama", 64, 0.06, one, True),
    "flow_map_jump": Walk("flow_map_jump", 4, 0.03, one),
    "flow_map_jump renoise": Walk(
        kf.samplers.FlowMapJump(renoise=1.0), 4, 0.04, one, True
    ),
    "dormand_prince": Walk("dormand_prince", 9, 0.01),
    "two_step": Walk("two_step", 2, 0.01, one),
}
SOLVERS = {
    "euler", "heun", "ddim", "ddim eta", "ddpm", "dpm_solver", "dpm_solver++",
    "dpm_solver++sde", "sa_solver", "unipc", "edm", "euler_maruyama",
    "dormand_prince",
}  # fmt: skip
# What must not be refused, by kind.
APPLIES = {
    "flow": SOLVERS,
    "map": SOLVERS | {"flow_map_jump", "flow_map_jump renoise"},
    "end": {"flow_map_jump renoise"},
    "step": {"ddim"},
    "bridge": {"euler", "heun", "euler_maruyama", "dormand_prince"},
    "policy": set(),
}


WHOLE = {
    "euler", "heun", "ddim", "ddim eta", "ddpm", "dpm_solver++", "unipc",
    "dpm_solver++sde", "sa_solver", "euler_maruyama",
}  # fmt: skip


def applies(name, path, sampler):
    if name == "bridge" and path == "none" and sampler == "euler_maruyama":
        return False
    if name.startswith("discrete"):
        # Others call at times between the timesteps.
        return sampler in WHOLE
    if name in ("tsd", "mip"):
        return sampler == "two_step"
    return sampler in APPLIES[ROWS[name].kind]


@functools.lru_cache(maxsize=None)
def even(rows):
    return laws.even_noise(rows)


def sampled(model, name, walk, steps):
    row = ROWS[name]
    z = even(MANY if walk.random else 64)
    noise = z
    if row.kind == "bridge":
        noise = np.array(laws.START_MEAN) + np.array(laws.START_STD) * z
    x = model.generate(
        noise=noise.astype("float32"), sampler=walk.make, num_steps=steps,
        seed=0,
    )  # fmt: skip
    return z, ops.convert_to_numpy(x).astype("float64")


def names_a_sampler(message):
    """Whether it says what to take instead."""
    known = [cls.replace("+", r"\+") for cls in SAMPLERS]
    known += ["one_step", "multistep_consistency", "DDIM", "DDPM", "Heun",
              "Euler", "FlowMapJump", "TwoStep", "DormandPrince",
              "num_steps"]  # fmt: skip
    return re.search("|".join(known), message)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    "name, path",
    [
        pytest.param(
            *model,
            id="-".join(model),
            marks=() if model in EVERYWHERE else (pytest.mark.once,),
        )
        for model in MODELS
    ],
)
def test_sampler(name, path, sampler):
    """Moments of the data's law; calls; times on the path; or a refusal."""
    row, walk = ROWS[name], SAMPLERS[sampler]
    model, must = build(name, path), applies(name, path, sampler)
    steps = walk.steps
    if row.fixed and row.kind in ("step", "end"):
        steps = STUDENT_STEPS
    elif path in PATHS and PATHS[path].chain and must:
        # Whole timesteps, which are even in t and not in log(alpha / sigma).
        steps = 125
    try:
        with exact.recording() as calls:
            z, x = sampled(model, name, walk, steps)
    except ValueError as error:
        assert not must, error
        assert not calls, f"refused after {len(calls)} calls: {error}"
        assert names_a_sampler(str(error)), error
        return
    want, std = expected(name, z), np.array(laws.STD)
    tol = walk.tol + (PATHS[path].end_ratio if path in PATHS else 0.0)
    if walk.random:
        tol = tol + 4.0 / (2.0 * MANY) ** 0.5
    found, right = ((v.mean(0), v.std(0)) for v in (x, want))
    error = np.abs(np.array(found) - np.array(right)) / std
    assert np.all(error < tol), (
        f"mean {text(found[0])} std {text(found[1])}, not {text(right[0])} "
        f"and {text(right[1])}"
    )
    layer = exact.exact_layer(model.network)
    calls = [call for call in calls if call.layer is layer]
    if walk.calls is not None:
        assert len(calls) == walk.calls(steps)
    low, high = 1e-3, 1.0 - 1e-3
    if row.kind != "bridge":
        low, high = sorted((PATHS[path].t_noise, PATHS[path].t_last))
    times = np.array([call.t[0] for call in calls])
    assert low * (1 - 1e-5) <= times.min(), times.min()
    assert times.max() <= high * (1 + 1e-5), times.max()
    if row.fixed and row.kind != "flow":
        known = trained_times(model)
        gap = np.abs(known[None] - times[:, None]).min(axis=1)
        assert np.all(gap <= 1e-4 * np.abs(times) + 1e-6), (
            f"calls at {text(times)}, trained at {text(known)}"
        )


UNTRAINED = [
    ("progressive", "linear1"), ("progressive", "vp"),
    ("progressive edm", "ve"), ("dmd", "linear1"), ("dmd edm", "ve"),
    ("regression", "linear0"), ("straight_flow", "linear0"),
    ("tsd", "linear0"), ("mip", "linear0"),
]  # fmt: skip


@pytest.mark.parametrize("steps", [3, 8])
@pytest.mark.parametrize(
    "name, path", UNTRAINED, ids=[f"{n}-{p}" for n, p in UNTRAINED]
)
def test_numbers_of_steps_that_were_not_trained_are_refused(name, path, steps):
    model = build(name, path)
    with exact.recording() as calls:
        with pytest.raises(ValueError, match="num_steps"):
            model.generate(noise=even(64), num_steps=steps, seed=0)
    assert not calls
