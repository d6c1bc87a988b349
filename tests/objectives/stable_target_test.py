"""Stable targets: the conditional mean of the batch, by brute force."""

import keras
import numpy as np
import pytest
from helpers.close import close
from keras import ops

import keras_flows as kf
from keras_flows.objectives import stable_endpoints


def model(path=None, **options):
    network = kf.networks.MLP(2, width=8, depth=1, two_times=True)
    return kf.FlowMapInterface(
        network, interpolant=path, stable_target=True, ema=None, seed=0,
        **options,
    )  # fmt: skip


def endpoints(interface, *arrays):
    arrays = [None if a is None else ops.convert_to_tensor(a) for a in arrays]
    return [
        ops.convert_to_numpy(a) for a in stable_endpoints(interface, *arrays)
    ]


def draw(rng, path, rows, n_mu=0.0, n_sigma=1.0):
    x = kf.datasets.Checkerboard().sample(rows, int(rng.integers(1000)))
    n = n_mu + n_sigma * rng.standard_normal((rows, 2))
    low, high = sorted((path.t_noise, path.t_last))
    t = low + rng.uniform(0.02, 0.98, rows) * (high - low)
    return x.astype("float32"), n.astype("float32"), t.astype("float32")


@pytest.mark.parametrize(
    "path",
    [
        kf.interpolants.Linear(0.0),
        kf.interpolants.Linear(1.0),
        kf.interpolants.VariancePreserving(),
        kf.interpolants.VarianceExploding(0.1, 10.0),
        kf.interpolants.TrigFlow(0.5),
    ],
    ids=lambda path: type(path).__name__,
)
def test_is_the_posterior_mean_of_the_batch(path, rng):
    """Against the weights written out, in float64, for noise of any law."""
    n_mu, n_sigma = 0.3, 0.7
    interface = model(path, n_mu=n_mu, n_sigma=n_sigma)
    x, n, t = draw(rng, path, 64, n_mu, n_sigma)
    found, noise = endpoints(interface, x, n, t)

    alpha, sigma = (
        ops.convert_to_numpy(f(ops.convert_to_tensor(t)))[:, None]
        for f in (path.alpha, path.sigma)
    )
    alpha, sigma = alpha.astype("float64"), sigma.astype("float64")
    x_t = alpha * x + sigma * n
    gap = x_t[:, None] - alpha[:, None] * x[None] - sigma[:, None] * n_mu
    exponent = -np.sum(gap**2, -1) / (2 * sigma**2 * n_sigma**2)
    weight = np.exp(exponent - exponent.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    # sigma >= 0.02: no row is near enough to the data to be left as it is.
    np.testing.assert_allclose(found, weight @ x, atol=2e-3)
    close(alpha * found + sigma * noise, x_t, 5)
    # Neither its own example nor the batch's mean: there is something to do.
    assert np.abs(found - x).max() > 0.5
    assert np.abs(found - x.mean(0)).max() > 0.5


def test_keeps_the_mean_of_the_target_and_loses_its_variance(rng):
    """E[(stable - sampled) f(x_t, t)] = 0 for every f: least squares agree."""
    path = kf.interpolants.Linear(0.0)
    interface = model(path)
    features, plain, stable = [], [], []
    for _ in range(400):
        x, n, t = draw(rng, path, 32)
        x_t = t[:, None] * x + (1 - t[:, None]) * n
        y, m = endpoints(interface, x, n, t)
        features.append(
            np.stack([t, *x_t.T, *np.sin(2 * x_t).T, x_t[:, 0] * t], -1)
        )
        plain.append(x - n)
        stable.append(y - m)
    # Rows of one batch depend on one another: a batch is one observation.
    moments = np.array([
        np.einsum("bf,bd->fd", f, s - p) / len(f)
        for f, s, p in zip(features, stable, plain, strict=True)
    ])  # fmt: skip
    error = moments.std(0) / len(moments) ** 0.5
    assert (np.abs(moments.mean(0)) < 4 * error).all()
    assert error.max() < 0.02
    assert np.var(stable) < 0.7 * np.var(plain)


def test_examples_of_other_labels_are_not_mixed(rng):
    path = kf.interpolants.Linear(0.0)
    interface = model(path)
    x, n, t = draw(rng, path, 40)
    label = np.repeat([0, 1], 20).astype("int32")
    found = endpoints(interface, x, n, t, label)
    for rows in (slice(0, 20), slice(20, 40)):
        apart = endpoints(interface, x[rows], n[rows], t[rows])
        for a, b in zip(found, apart, strict=True):
            np.testing.assert_allclose(a[rows], b, atol=5e-4)
    alone = endpoints(interface, x, n, t, np.arange(40, dtype="int32"))
    np.testing.assert_allclose(alone[0], x, atol=1e-5)
    np.testing.assert_allclose(alone[1], n, atol=1e-5)


def test_data_end_and_many_dimensions_leave_the_batch_as_it_is(rng):
    interface = model()
    x, n, _ = draw(rng, interface.interpolant, 8)
    t = np.ones(8, "float32")
    for a, b in zip(endpoints(interface, x, n, t), (x, n), strict=True):
        np.testing.assert_array_equal(a, b)
    images = rng.standard_normal((8, 16, 16, 3)).astype("float32")
    noise = rng.standard_normal(images.shape).astype("float32")
    t = np.full(8, 0.5, "float32")
    y, m = endpoints(interface, images, noise, t)
    close(y, images, 5)
    close(m, noise, 5)


@pytest.mark.parametrize(
    "objective, term",
    [
        ("flow", "mse"),
        ("lsd", "velocity_loss"),
        ("mf", "map_loss"),
        ("imm", "mmd"),
        ("mean_flow", "mse"),
        ("edm", "mse"),
        ("sct", "tangent_norm"),
        ("ect", "distance"),
    ],
)
def test_trains_on_less_variance(objective, term):
    """The error of the same untrained network on the same draws falls."""

    def build(stable_target):
        two_times = objective not in ("flow", "edm", "sct", "ect")
        network = kf.networks.MLP(2, width=8, depth=1, two_times=two_times)
        options = {"stable_target": stable_target, "ema": None, "seed": 0}
        if objective == "mean_flow":
            return kf.MeanFlowInterface(network, **options)
        if objective == "edm":
            return kf.EDMInterface(network, **options)
        if objective == "sct":
            # All of the tangent from the start.
            return kf.SCTInterface(
                network, x_sigma=1.15, warmup_steps=0, **options
            )
        if objective == "ect":
            return kf.ConsistencyInterface(
                network, schedule="ect", x_sigma=1.15, **options
            )
        return kf.FlowMapInterface(network, objective, **options)

    x = kf.datasets.Checkerboard().sample(256, 0)
    interface, plain = build(True), build(False)
    plain.network.set_weights(interface.network.get_weights())
    stable, sampled = (
        float(ops.convert_to_numpy(ops.mean(m.loss(x)[term])))
        for m in (interface, plain)
    )
    assert stable < 0.95 * sampled
    interface.compile(keras.optimizers.SGD(1e-2))
    history = interface.fit(x[:32], batch_size=16, verbose=0).history
    assert np.isfinite(history["loss"][0]) and history["gradient_norm"][0] > 0
    again = type(interface).from_config(interface.get_config())
    assert again.stable_target


def test_consistency_steps_along_the_flow_of_the_batch(rng):
    """x_s is DDIM's step from x_t by the batch's own denoiser.

    A network of zeros makes f linear, c_skip x, so that the loss tells x_s.
    """
    path = kf.interpolants.Linear(0.0)
    interface = kf.ConsistencyInterface(
        kf.networks.MLP(2, width=8, depth=1), path, schedule="ect", norm="l2",
        x_sigma=1.15, stable_target=True, ema=None, seed=0,
    )  # fmt: skip
    for v in interface.network.variables:
        v.assign(np.zeros(v.shape))
    x, n, t = draw(rng, path, 48)
    s = 0.5 * (1 + t)
    interface.sample_n = lambda shape: ops.convert_to_tensor(n)
    interface.draw_pair = lambda x: [
        ops.convert_to_tensor(a) for a in (t, s, np.ones_like(t))
    ]
    found = ops.convert_to_numpy(interface.loss(x)["distance"])
    y, m = endpoints(interface, x, n, t)

    def skip(time):
        return ops.convert_to_numpy(
            interface.c_skip(ops.convert_to_tensor(time))
        )[:, None]

    def at(time, x, n):
        return time[:, None] * x + (1 - time[:, None]) * n

    gap = skip(t) * at(t, x, n) - skip(s) * at(s, y, m)
    np.testing.assert_allclose(found, (gap**2).mean(1), rtol=1e-4, atol=1e-6)
    sampled = skip(t) * at(t, x, n) - skip(s) * at(s, x, n)
    assert np.abs(found - (sampled**2).mean(1)).max() > 0.05


def test_reparametrized_has_the_targets_of_its_own_path(rng):
    """And not those of the model it wraps, at a time of another path."""
    path = kf.interpolants.TrigFlow(1.15)
    carried = kf.ReparametrizedInterface(model(), path)
    x, n, t = draw(rng, path, 16)
    x, n, t = (ops.convert_to_tensor(a) for a in (x, n, t))
    expected = model(path).endpoints(x, n, t)
    for a, b in zip(carried.endpoints(x, n, t), expected, strict=True):
        np.testing.assert_allclose(
            ops.convert_to_numpy(a), ops.convert_to_numpy(b), atol=1e-6
        )
    for name in ("sample_x_t", "target"):
        np.testing.assert_allclose(
            ops.convert_to_numpy(getattr(carried, name)(x, n, t)),
            ops.convert_to_numpy(getattr(model(path), name)(x, n, t)),
            atol=1e-6,
        )


def test_bad_input():
    network = kf.networks.MLP(2, width=8, depth=1)
    with pytest.raises(ValueError, match="'mip' does not"):
        kf.FlowMapInterface(network, "mip", stable_target=True)
    teacher = kf.ReparametrizedInterface(
        kf.FlowMapInterface(network, "flow"), kf.interpolants.TrigFlow(1.15)
    )
    teacher.trainable = False
    student = kf.networks.MLP(2, width=8, depth=1)
    with pytest.raises(ValueError, match="`teacher` leaves nothing"):
        kf.SCDInterface(student, teacher, x_sigma=1.15, stable_target=True)
    interface = model()
    x, n, t = (np.zeros(s, "float32") for s in ((4, 2), (4, 2), (4,)))
    with pytest.raises(ValueError, match="integer labels"):
        endpoints(interface, x, n, t, np.zeros((4, 3), "float32"))
    chunks = kf.FlowMapInterface(
        kf.networks.MLP((4, 3), width=8, depth=1),
        "flow",
        stable_target=True,
    )
    x = np.zeros((2, 4, 3), "float32")
    with pytest.raises(ValueError, match="'mask'"):
        chunks.loss(x, extras={"mask": np.ones((2, 4), "float32")})
