"""Fast solvers against published ones, the exact flow, and exact densities.

The data are the Gaussian mixture of tests/published/solver_toy.py, whose
denoiser is known on every path. Most tests take float64 (PyTorch's own), so
that high orders can be seen.
"""

import dataclasses
import functools
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from published import solver_toy as toy
from scipy.integrate import solve_ivp
from scipy.stats import norm

import keras_flows as kf
from keras_flows.samplers.base import batch_of
from keras_flows.samplers.grids import time_grid

EXPECTED = np.load(
    pathlib.Path(__file__).parent / "published" / "solver_walks.npz"
)
MIXTURE = toy.Mixture()
paths = kf.interpolants


class Exact:
    """The mixture as samplers see a model, in the dtype of x."""

    def __init__(self, path, mixture=MIXTURE, n_mu=0.0, n_sigma=1.0):
        self.interpolant, self.mixture = path, mixture
        self.n_mu, self.n_sigma = n_mu, n_sigma
        self.calls = 0

    def denoise(self, x, t):
        self.calls += 1
        path = self.interpolant
        alpha, sigma = (kf.ops.bcast_right(f(t), x)
                        for f in (path.alpha, path.sigma))  # fmt: skip
        return self.mixture.denoise(
            ops, x - sigma * self.n_mu, alpha, sigma * self.n_sigma
        )

    def pred(self, x, t):
        return self.interpolant.velocity_from_data(x, self.denoise(x, t), t)

    def pred_and_score(self, x, t):
        v = self.pred(x, t)
        return v, self.interpolant.score_from_velocity(
            x, v, t, self.n_mu, self.n_sigma
        )


def tensor(x, dtype="float64"):
    return ops.convert_to_tensor(np.asarray(x, dtype=dtype))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def walk(sampler, model, x, times, noises=None, lowered=True):
    """All states, by `advance` on times that need not reach the ends.

    `lowered`: whether the last steps are told that they are the last.
    """
    x, most = tensor(x), max(1, sampler.history)
    steps, states = len(times) - 1, [x]
    state = sampler.begin(model.interpolant, steps)
    for i, (t, r) in enumerate(zip(times[:-1], times[1:])):
        x, state = sampler.advance(
            model, x, batch_of(float(t), x), batch_of(float(r), x),
            tensor(noises[i]) if sampler.stochastic else None,
            state, min(steps - 1 - i, most) if lowered else most,
        )  # fmt: skip
        states.append(x)
    return np.stack([array(x) for x in states])


def time_of(path, ratio):
    return array(path.time_from_ratio(tensor(ratio)))


# The published code.


WALKS = {
    "2m": kf.samplers.DPMSolverPP(2),
    "3m": kf.samplers.DPMSolverPP(3, curvature=0.5),
    "sde_2m": kf.samplers.DPMSolverPP(2, tau=1.0),
    "singlestep_2": kf.samplers.DPMSolver(2),
    "singlestep_3": kf.samplers.DPMSolver(3),
    "unipc_1_bh1": kf.samplers.UniPC(1, "bh1"),
    "unipc_2_bh1": kf.samplers.UniPC(2, "bh1"),
    "unipc_2_bh2": kf.samplers.UniPC(2, "bh2"),
    "unipc_3_bh2": kf.samplers.UniPC(3, "bh2"),
    "flow_unipc": kf.samplers.UniPC(2),
    "flow_2m": kf.samplers.DPMSolverPP(2),
    "sa": kf.samplers.SASolver(2, 2),
    "sa_p3c4": kf.samplers.SASolver(3, 4),
    "ddim": kf.samplers.DDIM(),
    "edm_euler": kf.samplers.EDM(
        *(toy.CHURN[f"s_{k}"] for k in ("churn", "tmin", "tmax", "noise")),
        order=1,
    ),
    "edm_2m": kf.samplers.DPMSolverPP(2),
    "edm_3m": kf.samplers.DPMSolverPP(3, curvature=0.5),
    "edm_sde_2m": kf.samplers.DPMSolverPP(2, tau=1.0),
}


def published_path(name):
    if name.startswith("flow"):
        return paths.Linear(1.0)
    if name.startswith("edm"):
        return paths.VarianceExploding()
    if name.startswith("sa"):
        # tau acts on timesteps 200 to 800, by their noise level.
        return paths.DiscreteVariancePreserving()
    return paths.VariancePreserving()


