"""`pred`, `score`, `denoise` and `jump` of the exact network are exact.

The network holds the Gaussian solution, so what is tested is everything
between it and the caller: preconditioning, conversions, direction of time.
"""

import numpy as np
import pytest
from keras import ops
from oracle import CASES
from oracle import ExactNetwork
from oracle import Oracle

import keras_flows as kf

ROWS = 64
NOISES = [(0.0, 1.0), (0.3, 1.7)]


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, dtype="float32"))


def close(found, expected, x=0.0, tol=5e-6):
    """Relative to what it is a sum of: the number itself, x_t, terms of 1.

    Near pure noise of 80, E[x | x_t] is the difference of numbers of 80.
    """
    size = 1.0 + np.abs(expected) + np.abs(x)
    error = np.abs(ops.convert_to_numpy(found) - expected) / size
    assert np.all(error <= tol), error.max()


def interface(kind, case, n_mu, n_sigma):
    """(model, oracle, noisy end, clean end)."""
    name, kwargs, path, noisy, clean = CASES[case]
    interpolant = getattr(kf.interpolants, name)(**kwargs)
    oracle = Oracle(path, n_mu=n_mu, n_sigma=n_sigma)
    options = {"n_mu": n_mu, "n_sigma": n_sigma, "ema": None}
    if kind == "EDM":
        network = ExactNetwork(oracle, "edm", x_sigma=0.6)
        options["x_sigma"] = 0.6
    else:
        network = ExactNetwork(oracle)
    cls = getattr(kf, f"{kind}Interface")
    model = cls(network, interpolant=interpolant, **options)
    return model, oracle, noisy, clean


KINDS = [
    ("EDM", "variance exploding"),
    ("MeanFlow", "linear, noise at 1"),
    *((kind, case) for kind in ("SiT", "FlowMap") for case in CASES),
]


def states(oracle, noisy, clean, rng):
    """x_t, t and r from noise to data, all float32."""
    f = np.sort(rng.uniform(0.0, 1.0, (ROWS, 2)))
    f[: ROWS // 4, 1] = f[: ROWS // 4, 0]
    t, r = (noisy + (clean - noisy) * f).T.astype("float32")
    return oracle.sample(rng, t), t, r


@pytest.mark.parametrize("n_mu, n_sigma", NOISES)
@pytest.mark.parametrize("kind, case", KINDS)
def test_predictions(kind, case, n_mu, n_sigma, rng):
    model, oracle, noisy, clean = interface(kind, case, n_mu, n_sigma)
    x, t, r = states(oracle, noisy, clean, rng)
    x_t, at = tensor(x), tensor(t)
    v, score = oracle.velocity(x, t), oracle.score(x, t)
    close(model.pred(x_t, at), v, x)
    close(model.score(x_t, at), score, x)
    close(model.denoise(x_t, at), oracle.data(x, t), x)
    both = model.pred_and_score(x_t, at)
    close(both[0], v, x)
    close(both[1], score, x)
    to = tensor(r)
    if kind in ("SiT", "EDM"):
        # Trained with r = t alone, whatever the network takes.
        for call in (model.pred, model.jump):
            with pytest.raises(ValueError, match="not defined for"):
                call(x_t, at, to)
    else:
        u = oracle.average_velocity(x.astype("float64"), t, r)
        close(model.pred(x_t, at, to), u, x)
        close(model.jump(x_t, at, to), oracle.jump(x, t, r), x)


@pytest.mark.parametrize("kind, noise_at", [("SiT", 1), ("FlowMap", 0)])
def test_default_direction(kind, noise_at, rng):
    """SiT and MeanFlow have noise at t = 1, flow maps at t = 0."""
    case = f"linear, noise at {noise_at}"
    oracle = Oracle(CASES[case][2])
    network = ExactNetwork(oracle)
    model = getattr(kf, f"{kind}Interface")(network, ema=None)
    x, t, _ = states(oracle, *CASES[case][3:], rng)
    close(model.score(tensor(x), tensor(t)), oracle.score(x, t), x)


def test_sit_and_edm_formulas(rng):
    """The two documents' own formulas, from the velocity and from D."""
    oracle = Oracle(CASES["linear, noise at 1"][2])
    model = kf.SiTInterface(ExactNetwork(oracle, delta=0.4), ema=None)
    x, t, _ = states(oracle, 0.9, 0.1, rng)
    at, x_t = t[:, None].astype("float64"), tensor(x)
    v = ops.convert_to_numpy(model.pred(x_t, tensor(t)))
    close(model.score(x_t, tensor(t)), -(x + (1 - at) * v) / at, x)
    close(model.denoise(x_t, tensor(t)), x - at * v, x)

    oracle = Oracle(CASES["variance exploding"][2])
    network = ExactNetwork(oracle, "edm", delta=0.4)
    model = kf.EDMInterface(network, ema=None)
    x, t, _ = states(oracle, 5.0, 0.3, rng)
    at, x_t = t[:, None].astype("float64"), tensor(x)
    total = at**2 + 0.25
    # D = E[x | x_t] + c_out delta (c_in x_t + 1).
    perturbation = 0.4 * (x / np.sqrt(total) + 1.0)
    d = oracle.data(x, t) + 0.5 * at / np.sqrt(total) * perturbation
    close(model.denoise(x_t, tensor(t)), d, x)
    close(model.pred(x_t, tensor(t)), (x - d) / at, x)
    close(model.score(x_t, tensor(t)), (d - x) / at**2, x)
    weight = (t.astype("float64") ** 2 + 0.25) / (0.5 * t) ** 2
    close(model.loss_weight(tensor(t)), weight)


@pytest.mark.parametrize("case", CASES)
def test_slope_network_is_differentiable_at_r_equal_t(case, rng):
    """d/dr u(x, t, r) at r = t is half the flow's acceleration, not NaN."""
    model, oracle, noisy, clean = interface("FlowMap", case, 0.3, 1.7)
    x, t, _ = states(oracle, noisy, clean, rng)
    x_t, at = tensor(x), tensor(t)
    # `at` is both the primal and, inside, a constant: d/dr only.
    u, du = kf.ops.jvp(
        lambda r: model.pred(x_t, at, r), (at,), (ops.ones_like(at),)
    )
    close(u, oracle.velocity(x, t), x)
    # Acceleration along the flow, by differences in float64.
    h = 1e-5 * (1.0 + abs(noisy))
    wide, t = x.astype("float64"), t.astype("float64")
    second = (
        oracle.jump(wide, t, t + h) + oracle.jump(wide, t, t - h) - 2 * wide
    ) / h**2
    # Differences of numbers up to 20 leave about 1e-15 * 20 / h^2.
    close(du, 0.5 * second, tol=2e-4)
