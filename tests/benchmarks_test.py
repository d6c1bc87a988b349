"""The peers that the benchmarks measure against compute the same loss."""

import json
import pathlib

import keras
import numpy as np
import pytest

import keras_flows as kf
from benchmarks import native
from benchmarks import tables
from benchmarks import timing

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


@pytest.mark.once
def test_cost_model_stands_on_what_was_measured():
    docs = pathlib.Path(tables.__file__).parents[1] / "docs"
    found = json.loads((docs / "results" / "gpu.json").read_text())["images"]
    tflop = tables.flops(**tables.XL2) / 1e12
    assert tflop == pytest.approx(found["training_tflop_per_image"], rel=1e-3)
    milliseconds = found["rows"]["keras_flows, JAX"]["milliseconds"]
    assert tables.ASSUMED["milliseconds"] == pytest.approx(
        milliseconds, abs=0.05
    )
    assert tables.ASSUMED["images"] == found["batch_size"]
    network = kf.networks.DiT((8, 8, 4), 2, 32, 3, 2, num_classes=5)
    size = tables.flops(32, 3, 16)
    kernels = [w for w in network.weights if w.path.endswith("kernel")]
    # Of the blocks: a kernel is used once a token, and thrice in a step.
    used = sum(
        6 * np.prod(w.shape) * (1 if "modulation" in w.path else 16)
        for w in kernels
        if "block_" in w.path
    )
    assert size == used + 3 * 3 * 16 * 4 * 16 * 32


@pytest.mark.once
def test_interleaved_times_compare_each_round():
    clock = iter([0.0, 1.0, 1.0, 3.0, 3.0, 13.0, 13.0, 33.0])
    nothing = {"by hand": lambda: None, "ours": lambda: None}
    found = timing.interleaved(
        nothing, 2, "by hand", steps=10, clock=lambda: next(clock)
    )
    # The second round is ten times slower, and the ratio the same.
    assert found["ours"]["ratio"] == 2.0
    assert found["ours"]["milliseconds"] == pytest.approx(1100.0)