def published_times(path, name):
    sigmas = EXPECTED[f"sigmas_{name}"]
    if name.startswith(("flow", "edm")):
        return sigmas
    return time_of(path, sigmas)


@pytest.mark.once
@pytest.mark.parametrize("name", WALKS)
def test_walks_are_the_published(name):
    """Every state of diffusers' schedulers, whose own float32 is coarser."""
    sampler, path = WALKS[name], published_path(name)
    times = published_times(path, name)
    expected = EXPECTED[f"states_{name}"]
    start, *noises = toy.noises(len(times) - 1)
    keep = slice(None)
    if name.startswith("singlestep"):
        keep = [*range(0, len(times) - 1, sampler.order), len(times) - 1]
    start = start * (80.0 if name.startswith("edm") else 1.0)
    states = walk(sampler, Exact(path), start, times[keep], noises)
    np.testing.assert_allclose(states, expected[keep], rtol=1e-4, atol=1e-4)


# The exact flow.


def flow(mixture, z, start, end, tol=1e-9):
    """x / sigma at lambda = end from z at lambda = start, by SciPy."""

    def slope(lam, y):
        y = y.reshape(z.shape)
        alpha, sigma = 1 / np.sqrt(1 + np.exp([-2 * lam, 2 * lam]))
        data = mixture.denoise(np, y * sigma, alpha, sigma)
        return (np.exp(lam) * data).ravel()

    found = solve_ivp(
        slope, (start, end), z.ravel(), method="DOP853", rtol=tol, atol=tol
    )
    return found.y[:, -1].reshape(z.shape)


# (Sampler, its order, dimensions, two numbers of steps). Correctors raise
# the order by one.
ORDERS = [
    (kf.samplers.DPMSolverPP(2), 2, 2, (96, 192)),
    (kf.samplers.DPMSolverPP(3), 3, 2, (48, 96)),
    (kf.samplers.DPMSolverPP(3), 3, 64, (48, 96)),
    (kf.samplers.DPMSolver(2), 2, 2, (16, 32)),
    (kf.samplers.DPMSolver(3), 3, 2, (12, 24)),
    (kf.samplers.DPMSolver(3), 3, 64, (12, 24)),
    (kf.samplers.UniPC(1), 2, 2, (24, 48)),
    (kf.samplers.UniPC(2), 3, 64, (64, 128)),
    (kf.samplers.UniPC(2, "bh1"), 3, 2, (48, 96)),
    (kf.samplers.UniPC(3), 4, 2, (32, 64)),
    (kf.samplers.UniPC(3), 4, 64, (32, 64)),
    (kf.samplers.UniPC(3, corrector=False), 3, 2, (48, 96)),
    (kf.samplers.SASolver(2, 2, tau=0.0), 2, 2, (48, 96)),
    (kf.samplers.EDM(0.0), 2, 2, (24, 48)),
]


@functools.lru_cache
def smooth(dim):
    """A milder mixture, noise, and where the flow takes it."""
    mixture, z = toy.Mixture(dim, std=0.7), toy.noises(0, dim)[0][:4]
    return mixture, z, flow(mixture, z, -4.0, 0.5, 1e-11)


@pytest.mark.once
@pytest.mark.parametrize("case", range(len(ORDERS)))
def test_order(case):
    """In float64, on a grid whose first steps, of low order, are small."""
    sampler, order, dim, steps = ORDERS[case]
    path, errors = paths.Linear(case % 2), []
    mixture, z, expected = smooth(dim)
    for n in steps:
        lam = -4.0 + 4.5 * np.linspace(0.0, 1.0, n + 1) ** 2
        times = time_of(path, np.exp(-lam))
        sigma = array(path.sigma(tensor(times)))
        x = walk(
            sampler, Exact(path, mixture), z * sigma[0], times, lowered=False
        )[-1]
        errors.append(np.sqrt(np.mean((x / sigma[-1] - expected) ** 2)))
    slope = np.log2(errors[0] / errors[1])
    assert errors[1] < 0.02
    assert abs(slope - order) < 0.3, (slope, errors)


class ExactNetwork(keras.Model):
    """The mixture's velocity on a path, as a network of {"x", "t"}."""

    input_names = ("x", "t")

    def __init__(self, path, mixture=MIXTURE):
        super().__init__(autocast=False)
        self.exact = Exact(path, mixture)
        self.scale = self.add_weight((), "ones", name="scale")
        self.built = True

    def call(self, inputs, training=False):
        return self.scale * self.exact.pred(inputs["x"], inputs["t"])


