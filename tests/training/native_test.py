"""The hand-written steps of `benchmarks/native` have the losses of ours."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest
from keras import ops

import keras_flows as kf

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="written in PyTorch"
)
FILE = pathlib.Path(__file__).parents[2] / "benchmarks/native/torch_steps.py"


def native():
    spec = importlib.util.spec_from_file_location("torch_steps", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("objective", ["flow", "lsd"])
def test_the_same_loss(objective):
    import torch

    module, flow = native(), objective == "flow"
    network = kf.networks.MLP(2, 16, 2, two_times=not flow)
    if flow:
        model = kf.SiTInterface(network, train_time_dist_type="uniform")
    else:
        model = kf.FlowMapInterface(network, objective)
    net = module.Net(16, 2, 1 if flow else 2)
    (directions, *weights) = [v.value.detach() for v in network.variables]
    net.directions.copy_(directions)
    with torch.no_grad():
        for layer in net.layers:
            kernel, bias = weights.pop(0), weights.pop(0)
            layer.weight.copy_(kernel.T)
            layer.bias.copy_(bias)
    rng = np.random.default_rng(0)
    x, n = (
        torch.tensor(rng.normal(size=(8, 2)), dtype=torch.float32)
        for _ in range(2)
    )
    t, r = np.sort(rng.uniform(size=(2, 8)), 0).astype("float32")
    t, r = torch.tensor(t), torch.tensor(r)
    model.sample_n = lambda shape: n
    if flow:
        model.draw_t = lambda x: t
        expected = module.flow_loss(net, x, n, t)
    else:
        off = torch.arange(8) % 4 == 0
        model.draw_t_r = lambda x, rows: (t, torch.where(off, r, t))
        expected = module.lsd_loss(net, x, n, t, r)
    found, _ = model.compute((x,), training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=1e-5
    )


@pytest.mark.parametrize("objective", ["flow", "lsd"])
def test_the_step_trains(objective):
    step = native().make(
        {
            "objective": objective, "width": 32, "depth": 2, "batch_size": 64,
            "seed": 0,
        }
    )  # fmt: skip
    losses = [float(step()) for _ in range(200)]
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:20])
