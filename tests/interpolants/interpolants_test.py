"""Interpolants, time laws and time shift against independent formulas.

The expected numbers are NumPy float64 (`oracle`), the library's float32. A
float32 carries 6e-8; a conversion loses a factor of up to a hundred where
it subtracts, so 1e-5 is asked, relative to 1 or to the number itself.
"""

import math

import numpy as np
import pytest
from keras import ops
from oracle import CASES
from oracle import Oracle

import keras_flows as kf
from keras_flows.interpolants import get_time_law

ROWS = 64
EITHER = [name for name in CASES if "noise at" in name]
NOISES = [(0.0, 1.0), (0.3, 1.7)]


def build(case):
    name, kwargs, path, noisy, clean = CASES[case]
    return getattr(kf.interpolants, name)(**kwargs), path, noisy, clean


def kwargs_of(case):
    return CASES[case][1]


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, dtype="float32"))


def array(x):
    return ops.convert_to_numpy(x).astype("float64")


def close(found, expected, tol=1e-5):
    np.testing.assert_allclose(array(found), expected, rtol=tol, atol=tol)


def draw(rng, noisy, clean):
    """Data, noise and times, rounded to float32 before either side."""
    x, n = rng.standard_normal((2, ROWS, 2)).astype("float32")
    t = rng.uniform(min(noisy, clean), max(noisy, clean), ROWS)
    return x, n, t.astype("float32")


@pytest.fixture(params=CASES)
def case(request):
    return request.param


# The oracle itself, before anything is held against it.


def test_oracle_derivatives_are_those_of_its_coefficients(case):
    _, path, noisy, clean = build(case)
    t, h = np.linspace(noisy, clean, 9), 1e-6
    for f, df in (
        (path.alpha, path.alpha_dot),
        (path.sigma, path.sigma_dot),
    ):
        difference = (f(t + h) - f(t - h)) / (2 * h)
        # h^2 is 1e-12; rounding of up to 20 costs 20 * 1e-16 / h = 2e-9.
        np.testing.assert_allclose(df(t), difference, rtol=1e-8, atol=1e-8)


def test_oracle_flow_follows_its_velocity_and_composes(case, rng):
    _, path, noisy, clean = build(case)
    oracle = Oracle(path, n_mu=0.3, n_sigma=1.7)
    t = np.full(ROWS, noisy)
    x = oracle.sample(rng, t).astype("float64")
    r, h = rng.uniform(min(noisy, clean), max(noisy, clean), ROWS), 1e-6
    x_r = oracle.jump(x, t, r)
    slope = (oracle.jump(x, t, r + h) - oracle.jump(x, t, r - h)) / (2 * h)
    np.testing.assert_allclose(
        oracle.velocity(x_r, r), slope, rtol=1e-6, atol=1e-6
    )
    end = np.full(ROWS, clean)
    np.testing.assert_allclose(
        oracle.jump(x_r, r, end), oracle.jump(x, t, end), rtol=1e-10
    )
    np.testing.assert_allclose(
        oracle.average_velocity(x, t, t + h), oracle.velocity(x, t), rtol=1e-3
    )


def test_oracle_posterior_means_add_up_and_regress(case, rng):
    """alpha E[x|x_t] + sigma E[n|x_t] = x_t, and the score is -E[n]/sigma."""
    _, path, noisy, clean = build(case)
    oracle = Oracle(path)
    t = np.linspace(noisy, clean, ROWS)
    x = oracle.sample(rng, t).astype("float64")
    a, s = path.alpha(t)[:, None], path.sigma(t)[:, None]
    both = a * oracle.data(x, t) + s * oracle.noise(x, t)
    np.testing.assert_allclose(both, x, atol=1e-12)
    np.testing.assert_allclose(oracle.score(x, t), -oracle.noise(x, t) / s)


# Coefficients and conversions.


def test_coefficients(case, rng):
    path, ours, noisy, clean = build(case)
    t = draw(rng, noisy, clean)[2]
    for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        expected = getattr(ours, name)(t.astype("float64"))
        close(getattr(path, name)(tensor(t)), expected)


