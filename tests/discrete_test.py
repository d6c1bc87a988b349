"""DDPM in discrete time: tables, losses and samplers against two truths.

One is the published code (see tests/published/ddpm_reference.py), the other
Gaussian data, for which every prediction is known in closed form.
"""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from oracle import Oracle
from oracle import Path
from published import ddpm_toy as toy
from samplers_test import affine
from samplers_test import build
from samplers_test import exact
from samplers_test import law_after
from samplers_test import noise
from samplers_test import slope

import keras_flows as kf

EXPECTED = np.load(pathlib.Path(__file__).parent / "published" / "ddpm.npz")
KINDS = ("eps", "x0", "v")


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, dtype="float32"))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def path(*args):
    return kf.interpolants.DiscreteVariancePreserving(*args)


# Tables.


def test_tables_are_the_published():
    for schedule in ("linear", "cosine"):
        p = path(schedule)
        found = np.stack([
            p.betas,
            p.alphas_cumprod,
            p.posterior_variance,
            p.posterior_log_variance,
            p.posterior_data_coefficient,
        ])[:, ::111]  # fmt: skip
        assert found.dtype == np.float64
        np.testing.assert_allclose(
            found, EXPECTED[f"tables_{schedule}"], rtol=1e-10
        )


def test_tables_in_closed_form():
    k = np.arange(1000)
    np.testing.assert_allclose(path().betas, 1e-4 + 0.0199 * k / 999)
    # log abar = sum log(1 - beta), about 4e-5 at the end (arXiv 2006.11239).
    np.testing.assert_allclose(path().alphas_cumprod[-1], 4.036e-5, rtol=1e-3)

    def f(t):
        return np.cos(np.pi / 2 * (t + 0.008) / 1.008) ** 2

    # Until beta is cut off at 0.999, abar = f(t) / f(0).
    np.testing.assert_allclose(
        path("cosine").alphas_cumprod[:-1], f((k[:-1] + 1) / 1000) / f(0)
    )
    roots = np.sqrt(path("scaled_linear").betas)
    np.testing.assert_allclose(roots[[0, -1]] ** 2, [0.00085, 0.012])
    np.testing.assert_allclose(np.diff(roots, 2), 0, atol=1e-15)
    # Half the timesteps have twice the betas, and betas can be given.
    np.testing.assert_allclose(path("linear", 500).betas[0], 2e-4)
    given = path(path("linear", 500).betas)
    assert given.num_timesteps == 500
    assert given == path(given.betas) != path("linear", 500)
    np.testing.assert_array_equal(given.betas, path("linear", 500).betas)


def test_timesteps_are_the_published():
    for steps in toy.STEPS[1:]:
        k = path().timesteps(steps)
        np.testing.assert_array_equal(k, EXPECTED[f"timesteps_{steps}"])
        times = kf.samplers.DDPM().times(path(), steps)
        np.testing.assert_allclose(times[:-1], (k[::-1] + 1) / 1000)
        assert times[-1] == 0.0
    # The published code takes timestep 0 for one step, which is no noise.
    assert path().timesteps(1) == [999]
    shifted = path().timesteps(4, shift=3.0)
    f = np.arange(4) / 3
    np.testing.assert_allclose(shifted / 999, 3 * f / (1 + 2 * f), atol=1e-3)


@pytest.mark.once
def test_interpolant_is_the_chain():
    """alpha^2 = abar at the timesteps; derivatives and inverse between."""
    for schedule in ("linear", "cosine"):
        p = path(schedule)
        t = tensor((np.arange(1000) + 1) / 1000)
        np.testing.assert_array_equal(array(p.timestep(t)), np.arange(1000))
        alpha, sigma = array(p.alpha(t)), array(p.sigma(t))
        np.testing.assert_allclose(alpha, np.sqrt(p.alphas_cumprod), rtol=3e-6)
        np.testing.assert_allclose(
            sigma, np.sqrt(1 - p.alphas_cumprod), rtol=1e-6
        )
        # beta is constant between two timesteps.
        t = (np.arange(1, 990, 47) + 0.37) / 1000
        k = np.floor(t * 1000).astype(int)
        rate = 500 * np.log1p(-p.betas[k])
        alpha, sigma = (array(f(tensor(t))) for f in (p.alpha, p.sigma))
        np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-6)
        share = t * 1000 - k
        np.testing.assert_allclose(
            alpha**2,
            p.alphas_cumprod[k - 1] * (1 - p.betas[k]) ** share,
            rtol=2e-5,
        )
        np.testing.assert_allclose(
            array(p.alpha_dot(tensor(t))), rate * alpha, rtol=1e-5
        )
        np.testing.assert_allclose(
            array(p.sigma_dot(tensor(t))), -rate * alpha**2 / sigma, rtol=1e-4
        )
        ratio = tensor(sigma / alpha)
        np.testing.assert_allclose(array(p.time_from_ratio(ratio)), t, 1e-4)