def model_of(path, mixture=MIXTURE):
    return kf.FlowMapInterface(
        ExactNetwork(path, mixture), "flow", interpolant=path, ema=None
    )


def test_order_in_generate():
    """On every backend, compiled and in float32."""
    model = model_of(paths.Linear(1.0), toy.Mixture(std=0.7))
    z = toy.noises(0)[0].astype("float32")
    # Pure noise: as good as from sigma / alpha = e^9.
    expected = flow(model.network.exact.mixture, z, -9.0, 9.0) * np.exp(-9.0)
    errors = []
    for n in (16, 32):
        x = model.generate(
            noise=z, num_steps=n, sampler=kf.samplers.UniPC(1, "bh1")
        )
        errors.append(np.sqrt(np.mean((array(x) - expected) ** 2)))
    assert errors[1] < 0.01
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.3, errors


def end_errors(path, samplers, z, steps, mixture=MIXTURE):
    """Distance from the flow's end, and network calls, of each sampler."""
    expected = flow(mixture, z, -9.0, 9.0) * np.exp(-9.0)
    start = z * array(path.sigma(tensor(path.t_noise)))
    found = []
    for sampler in samplers:
        model = Exact(path, mixture)
        x = walk(sampler, model, start, sampler.times(path, steps))[-1]
        assert model.calls == steps
        found.append(np.sqrt(np.mean((x - expected) ** 2)))
    return found


@pytest.mark.once
@pytest.mark.parametrize(
    "path, mixture",
    [
        (paths.Linear(0.0), MIXTURE),
        (paths.Linear(1.0), MIXTURE),
        # Its components are as far apart as the others' in 2-D.
        (
            paths.VarianceExploding(),
            toy.Mixture(64, std=0.7, spread=0.7 / 32**0.5),
        ),
    ],
    ids=["linear 0", "linear 1", "64-D"],
)
def test_errors_at_ten_calls(path, mixture):
    z = np.random.default_rng(0).standard_normal((256, mixture.dim))
    euler, dpm, unipc = end_errors(
        path,
        (kf.samplers.Euler(), kf.samplers.DPMSolverPP(), kf.samplers.UniPC()),
        z,
        10,
        mixture,
    )
    assert dpm < euler / 5
    assert unipc < dpm


def sliced_distance(x):
    """Mean |quantile of x - that of the mixture| over directions."""
    found = []
    for angle in np.linspace(0.0, np.pi, 8, endpoint=False):
        d = np.array([np.cos(angle), np.sin(angle)])
        grid = np.linspace(-5.0, 5.0, 20001)
        law = sum(
            w * norm.cdf(grid, mean @ d, std)
            for w, mean, std in zip(
                MIXTURE.weights, MIXTURE.means, MIXTURE.stds
            )
        )
        at = (np.arange(len(x)) + 0.5) / len(x)
        found.append(np.abs(np.sort(x @ d) - np.interp(at, law, grid)).mean())
    return np.mean(found)


@pytest.mark.once
@pytest.mark.parametrize("name", ["dpm_solver", "dpm_solver++", "unipc"])
def test_the_default_grid_fits_the_path(name):
    """Where log-SNR has two ends, even steps of t are twice as far off."""
    sampler = kf.samplers.get(name)
    uniform = dataclasses.replace(sampler, grid="uniform")
    ve = paths.VarianceExploding()
    even_sigma = tuple(np.append(np.linspace(80.0, 0.002, 10), 0.0))
    for path, other in (
        (paths.VariancePreserving(), uniform),
        (paths.DiscreteVariancePreserving(), uniform),
        (ve, dataclasses.replace(sampler, grid=even_sigma)),
    ):
        z = np.random.default_rng(0).standard_normal((64, 2))
        z = z * array(path.sigma(tensor(path.t_noise)))

        def end(sampler, steps, path=path, z=z):
            times = sampler.times(path, steps)
            return walk(sampler, Exact(path), z, times)[-1]

        expected = end(kf.samplers.UniPC(3), 200)
        default, even = (
            np.sqrt(np.mean((end(each, 10) - expected) ** 2))
            for each in (sampler, other)
        )
        assert default < 0.5 * even, (path, default, even)
    for path in (
        paths.Linear(1.0),
        paths.Trigonometric(0.0),
        paths.StochasticInterpolant(),
    ):
        np.testing.assert_array_equal(
            sampler.times(path, 10), uniform.times(path, 10)
        )


