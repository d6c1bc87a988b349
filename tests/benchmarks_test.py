"""The peers that the benchmarks measure against compute the same loss."""

import keras
import numpy as np
import pytest

import keras_flows as kf
from benchmarks import native

RNG = np.random.default_rng(0)


def perturbed(network):
    """No weight is 0: a gate or a last layer at 0 would hide the rest."""
    for weight in network.weights:
        change = 0.1 * RNG.standard_normal(weight.shape)
        weight.assign(weight + change.astype("float32"))
    return network


CASES = {
    "mlp": (lambda: kf.networks.MLP(2, width=16, depth=2), (2,), None),
    "dit": (
        lambda: kf.networks.DiT((8, 8, 4), 2, 64, 2, 1, num_classes=5),
        (8, 8, 4),
        5,
    ),
}


class Told(kf.SiTInterface):
    """Noise and times are given."""

    def sample_n(self, shape):
        return keras.ops.convert_to_tensor(self.told["noise"])

    def draw_t(self, x):
        return keras.ops.convert_to_tensor(self.told["t"])


@pytest.mark.parametrize("case", CASES)
def test_native_peer_computes_the_same_loss(case):
    build, shape, classes = CASES[case]
    network = perturbed(build())
    try:
        peer = native.module(case)
    except ImportError:
        pytest.skip("no peer for this backend")
    data, noise = RNG.standard_normal((2, 6, *shape)).astype("float32")
    t = RNG.uniform(0.1, 0.9, 6).astype("float32")
    labels = None if classes is None else RNG.integers(0, classes, 6)
    labels = labels if classes is None else labels.astype("int32")
    model = Told(network, cond_drop_ratio=0.0, ema=None)
    model.told = {"noise": noise, "t": t}
    ours = keras.ops.mean(model.loss(data, labels)["loss"])
    weights = {
        name: keras.ops.convert_to_tensor(value)
        for name, value in native.weights_of(network).items()
    }
    given = [
        None if a is None else keras.ops.convert_to_tensor(a)
        for a in (data, labels, noise, t)
    ]
    by_hand = peer.loss(weights, *given)
    np.testing.assert_allclose(float(ours), float(by_hand), rtol=1e-5)


def test_native_loop_trains():
    """Adam's loop by hand lowers the loss as `fit` does."""
    try:
        training, peer = (native.module(w) for w in ("training", "mlp"))
    except ImportError:
        pytest.skip("no peer for this backend")
    network = kf.networks.MLP(2, width=32, depth=2)
    run = training.trainer(
        peer.loss, native.weights_of(network), native.trained(network),
        learning_rate=1e-2,
    )  # fmt: skip
    data = kf.datasets.Checkerboard().sample(512, 0)
    losses = [float(run(data)) for _ in range(200)]
    # The times and noise are drawn: the loss falls to about 1.9 from 2.2.
    assert np.mean(losses[-50:]) < 0.9 * np.mean(losses[:5])