# The published code.


@keras.saving.register_keras_serializable(package="tests")
class Toy(keras.layers.Layer):
    """The closed form of tests/published/ddpm_toy.py."""

    def __init__(self, kind, learn_sigma, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.learn_sigma = kind, learn_sigma

    def call(self, x, t, labels):
        return toy.output(ops, x, t, labels, self.kind, self.learn_sigma)

    def get_config(self):
        return {
            **super().get_config(),
            "kind": self.kind,
            "learn_sigma": self.learn_sigma,
        }


class Fixed(kf.DiscreteInterface):
    """Takes its noise and timesteps from the published batch."""

    def sample_n(self, shape):
        return tensor(toy.batch()[1])

    def sample_t(self, shape):
        return tensor((toy.batch()[2] + 1) / 1000)


def published(kind, learn_sigma, schedule="linear", cls=kf.DiscreteInterface):
    inputs = {
        "x": keras.Input(toy.SHAPE, name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    y = Toy(kind, learn_sigma)(*inputs.values())
    return cls(
        keras.Model(inputs, y),
        schedule,
        prediction=kind,
        learn_sigma=learn_sigma,
        null_label=toy.CLASSES,
        cond_drop_ratio=0.0,
        ema=None,
    )


@pytest.mark.parametrize("learn_sigma", [False, True])
@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_losses_are_the_published(kind, learn_sigma):
    model = published(kind, learn_sigma, cls=Fixed)
    x, _, _, labels = toy.batch()
    terms = model.loss(tensor(x), ops.convert_to_tensor(labels))
    expected = EXPECTED[f"losses_{kind}_{learn_sigma}"]
    names = {"loss": 0, "mse": 1, "vlb": 2}
    assert set(terms) == set(list(names)[: 3 if learn_sigma else 2])
    for name, value in terms.items():
        # Up to 8 bits at k = 0; exponentials of float32 logarithms.
        np.testing.assert_allclose(
            array(value), expected[names[name]], rtol=1e-4, atol=1e-5
        )


class Recording:
    """Keeps the states of a walk."""

    def walk(self, advance, *args):
        states = []

        def recorded(*inputs):
            x, state = advance(*inputs)
            states.append(array(x))
            return x, state

        super().walk(recorded, *args)
        n = len(states)
        return tensor([states[i] for i in (0, n // 2, n - 1)])


class RecordingDDPM(Recording, kf.samplers.DDPM):
    pass


class RecordingDDIM(Recording, kf.samplers.DDIM):
    pass


@pytest.mark.parametrize(
    "name",
    [
        name
        if name == "learned"
        else pytest.param(name, marks=pytest.mark.once)
        for name in toy.WALKS
    ],
)
def test_walks_are_the_published(name):
    """States after the first, the middle and the last step."""
    kind, learn_sigma, schedule, sampler, steps, options = toy.WALKS[name]
    model = published(kind, learn_sigma, schedule)
    cls = {"ddpm": RecordingDDPM, "ddim": RecordingDDIM}[sampler]
    guidance = {}
    if learn_sigma:
        guidance = {
            "guidance_scale": toy.SCALE,
            "guidance_channels": toy.CHANNELS,
        }
    states = model.generate(
        condition=toy.labels(), num_steps=steps, seed=0,
        sampler=cls(**options), **guidance,
    )  # fmt: skip
    np.testing.assert_allclose(
        array(states), EXPECTED[f"walk_{name}"], atol=1e-4
    )


# Gaussian data.


@dataclasses.dataclass(frozen=True)
class Chain(Path):
    """DDPM's linear chain at whole timesteps, written out again."""

    def _log(self, t):
        rates = np.log1p(-np.linspace(1e-4, 0.02, 1000))
        table = 0.5 * np.append(0.0, np.cumsum(rates))
        return table[np.rint(np.asarray(t) * 1000).astype(int)]

    def alpha(self, t, xp=np):
        return np.exp(self._log(t))

    def sigma(self, t, xp=np):
        return np.sqrt(-np.expm1(2 * self._log(t)))


class ExactDiscrete(keras.Model):
    """E[n | x_t], E[x | x_t] or E[v | x_t] for the oracle's Gaussian."""

    input_names = ("x", "t")

    def __init__(self, oracle, kind):
        super().__init__(autocast=False)
        self.oracle, self.kind = oracle, kind
        t = np.arange(1001) / 1000
        self.tables = np.stack([oracle.path.alpha(t), oracle.path.sigma(t)], 1)
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def call(self, inputs, training=False):
        x, k = inputs["x"], ops.cast(inputs["t"], "int32") + 1
        rows = ops.take(tensor(self.tables), k, axis=0)
        alpha, sigma = rows[:, :1], rows[:, 1:]
        m, s = tensor(self.oracle.m), tensor(self.oracle.s)
        var = ops.square(alpha * s) + ops.square(sigma)
        off = (x - alpha * m) / var
        data, noise = m + alpha * ops.square(s) * off, sigma * off
        if self.kind == "x0":
            return self.scale * data
        if self.kind == "eps":
            return self.scale * noise
        return self.scale * (alpha * noise - sigma * data)


def gaussian(kind="eps", **kwargs):
    oracle = Oracle(Chain())
    model = kf.DiscreteInterface(
        ExactDiscrete(oracle, kind), prediction=kind, ema=None, **kwargs
    )
    return model, oracle


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_are_exact(kind, rng):
    model, oracle = gaussian(kind)
    t = (rng.integers(0, 1000, 64) + 1) / 1000
    t[:2] = 0.001, 1.0
    x = oracle.sample(rng, t)
    x_t, at = tensor(x), tensor(t)
    data = array(model.denoise(x_t, at))
    # x = (x_t - sigma n) / alpha is 157 times as inexact at the noise end.
    slack = 1e-6 / (oracle.path.alpha(t)[:, None] if kind == "eps" else 1.0)
    assert np.all(np.abs(data - oracle.data(x, t)) < 1e-5 + slack)
    # And n = (x_t - alpha x) / sigma at the data end.
    sigma = oracle.path.sigma(t)[:, None]
    off = np.abs(array(model.score(x_t, at)) - oracle.score(x, t))
    assert np.all(off < 1e-4 + 1e-6 / sigma**2)
    k = np.rint(t * 1000).astype(int) - 1
    rate = 500 * np.log1p(-model.interpolant.betas[k])[:, None]
    # dx_t/dt = alpha' / alpha (x_t + score) when variance is preserved.
    velocity = rate * (x + oracle.score(x, t))
    np.testing.assert_allclose(
        array(model.pred(x_t, at)), velocity, rtol=2e-4, atol=2e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_ddim_converges_to_the_flow(kind, rng):
    model, oracle = gaussian(kind)
    z, steps, errors = noise(rng, oracle), (20, 40, 80), []
    expected = oracle.jump(z.astype("float64"), np.ones(len(z)), 0 * z[:, 0])
    for n in steps:
        x = model.generate(noise=z, num_steps=n, sampler="ddim")
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert errors[-1] < 0.02
    assert abs(slope(steps, errors) - 1) < 0.3, errors


@pytest.mark.once
@pytest.mark.parametrize("sampler, tol", [("euler", 0.06), ("heun", 0.01)])
def test_other_samplers_follow_the_flow(sampler, tol, rng):
    model, oracle = gaussian()
    z = noise(rng, oracle)
    expected = oracle.jump(z.astype("float64"), np.ones(len(z)), 0 * z[:, 0])
    x = model.generate(noise=z, num_steps=100, sampler=sampler)
    assert np.abs(array(x) - expected).max() < tol


def posterior_law(oracle, times, variance):
    """The chain's law with the exact E[x | x_t], in float64."""
    o, mean, var = oracle, np.zeros(2), np.ones(2)
    for t, r in zip(times[:-1], times[1:], strict=True):
        abar, next_abar = (o.path.alpha(v) ** 2 for v in (t, r))
        beta = 1 - abar / next_abar
        c_x = np.sqrt(next_abar) * beta / (1 - abar)
        c_t = np.sqrt(1 - beta) * (1 - next_abar) / (1 - abar)
        gain = np.sqrt(abar) * np.array(o.s) ** 2 / o.var(t)
        a = c_t + c_x * gain
        added = beta * (1 - next_abar) / (1 - abar)
        added = beta if variance == "large" else added
        mean = a * mean + c_x * (np.array(o.m) - gain * o.mean(t))
        var = a**2 * var + (added if r > 0 else 0.0)
    return mean, var


@pytest.mark.once
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_law(variance):
    model, oracle = gaussian()
    sampler, errors, steps = kf.samplers.DDPM(variance), [], (64, 128, 256)
    for n in steps:
        times = sampler.times(model.interpolant, n)
        mean, var = law_after(sampler, model, n)
        expected = posterior_law(oracle, times, variance)
        np.testing.assert_allclose(mean, expected[0], atol=1e-4)
        np.testing.assert_allclose(var, expected[1], rtol=2e-4)
        errors.append(np.abs(var - np.array(oracle.s) ** 2).max())
    assert errors[-1] < 0.04
    assert abs(slope(steps, errors) - 1) < 0.3, errors


@pytest.mark.once
def test_samples_follow_the_law():
    model, oracle = gaussian()
    rows = 20_000
    z = np.random.default_rng(1).standard_normal((rows, 2)).astype("float32")
    x = array(model.generate(noise=z, num_steps=20, sampler="ddpm", seed=3))
    times = kf.samplers.DDPM().times(model.interpolant, 20)
    mean, var = posterior_law(oracle, times, "small")
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(var / rows))
    assert np.all(np.abs(x.var(0) - var) < 4 * var * np.sqrt(2 / rows))


@pytest.mark.once
@pytest.mark.parametrize(
    "kind, weighting",
    [(kind, "simple") for kind in KINDS] + [("v", "min_snr")],
)
def test_exact_network_has_the_least_loss(kind, weighting, rng):
    """E loss = E weight Var[target | x_t], and more when perturbed."""
    model, oracle = gaussian(kind, weighting=weighting, seed=1)
    rows, s2 = 20_000, np.array(oracle.s) ** 2
    times = []

    class Kept(type(model)):
        def sample_t(self, shape):
            times.append(super().sample_t(shape))
            return times[-1]

    model.__class__ = Kept
    x = tensor(oracle.sample_data(rng, rows))
    loss = array(model.loss(x)["loss"])
    t = array(times[0])
    k = np.rint(t * 1000)
    assert k.min() == 1 and k.max() == 1000
    np.testing.assert_allclose(k.mean(), 500.5, atol=5 * 289 / rows**0.5)
    alpha, sigma = oracle.path.alpha(t)[:, None], oracle.path.sigma(t)[:, None]
    snr = (alpha / sigma) ** 2
    spread = {
        "eps": alpha**2 * s2 / oracle.var(t),
        "x0": sigma**2 * s2 / oracle.var(t),
        "v": s2 / oracle.var(t),
    }[kind]
    if weighting == "min_snr":
        spread = (
            spread
            * np.minimum(snr, 5.0)
            / ({"eps": snr, "x0": 1.0, "v": snr + 1.0}[kind])
        )
    excess = loss - spread.mean(1)
    assert abs(excess.mean()) < 4 * excess.std() / rows**0.5
    other, _ = gaussian(kind, weighting=weighting, seed=1)  # the same draws
    other.network.scale.assign(1.3)
    worse = array(other.loss(x)["loss"]) - loss
    assert worse.mean() > 4 * worse.std() / rows**0.5


# DDPM and DDIM on the library's other interpolants.


@pytest.mark.once
@pytest.mark.parametrize(
    "case",
    ["linear, noise at 0", "trigonometric, noise at 1", "trigflow"],
)
def test_ddim_order_on_other_interpolants(case, rng):
    model, oracle = build(case, n_mu=0.3, n_sigma=1.2)
    z, steps = noise(rng, oracle), (16, 32, 64)
    expected, errors = exact(model, oracle, z), []
    for n in steps:
        x = model.generate(noise=z, num_steps=n, sampler="ddim")
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert abs(slope(steps, errors) - 1) < 0.3, errors
    if case.startswith("linear"):
        euler = model.generate(noise=z, num_steps=16, sampler="euler")
        ddim = model.generate(noise=z, num_steps=16, sampler="ddim")
        np.testing.assert_allclose(array(ddim), array(euler), atol=2e-5)


@pytest.mark.once
@pytest.mark.parametrize("eta", [0.5, 1.0, None])
@pytest.mark.parametrize(
    "case, n_mu, n_sigma",
    [("linear, noise at 1", 0.3, 1.7), ("trigonometric, noise at 0", 0.0, 1.0)],
)
def test_noise_keeps_the_law_on_other_interpolants(case, n_mu, n_sigma, eta):
    """Mean and variance approach the data's at order 1."""
    model, oracle = build(case, n_mu, n_sigma)
    end = np.float64(model.interpolant.t_data)
    sampler = kf.samplers.DDPM() if eta is None else kf.samplers.DDIM(eta)
    steps = (32, 64, 128)
    laws = [law_after(sampler, model, n) for n in steps]
    errors = [np.abs(var - oracle.var(end)).max() for _, var in laws]
    means = [np.abs(mean - oracle.mean(end)).max() for mean, _ in laws]
    assert errors[-1] < 0.05 and means[-1] < 0.03
    assert abs(slope(steps, errors) - 1) < 0.35, errors


def test_edm_by_ddim_and_ddpm(rng):
    """On EDM's own grid, where the last step goes to sigma = 0."""
    model, oracle = build("variance exploding")
    z = noise(rng, oracle)
    for name, kwargs in (("DDIM", {}), ("DDPM", {"variance": "small"})):
        sampler = getattr(kf.samplers, name)(grid="karras", **kwargs)
        x = array(model.generate(noise=z, num_steps=200, sampler=sampler))
        if name == "DDIM":
            np.testing.assert_allclose(x, exact(model, oracle, z), atol=0.05)
    mean, var = law_after(sampler, model, 200)
    np.testing.assert_allclose(mean, oracle.m, atol=0.02)
    np.testing.assert_allclose(var, np.array(oracle.s) ** 2, rtol=0.1)


def test_ddpm_is_ddim_with_all_its_noise():
    model, _ = gaussian()
    times = kf.samplers.DDPM().times(model.interpolant, 20)
    ancestral = affine(kf.samplers.DDPM("small"), model, times)
    full = affine(kf.samplers.DDIM(eta=1.0), model, times)
    for one, other in zip(ancestral, full, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.all(ancestral[2][:-1] > 0) and np.all(ancestral[2][-1] == 0)


# Training, saving, errors.


def linear(learn_sigma):
    """The smallest labelled network there is."""
    inputs = {
        "x": keras.Input((2,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    label = keras.layers.Embedding(4, 2)(inputs["condition"])
    layer = keras.layers.Dense(4 if learn_sigma else 2, name="final")
    return keras.Model(inputs, layer(inputs["x"] + label))


@pytest.mark.parametrize(
    "kind, learn_sigma",
    [("eps", False), ("x0", False), ("v", False), ("eps", True)],
)
def test_fit_and_save(kind, learn_sigma, tmp_path, rng):
    model = kf.DiscreteInterface(
        linear(learn_sigma),
        np.linspace(0.01, 0.3, 20),
        prediction=kind,
        learn_sigma=learn_sigma,
        weighting="min_snr",
        time_scale=0.05,
        null_label=3,
        ema=0.5 if learn_sigma else None,
        seed=0,
    )
    model.compile("sgd")
    x = rng.standard_normal((8, 2)).astype("float32")
    history = model.fit(x, np.arange(8) % 3, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"][0])
    assert ("vlb" in history) == learn_sigma
    assert model.default_num_steps == 20
    model.save_to_preset(tmp_path / "preset")
    loaded = kf.Interface.from_preset(tmp_path / "preset")
    configs = [m.get_config() for m in (loaded, model)]
    for config in configs:
        # A functional network's dict of inputs comes back in another order.
        del config["network"]
    assert configs[0] == configs[1]
    args = tensor(x), tensor(np.full(8, 0.35))
    for predictions in zip(
        *(m.denoise_and_share(*args, condition=np.arange(8) % 4)
          for m in (model, loaded)), strict=True,
    ):  # fmt: skip
        if predictions[0] is not None:
            np.testing.assert_allclose(*map(array, predictions), atol=1e-6)


def test_bound_trains_the_variances_alone(rng):
    model = kf.DiscreteInterface(
        linear(True), null_label=3, learn_sigma=True, ema=None
    )
    bias = model.network.get_layer("final").bias
    x, y = tensor(rng.standard_normal((4, 2))), ops.zeros((4,), "int32")

    def trained_by(name):
        _, (gradient,) = kf.ops.value_and_gradients(
            lambda: ops.mean(model.loss(x, y)[name]), [bias]
        )
        return list(array(gradient) != 0)

    assert trained_by("vlb") == [False] * 2 + [True] * 2
    assert trained_by("mse") == [True] * 2 + [False] * 2


def test_published_dit_has_all_its_channels():
    """What a converted DiT needs: its outputs before half are dropped."""
    dit = kf.networks.DiT(
        (4, 4, 2), 2, 16, 1, 2, num_classes=3, learn_sigma=True
    )
    whole = keras.Model(dit.input, dit.get_layer("unpatchify").output)
    model = kf.DiscreteInterface(
        whole, learn_sigma=True, null_label=3, ema=None
    )
    assert model.network.output.shape == (None, 4, 4, 4)
    with pytest.raises(ValueError, match="`network`.*4 channels.*Received 2"):
        kf.DiscreteInterface(dit, learn_sigma=True, ema=None)


def mlp(**kwargs):
    return kf.networks.MLP(2, 8, 1, **kwargs)


ERRORS = {
    "schedule": (
        lambda: kf.DiscreteInterface(mlp(), "quadratic"),
        "`schedule`.*cosine.*quadratic",
    ),
    "prediction": (
        lambda: kf.DiscreteInterface(mlp(), prediction="noise"),
        "`prediction`.*noise",
    ),
    "weighting": (
        lambda: kf.DiscreteInterface(mlp(), weighting="snr"),
        "`weighting`.*min_snr.*snr",
    ),
    "betas": (
        lambda: kf.DiscreteInterface(mlp(), [0.1, 1.0]),
        "betas.*between 0 and 1.*0.1 to 1",
    ),
    "few timesteps": (
        lambda: kf.DiscreteInterface(mlp(), num_timesteps=10),
        "betas.*between 0 and 1.*2",
    ),
    "betas and their number": (
        lambda: kf.DiscreteInterface(mlp(), [0.1, 0.2], 3),
        "`num_timesteps`.*3 for 2 betas",
    ),
    "channels": (
        lambda: kf.DiscreteInterface(mlp(), learn_sigma=True),
        "`network`.*4 channels.*Received 2",
    ),
    "num_steps": (
        lambda: kf.DiscreteInterface(mlp(), num_timesteps=50).generate(
            2, num_steps=51
        ),
        "`num_steps`.*50.*num_steps=51",
    ),
    "variance": (lambda: kf.samplers.DDPM("fixed"), "`variance`.*fixed"),
    "variance of a model without": (
        lambda: kf.SiTInterface(mlp(), ema=None).generate(
            2, num_steps=2, sampler=kf.samplers.DDPM("learned")
        ),
        "learned.*learn_sigma=True",
    ),
    "eta": (lambda: kf.samplers.DDIM(eta=2.0), "`eta`.*2.0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make()