@pytest.mark.once
def test_noise_gives_the_law():
    """SA-Solver at 20 calls beats Euler-Maruyama at 80, on EDM's path."""
    path, rng = paths.VarianceExploding(), np.random.default_rng(5)
    floor = sliced_distance(MIXTURE.sample(rng, 5_000))

    def distance(sampler, steps, path=path):
        model = model_of(path)
        z = rng.standard_normal((5_000, 2)).astype("float32")
        x = model.generate(noise=z, num_steps=steps, sampler=sampler, seed=1)
        return sliced_distance(array(x))

    slow = distance(kf.samplers.EulerMaruyama(grid="log_snr"), 80)
    fast = distance(kf.samplers.SASolver(tau=0.5, grid="log_snr"), 20)
    assert fast < slow and fast < 2 * floor, (fast, slow, floor)
    # The others, also where sigma / alpha is infinite at the start.
    for sampler, at in (
        (kf.samplers.DPMSolverPP(tau=1.0, grid="log_snr"), path),
        (kf.samplers.DPMSolverPP(tau=1.0), paths.Linear(0.0)),
        (kf.samplers.EDM(10.0), paths.Linear(1.0)),
        (kf.samplers.SASolver(tau=0.5), paths.Trigonometric(0.0)),
    ):
        assert distance(sampler, 30, at) < 0.03, sampler


# Identities.


ENDS = {
    "linear, noise at 0": paths.Linear(0.0),
    "linear, noise at 1": paths.Linear(1.0),
    "trigonometric": paths.Trigonometric(1.0),
    "vp": paths.VariancePreserving(),
    "ve": paths.VarianceExploding(),
    "trigflow": paths.TrigFlow(),
    "discrete": paths.DiscreteVariancePreserving(),
}


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_first_order_is_ddim_and_ddpm(case):
    """From end to end, for noise with a mean and a spread of its own."""
    path = ENDS[case]
    model = Exact(path, n_mu=0.3, n_sigma=1.7)
    z, *noises = toy.noises(5)
    start = array(path.initial(tensor(0.3 + 1.7 * z)))
    times = time_grid(path, 5, "karras" if case == "ve" else "uniform")
    expected = walk(kf.samplers.DDIM(), model, start, times)
    assert np.abs(expected[-1]).max() < 5
    for sampler in (
        kf.samplers.DPMSolverPP(1),
        kf.samplers.DPMSolver(1),
        kf.samplers.UniPC(1, corrector=False),
        kf.samplers.SASolver(1, 0, tau=0.0),
    ):
        found = walk(sampler, model, start, times)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    expected = walk(kf.samplers.DDPM("small"), model, start, times, noises)
    for sampler in (
        kf.samplers.DPMSolverPP(1, tau=1.0),
        kf.samplers.SASolver(1, 0, interval=None),
    ):
        found = walk(sampler, model, start, times, noises)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.once
def test_adams_methods_are_unipc():
    """Without noise, where the polynomials are the same."""
    z, path = toy.noises(0, 64)[0], paths.Linear(1.0)
    times = time_grid(path, 8, "log_snr")
    model = Exact(path, toy.Mixture(64))
    found = walk(kf.samplers.SASolver(3, 4, tau=0.0), model, z, times)
    expected = walk(kf.samplers.UniPC(3, "bh1"), model, z, times)
    np.testing.assert_allclose(found, expected, atol=1e-10)


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_all_solvers_reach_the_end(case):
    """Finite, and near the exact flow, on every path's own grid."""
    path, z = ENDS[case], toy.noises(0)[0][:4]
    start = array(path.initial(tensor(z)))
    sigma = float(array(path.sigma(tensor(path.t_noise))))
    alpha = max(float(array(path.alpha(tensor(path.t_noise)))), 1e-4)
    at = np.log(alpha / sigma)
    expected = flow(MIXTURE, start / sigma, at, 9.0, 1e-7) * np.exp(-9.0)
    for sampler in (
        kf.samplers.DPMSolverPP(3, grid="log_snr"),
        kf.samplers.DPMSolver(3),
        kf.samplers.UniPC(3, grid="log_snr"),
    ):
        times = sampler.times(path, 16)
        x = walk(sampler, Exact(path), start, times)[-1]
        assert np.sqrt(np.mean((x - expected) ** 2)) < 0.04, sampler