def test_ends(case):
    """The noise end holds no data, the data end no noise."""
    path, ours, *_ = build(case)
    noise, data = tensor([path.t_noise]), tensor([path.t_data])
    a, s = path.alpha(noise), path.sigma(noise)
    # Signal to noise at the start: 1/80 for EDM's sigma_max, 0.0066 for the
    # linear and 0.0084 for the cut cosine schedule, else 0 but for rounding.
    left = {"VarianceExploding": 0.0126, "VariancePreserving": 0.0085}
    bound = left.get(type(path).__name__, 1e-7)
    assert abs(float(array(a / s)[0])) < bound
    close(path.alpha(data), [1.0])
    # The cosine schedule takes 1 - alpha^2 of a rounded alpha: sqrt(6e-8).
    bound = 3e-4 if kwargs_of(case).get("schedule") == "cosine" else 1e-6
    assert abs(float(array(path.sigma(data))[0])) < bound


def test_coefficients_near_the_ends_keep_their_digits(case):
    """Relative errors at 0 to 2 % of the noise, where sigma is small."""
    path, ours, *_ = build(case)
    t = path.time_of_level(np.array([0.0, 1e-3, 5e-3, 0.02]))
    t = t.astype("float32")[0 if path.t_last != path.t_data else 1 :]
    # sigma^2 = 4e-5 at t = 1e-3 of the cosine schedule, of which float32
    # keeps about three digits.
    tol = 1e-3 if kwargs_of(case).get("schedule") == "cosine" else 1e-6
    for name in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        expected = getattr(ours, name)(t.astype("float64"))
        found = array(getattr(path, name)(tensor(t)))
        np.testing.assert_allclose(found, expected, rtol=tol, atol=1e-12)


def test_interpolate_and_velocity(case, rng):
    path, ours, noisy, clean = build(case)
    x, n, t = draw(rng, noisy, clean)
    at = t.astype("float64")[:, None]

    def point(t):
        return ours.alpha(t) * x + ours.sigma(t) * n

    close(path.interpolate(tensor(x), tensor(n), tensor(t)), point(at))
    difference = (point(at + 1e-6) - point(at - 1e-6)) / 2e-6
    close(path.velocity(tensor(x), tensor(n), tensor(t)), difference)


def test_conversions_round_trip(case, rng):
    path, ours, noisy, clean = build(case)
    x, n, t = draw(rng, noisy, clean)
    at = t.astype("float64")[:, None]
    x_t = ours.alpha(at) * x + ours.sigma(at) * n
    v = ours.alpha_dot(at) * x + ours.sigma_dot(at) * n
    x_t, v, at = tensor(x_t), tensor(v), tensor(t)
    # Dividing by alpha down to 0.017 or sigma down to 0.1, and by D: the
    # rounding of x_t and v (up to 60) comes back up to 100 times larger.
    tol = 2e-5
    close(path.data_from_velocity(x_t, v, at), x, tol)
    close(path.noise_from_velocity(x_t, v, at), n, tol)
    close(path.velocity_from_data(x_t, tensor(x), at), array(v), tol)
    close(path.velocity_from_noise(x_t, tensor(n), at), array(v), tol)


@pytest.mark.parametrize("n_mu, n_sigma", NOISES)
def test_score_from_velocity(case, rng, n_mu, n_sigma):
    path, ours, noisy, clean = build(case)
    oracle = Oracle(ours, n_mu=n_mu, n_sigma=n_sigma)
    t = draw(rng, noisy, clean)[2]
    x = oracle.sample(rng, t)
    v, score = oracle.velocity(x, t), oracle.score(x, t)
    x_t, at = tensor(x), tensor(t)
    close(path.score_from_velocity(x_t, tensor(v), at, n_mu, n_sigma), score)
    close(
        path.velocity_from_score(x_t, tensor(score), at, n_mu, n_sigma),
        v,
        # Divides by alpha, 0.017 at the noisy end of VP linear.
        5e-5,
    )


def test_initial_is_the_scaled_noise(case, rng):
    path, ours, *_ = build(case)
    z = rng.standard_normal((4, 2))
    scale = ours.sigma(np.float64(path.t_noise))
    close(path.initial(tensor(z)), scale * z.astype("float32"))


# Time.


def test_time_from_ratio_inverts_sigma_over_alpha(case):
    path, ours, noisy, clean = build(case)
    t = np.linspace(noisy, clean, 33)
    close(path.time_from_ratio(tensor(ours.sigma(t) / ours.alpha(t))), t)


def test_shift(case):
    path, *_ = build(case)
    level, k = np.linspace(0.0, 1.0, 11), 3.0
    t = path.time_of_level(level)
    np.testing.assert_allclose(path.shift(t, 1.0), t, rtol=1e-12)
    shifted = path.shift(t, k)
    np.testing.assert_allclose(
        path.level(shifted), 3.0 * level / (1.0 + 2.0 * level), atol=1e-12
    )
    # k > 1 moves every inner time towards the noise.
    span = path.t_noise - path.t_last
    assert np.all((shifted - t)[1:-1] * np.sign(span) > 0)