@pytest.mark.once
def test_edm_is_algorithm_2():
    path, sampler = paths.VarianceExploding(), kf.samplers.EDM(8.0, 0.1, 20.0)
    levels, (z, *noises) = time_grid(path, 8, "karras"), toy.noises(8)
    x, gamma = 80.0 * z, min(8.0 / 8, np.sqrt(2.0) - 1)

    def slope(x, s):
        return (x - MIXTURE.denoise(np, x, 1.0, s)) / s

    states = [x]
    for s, r, noise in zip(levels[:-1], levels[1:], noises):
        later = s * (1 + gamma) if 0.1 <= s <= 20.0 else s
        x = x + np.sqrt(later**2 - s**2) * 1.003 * noise
        first = slope(x, later)
        euler = x + (r - later) * first
        second = slope(euler, r) if r > 0 else first
        x = x + (r - later) * (first + second) / 2
        states.append(x)
    found = walk(sampler, Exact(path), 80.0 * z, levels, noises)
    np.testing.assert_allclose(found, states, atol=1e-8)


# Guidance, tracing.


ALL = {
    "dpm_solver": 4, "dpm_solver++": 4, "dpm_solver++sde": 4, "unipc": 4,
    "sa_solver": 5, "edm": 3, "dormand_prince": 1,
}  # fmt: skip


def labelled(path):
    """A velocity with the label's own number added: 0, 1, 2.5, null."""
    inputs = {
        "x": keras.Input((2,), name="x"),
        "t": keras.Input((), name="t"),
        "condition": keras.Input((), dtype="int32", name="condition"),
    }
    embedding = keras.layers.Embedding(4, 2)
    h = keras.layers.Dense(2, activation="tanh")(inputs["x"])
    network = keras.Model(inputs, h + embedding(inputs["condition"]))
    embedding.embeddings.assign(np.array([[0, 0], [1, 1], [2.5, 2.5], [9, 9]]))
    return kf.FlowMapInterface(
        network, "flow", interpolant=path, ema=None, null_label=3
    )


@pytest.mark.once
@pytest.mark.parametrize("name", ALL)
def test_guidance(name):
    """From label 0 by 2.5 to label 1 is label 2, as velocities are linear."""
    model = labelled(paths.Linear(1.0))
    arguments = {"num_steps": ALL[name], "seed": 0, "sampler": name}
    plain = model.generate(6, condition=2, **arguments)
    guided = model.generate(
        6, condition=1, negative_condition=0, guidance_scale=2.5, **arguments
    )
    other = model.generate(6, condition=1, **arguments)
    np.testing.assert_allclose(array(guided), array(plain), atol=2e-4)
    assert np.abs(array(other) - array(plain)).max() > 0.5
    assert str(guided.dtype).endswith("float32")


def test_unrolled_in_a_trace():
    """As exports have it: all steps, with the grid, in one graph."""
    model = labelled(paths.Linear(0.0))
    z = toy.noises(0)[0].astype("float32")
    sampler = kf.samplers.UniPC(2, grid="log_snr")
    labels = ops.ones((len(z),), "int32")

    def run(z):
        bound = kf.samplers.Predictor(model, condition=labels)
        return sampler.unrolled(bound, model.start(z), 3)

    found = kf.ops.compiled(run, model.variables)(z)
    expected = model.generate(noise=z, condition=1, num_steps=3,
                              sampler=sampler)  # fmt: skip
    np.testing.assert_allclose(array(found), array(expected), atol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("name", ["dpm_solver", "dpm_solver++", "sa_solver"])
def test_unrolled(name):
    model, z = labelled(paths.Trigonometric(1.0)), toy.noises(0)[0]
    sampler = kf.samplers.get(name)
    if name == "sa_solver":
        sampler = kf.samplers.SASolver(tau=0.0)
    z = z.astype("float32")
    bound = kf.samplers.Predictor(model, condition=ops.ones((len(z),), "int32"))
    found = sampler.unrolled(bound, model.start(ops.convert_to_tensor(z)), 5)
    expected = model.generate(noise=z, condition=1, num_steps=5,
                              sampler=sampler)  # fmt: skip
    np.testing.assert_allclose(
        array(found.detach()), array(expected), atol=1e-5
    )


# Likelihood and adaptive solves.


LOOSE = kf.samplers.DormandPrince(1e-4, 1e-4)


def test_likelihood_is_exact():
    x = MIXTURE.sample(np.random.default_rng(1), 32)
    expected = MIXTURE.log_density(np, x, 1.0, 0.0)
    model = model_of(paths.Linear(0.0))
    found = array(kf.samplers.log_likelihood(model, x, trace="exact"))
    np.testing.assert_allclose(found, expected, atol=0.01)
    # 1 % of the mean, which is about -1.
    assert abs(found.mean() - expected.mean()) < 0.01 * abs(expected.mean())


@pytest.mark.once
@pytest.mark.parametrize("case", ["linear, noise at 1", "vp", "trigflow"])
def test_likelihood_on_other_paths(case):
    """VP's flow ends at sigma = 0.01 of the data's 0.3: 0.1 % of each."""
    x = MIXTURE.sample(np.random.default_rng(1), 16)
    expected = MIXTURE.log_density(np, x, 1.0, 0.0)
    found = array(
        kf.samplers.log_likelihood(
            model_of(ENDS[case]), x, trace="exact", sampler=LOOSE
        )
    )
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert abs(found.mean() - expected.mean()) < 0.01 * abs(expected.mean())


@pytest.mark.once
def test_hutchinson_is_unbiased():
    """400 estimates for one example, by one and by four probes."""
    x = np.repeat(MIXTURE.sample(np.random.default_rng(2), 1), 400, axis=0)
    model = model_of(paths.Linear(1.0))
    one, four = (
        array(
            kf.samplers.log_likelihood(
                model, x, seed=3, probes=probes, sampler=LOOSE
            )
        )
        for probes in (1, 4)
    )
    expected = MIXTURE.log_density(np, x[:1], 1.0, 0.0)[0]
    assert one.std() > 0.02
    for found in (one, four):
        assert abs(found.mean() - expected) < 4 * found.std() / 20 + 1e-3
    assert 0.3 < four.std() / one.std() < 0.75


@pytest.mark.once
def test_likelihood_with_a_condition():
    """A velocity linear in x and the label has a closed form."""
    model = labelled(paths.Linear(1.0))
    dense = model.network.layers[2]
    assert isinstance(dense, keras.layers.Dense)
    dense.kernel.assign(np.zeros((2, 2)))
    x = np.random.default_rng(0).standard_normal((5, 2)).astype("float32")
    labels = np.array([0, 1, 2, 1, 0], dtype="int32")
    found = array(kf.samplers.log_likelihood(model, x, labels))
    # v is the label's number c: the noise is x + c, and div v = 0.
    c = np.array([0, 1, 2.5, 9])[labels][:, None]
    expected = norm.logpdf(x + c).sum(1)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    bits = kf.samplers.log_likelihood(model, x, labels, bits_per_dim=True)
    np.testing.assert_allclose(array(bits), -found / 2 / np.log(2.0), rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("case", ["linear, noise at 0", "vp", "ve"])
def test_dormand_prince_follows_the_flow(case):
    path, z = ENDS[case], toy.noises(0)[0].astype("float32")
    x = model_of(path).generate(
        noise=z, num_steps=1, sampler=kf.samplers.DormandPrince(1e-6, 1e-6)
    )
    sampler = kf.samplers.UniPC(3, grid="log_snr")
    start = array(path.initial(tensor(z)))
    expected = walk(sampler, Exact(path), start, sampler.times(path, 100))[-1]
    np.testing.assert_allclose(array(x), expected, atol=3e-4)


# Grids and bad input.


@pytest.mark.once
@pytest.mark.parametrize("case", ENDS)
def test_grids_run_from_noise_to_data(case):
    path = ENDS[case]
    for grid in ("uniform", "karras", "log_snr", "cosine"):
        for steps in (1, 2, 10):
            times = time_grid(path, steps, grid)
            assert times.shape == (steps + 1,) and times.dtype == np.float64
            assert times[0] == path.t_noise and times[-1] == path.t_data
            assert np.all(np.diff(times) * (path.t_data - path.t_noise) > 0)
            # A grid can be given as its own times.
            np.testing.assert_array_equal(
                time_grid(path, steps, tuple(times)), times
            )


def test_grids_are_uniform_in_what_they_say():
    path = paths.Linear(0.0)
    # Noise fractions of Linear are sigma; the ends are 0.999 and 0.001.
    sigma = 1.0 - time_grid(path, 6, "log_snr")
    lam = np.log((1 - sigma[1:-1]) / sigma[1:-1])
    np.testing.assert_allclose(np.diff(lam), 2 * np.log(999) / 5, rtol=1e-6)
    sigma = 1.0 - time_grid(path, 6, "karras")[1:-1]
    root = (sigma / (1 - sigma)) ** (1 / 7)
    ends = np.array([999.0, 1 / 999.0]) ** (1 / 7)
    np.testing.assert_allclose(root, np.linspace(*ends, 6)[1:], rtol=1e-6)
    cosine = 1.0 - time_grid(path, 6, "cosine")
    np.testing.assert_allclose(
        cosine, np.cos(np.pi / 2 * np.arange(7) / 6), atol=1e-12
    )
    vp = paths.VariancePreserving()
    with kf.ops.eager_float64() as number:
        t = time_grid(vp, 6, "log_snr")[:-1]
        lam = np.log(number(vp.alpha, t) / number(vp.sigma, t))
    np.testing.assert_allclose(np.diff(lam), (lam[-1] - lam[0]) / 5, rtol=1e-5)
    shifted = 1.0 - time_grid(path, 6, "log_snr", shift=2.0)[1:-1]
    plain = 1.0 - time_grid(path, 6, "log_snr")[1:-1]
    np.testing.assert_allclose(shifted, 2 * plain / (1 + plain), rtol=1e-6)


def likelihood(**kwargs):
    model = kf.FlowMapInterface(kf.networks.MLP(2, 4, 1), "flow", ema=None)
    return kf.samplers.log_likelihood(model, np.zeros((2, 2)), **kwargs)


ERRORS = {
    "order of ++": (lambda: kf.samplers.DPMSolverPP(4), "`order`.*4"),
    "order": (lambda: kf.samplers.DPMSolver(0), "`order`.*0"),
    "order of unipc": (lambda: kf.samplers.UniPC(2.5), "`order`.*2.5"),
    "variant": (lambda: kf.samplers.UniPC(variant="bh3"), "`variant`.*bh3"),
    "tau": (lambda: kf.samplers.DPMSolverPP(tau=-1.0), "`tau`.*-1.0"),
    "corrector": (lambda: kf.samplers.SASolver(2, 5), "`corrector_order`.*5"),
    "interval": (
        lambda: kf.samplers.SASolver(interval=(0.8, 0.2)),
        "`interval`.*low <= high",
    ),
    "by": (lambda: kf.samplers.SASolver(by="time"), "`by`.*time"),
    "churn": (lambda: kf.samplers.EDM(-1.0), "`s_churn`.*-1.0"),
    "s_max": (lambda: kf.samplers.EDM(1.0, 2.0, 1.0), "`s_max`.*`s_min`"),
    "rtol": (lambda: kf.samplers.DormandPrince(0.0), "`rtol`.*0.0"),
    "grid": (
        lambda: time_grid(paths.Linear(), 4, "sigmoid"), "`grid`.*log_snr",
    ),
    "shift": (
        lambda: time_grid(paths.Linear(), 4, "karras", 0.0), "`shift`.*0.0",
    ),
    "start": (
        lambda: kf.samplers.UniPC(grid=(0.9, 0.5, 0.0)).times(
            paths.Linear(1.0), 2
        ),
        "from noise to data",
    ),
    "stochastic likelihood": (
        lambda: likelihood(sampler="sa_solver"), "`sampler` draws noise",
    ),
    "fixed likelihood": (
        lambda: likelihood(sampler="unipc"), "must be a DormandPrince",
    ),
    "trace": (lambda: likelihood(trace="full"), "`trace`.*full"),
    "probes": (lambda: likelihood(probes=0), "`probes`.*0"),
    "adaptive export": (
        lambda: kf.FlowMapInterface(
            kf.networks.MLP(2, 4, 1), "flow", ema=None
        ).export("unused", sampler="dormand_prince"),
        "`sampler` chooses its steps",
    ),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    make, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.once
def test_samplers_are_saved():
    for name in ALL:
        sampler = kf.samplers.get(name)
        config = keras.saving.serialize_keras_object(sampler)
        assert kf.samplers.get(config) == sampler