def test_toward_data(case):
    path, _, noisy, clean = build(case)
    assert path.toward_data(noisy, clean)
    assert path.toward_data(noisy, noisy)
    assert not path.toward_data(clean, noisy)


@pytest.mark.parametrize("name", ["Linear", "Trigonometric"])
def test_both_directions_are_one_path(name, rng):
    """t -> 1 - t swaps them, with the velocity's sign."""
    cls = getattr(kf.interpolants, name)
    one, zero = cls(noise_at=1.0), cls(noise_at=0.0)
    x, n, t = draw(rng, 0.0, 1.0)
    x, n, t = tensor(x), tensor(n), tensor(t)
    close(one.interpolate(x, n, t), array(zero.interpolate(x, n, 1.0 - t)))
    close(one.velocity(x, n, t), -array(zero.velocity(x, n, 1.0 - t)))


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: kf.interpolants.Linear(noise_at=0.5), "noise_at"),
        (lambda: kf.interpolants.VarianceExploding(2.0, 1.0), "sigma_min"),
        (lambda: kf.interpolants.VariancePreserving("sqrt"), "linear, cosine"),
        (lambda: kf.interpolants.TrigFlow(0.0), "sigma_d"),
        (
            lambda: kf.interpolants.StochasticInterpolant(gamma="x"),
            "brownian",
        ),
        (lambda: kf.interpolants.Beta(a=0.0), "`a`.*above 0"),
    ],
)
def test_bad_arguments_are_named(build, match):
    with pytest.raises(ValueError, match=match):
        build()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="Linear.*TrigFlow.*Variance"):
        kf.interpolants.get("quadratic")
    with pytest.raises(ValueError, match="beta.*logitnormal.*uniform"):
        get_time_law("cauchy")


# Stochastic interpolants: two Gaussian ends x_0 ~ N(A, a^2), x_1 ~ N(B, b^2).

ENDS = {"A": -0.5, "a": 0.6, "B": 0.9, "b": 1.3}
BRIDGES = [
    (base, gamma)
    for base in ("linear", "trigonometric")
    for gamma in ("brownian", "sine", "constant", "none")
]


def bridge(base, gamma):
    """alpha, sigma, gamma in NumPy, and the library's interpolant."""
    path = kf.interpolants.StochasticInterpolant(base, gamma, scale=0.8)
    ends = {
        "linear": (lambda t: t, lambda t: 1.0 - t),
        "trigonometric": (
            lambda t: np.sin(0.5 * np.pi * t),
            lambda t: np.cos(0.5 * np.pi * t),
        ),
    }[base]
    latent = {
        "brownian": lambda t: 0.8 * np.sqrt(t * (1.0 - t)),
        "sine": lambda t: 0.8 * np.sin(np.pi * t) ** 2,
        "constant": lambda t: 0.8 * np.ones_like(t),
        "none": np.zeros_like,
    }[gamma]
    return path, *ends, latent


@pytest.mark.parametrize("base, gamma", BRIDGES)
def test_stochastic_coefficients(base, gamma):
    path, *coefficients = bridge(base, gamma)
    t, h = np.linspace(0.1, 0.9, 9), 1e-6
    names = ("alpha", "sigma", "latent")
    for name, f in zip(names, coefficients, strict=True):
        close(getattr(path, name)(tensor(t)), f(t))
        difference = (f(t + h) - f(t - h)) / (2 * h)
        close(getattr(path, f"{name}_dot")(tensor(t)), difference)


@pytest.mark.parametrize("base, gamma", BRIDGES)
def test_bridge_joins_its_ends(base, gamma, rng):
    path, *_ = bridge(base, gamma)
    x_1, x_0, z = rng.standard_normal((3, 5, 2)).astype("float32")
    for time, expected in ((0.0, x_0), (1.0, x_1)):
        t = tensor(np.full(5, time))
        found = path.bridge(tensor(x_1), tensor(x_0), tensor(z), t)
        if gamma == "constant":
            expected = expected + 0.8 * z
        # sin(pi) and cos(pi / 2) are 1e-7 in float32.
        close(found, expected, 1e-6)
    # Sampling starts from x_0 itself.
    close(path.initial(tensor(x_0)), x_0, 0.0)


@pytest.mark.parametrize("base, gamma", BRIDGES)
def test_drift_and_score_of_a_gaussian_bridge(base, gamma, rng):
    path, alpha, sigma, latent = bridge(base, gamma)
    A, a, B, b = (ENDS[key] for key in "AaBb")

    def mean(t):
        return alpha(t) * B + sigma(t) * A

    def var(t):
        return (alpha(t) * b) ** 2 + (sigma(t) * a) ** 2 + latent(t) ** 2

    def slope(f, t):
        return (f(t + 1e-6) - f(t - 1e-6)) / 2e-6

    t = rng.uniform(0.1, 0.9, (ROWS, 1)).astype("float32").astype("float64")
    x = (mean(t) + np.sqrt(var(t)) * rng.standard_normal((ROWS, 2))).astype(
        "float32"
    )
    unit = (x - mean(t)) / var(t)
    # E[d/dt(alpha x_1 + sigma x_0) | x_t] and E[z | x_t] by regression.
    v = slope(mean, t) + unit * (
        alpha(t) * slope(alpha, t) * b**2 + sigma(t) * slope(sigma, t) * a**2
    )
    eta = latent(t) * unit
    at = tensor(t[:, 0])
    # The flow of N(mean, var): x' = mean' + var' / (2 var) (x - mean).
    flow = slope(mean, t) + 0.5 * slope(var, t) * unit
    close(path.drift(tensor(v), tensor(eta), at), flow)
    if gamma != "none":
        close(path.score_from_latent(tensor(eta), at), -unit)


# Time laws. With 40000 draws the standard error of a mean is std / 200, that
# of a standard deviation about std / 280 for normal tails; four of either.

DRAWS = 40_000


def times(law, interpolant, seed=0):
    return array(law(interpolant, (DRAWS,), seed))


def is_normal(z, mu, sigma):
    assert abs(z.mean() - mu) < 4 * sigma / DRAWS**0.5
    assert abs(z.std() - sigma) < 4 * sigma / (2 * DRAWS) ** 0.5
    # No skew, which a wrong transform would give: standard error
    # sqrt(6 / n).
    skew = ((z - z.mean()) ** 3).mean() / z.std() ** 3
    assert abs(skew) < 4 * (6 / DRAWS) ** 0.5


def test_uniform_law(case):
    path, *_ = build(case)
    f = path.level(times(kf.interpolants.Uniform(0.2, 0.6), path))
    assert f.min() >= 0.2 - 1e-5 and f.max() <= 0.6 + 1e-5
    assert abs(f.mean() - 0.4) < 4 * 0.4 / math.sqrt(12 * DRAWS)
    # The standard error of a uniform law's variance: (4 / 5n)^(1/2) of it.
    assert abs(f.var() * 12 / 0.16 - 1) < 4 * math.sqrt(0.8 / DRAWS)


@pytest.mark.parametrize("mu, sigma", [(0.0, 1.0), (-0.4, 0.7)])
def test_logit_normal_law(mu, sigma):
    law = get_time_law("logitnormal", mu, sigma)
    one = times(law, kf.interpolants.Linear(noise_at=1.0))
    zero = times(law, kf.interpolants.Linear(noise_at=0.0))
    is_normal(np.log(one / (1.0 - one)), mu, sigma)
    # The same noise levels in the other direction.
    np.testing.assert_allclose(zero, 1.0 - one, atol=1e-6)


def test_log_normal_law():
    law = get_time_law("lognormal", -1.2, 1.2)
    t = times(law, kf.interpolants.VarianceExploding())
    is_normal(np.log(t), -1.2, 1.2)
    t = times(law, kf.interpolants.TrigFlow(0.5))
    is_normal(np.log(0.5 * np.tan(t)), -1.2, 1.2)
    # On a linear path it is the logit-normal law.
    for noise_at in (0.0, 1.0):
        path = kf.interpolants.Linear(noise_at=noise_at)
        logit = times(get_time_law("logitnormal", -1.2, 1.2), path)
        np.testing.assert_allclose(times(law, path), logit, atol=1e-6)


def test_beta_law(case):
    path, *_ = build(case)
    f = path.level(times(kf.interpolants.Beta(1.5, 1.0), path))
    # Mean a / (a + b), variance ab / ((a + b)^2 (a + b + 1)).
    variance = 1.5 / (2.5**2 * 3.5)
    assert abs(f.mean() - 0.6) < 4 * (variance / DRAWS) ** 0.5
    assert abs(f.var() - variance) < 1.5e-3
