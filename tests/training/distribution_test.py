"""More than one device or process: gradients, noise and sharding."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
BACKEND = keras.backend.backend()

TORCH = """
import sys
import keras, numpy as np, torch
import torch.distributed as dist
import keras_flows as kf
from keras import ops
rank, world, store, out = int(sys.argv[1]), 2, sys.argv[2], sys.argv[3]
dist.init_process_group(
    'gloo', init_method='file://' + store, rank=rank, world_size=world)
keras.utils.set_random_seed(0)
network = kf.networks.MLP(2, 8, 1, two_times=True)
model = kf.FlowMapInterface(network, 'lsd', ema=None, seed=rank)
model.compile(keras.optimizers.SGD(0.1))
x = kf.datasets.Checkerboard().sample(16, rank)
model.train_on_batch(x)
np.savez(f'{out}/{rank}.npz', *[
    ops.convert_to_numpy(v.value) for v in network.trainable_variables])
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "torch", reason="torch.distributed")
def test_torch_processes_average_gradients(tmp_path):
    """Two ranks with other data and noise step to the same weights."""
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                TORCH,
                str(rank),
                str(tmp_path / "store"),
                str(tmp_path),
            ],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": "torch"},
        )
        for rank in range(2)
    ]
    assert [p.wait(timeout=120) for p in processes] == [0, 0]
    first, second = (np.load(tmp_path / f"{r}.npz") for r in range(2))
    moved = 0.0
    keras.utils.set_random_seed(0)
    import keras_flows as kf

    start = kf.networks.MLP(2, 8, 1, two_times=True).trainable_variables
    for name, v in zip(first.files, start):
        np.testing.assert_array_equal(first[name], second[name])
        moved = max(moved, np.abs(first[name] - v.numpy()).max())
    assert moved > 1e-4


JAX = """
import keras, numpy as np
import keras_flows as kf

rng = np.random.default_rng(0)
x = rng.standard_normal((160, 8, 8, 4)).astype('float32')
labels = rng.integers(0, 15, 160).astype('int32')
devices = keras.distribution.list_devices()
assert len(devices) == 8, devices
for layout, distribution in {
    'one': None,
    'data_parallel': keras.distribution.DataParallel(devices=devices),
    'fully_sharded': kf.training.FullySharded(),
}.items():
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    network = kf.networks.DiT(
        (8, 8, 4), width=64, depth=1, num_heads=2, num_classes=15,
        two_times=True)
    model = kf.MeanFlowInterface(network, ema=0.9, seed=0)
    model.compile(keras.optimizers.Adam(1e-3))
    losses = []
    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs['mse']))
    model.fit(x, labels, batch_size=16, shuffle=False, verbose=0,
              callbacks=[Losses()])
    variables = [*network.variables, *model.emas[0].averages,
                 *model.optimizer.variables]
    on = {len(v.value.sharding.device_set) for v in variables}
    table, share = kf.training.coverage(variables)
    print(table)
    print('LAYOUT', layout, max(on), share, *losses)
"""


def train_on_jax():
    """{layout: (devices, share of the bytes on each, losses of 10 steps)}."""
    result = subprocess.run(
        [sys.executable, "-c", JAX],
        cwd=ROOT,
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": os.environ["XLA_FLAGS"]
            + " --xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = {}
    for line in result.stdout.splitlines():
        if line.startswith("LAYOUT"):
            layout, devices, share, *losses = line.split()[1:]
            losses = [float(v) for v in losses]
            found[layout] = int(devices), float(share), losses
    return found


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution on JAX")
def test_jax_layouts_equal_one_device():
    """Rows split by stride, noise, averages: all as on one device."""
    found = train_on_jax()
    devices, _, one = found["one"]
    assert devices == 1 and len(one) == 10 and np.ptp(one) > 1e-3
    devices, share, parallel = found["data_parallel"]
    np.testing.assert_allclose(parallel, one, rtol=1e-5)
    assert devices == 8 and share == 1.0
    devices, share, sharded = found["fully_sharded"]
    np.testing.assert_allclose(sharded, one, rtol=1e-5)
    assert devices == 8 and abs(share - 1 / 8) < 0.1 / 8


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution on JAX")
def test_a_rule_that_matches_nothing_is_an_error():
    import keras_flows as kf

    network = kf.networks.MLP(2, 8, 1)
    mesh = keras.distribution.DeviceMesh(
        (1,), ["batch"], keras.distribution.list_devices()[:1]
    )
    rules = keras.distribution.LayoutMap(mesh)
    rules["hidden_.*/kernel"] = (None, None)
    kf.training.check_layout_map(rules, network.variables)
    rules["attention/kernel"] = (None, None)
    with pytest.raises(ValueError, match="attention/kernel"):
        kf.training.check_layout_map(rules, network.variables)


@pytest.mark.skipif(BACKEND == "jax", reason="what others say")
def test_layouts_need_jax():
    import keras_flows as kf

    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        kf.training.FullySharded()


TENSORFLOW = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices('CPU')[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import keras_flows as kf
strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
with strategy.scope():
    keras.utils.set_random_seed(0)
    network = kf.networks.MLP(2, 8, 1, two_times=True)
    model = kf.FlowMapInterface(network, 'lsd', ema=0.9, seed=0)
    model.compile(keras.optimizers.SGD(0.1))
generator = model.seed_generator
drawn = strategy.run(lambda: keras.random.normal((4,), seed=generator))
first, second = (v.numpy() for v in drawn.values)
assert np.abs(first - second).max() > 1e-3
before = [v.numpy().copy() for v in network.trainable_variables]
x = kf.datasets.Checkerboard().sample(64, 0)
logs = model.fit(x, batch_size=32, verbose=0).history
moved = sum(((a - v.numpy()) ** 2).sum()
            for a, v in zip(before, network.trainable_variables)) ** 0.5
print('MOVED', moved, logs['loss'][0], int(model.emas[0].updates.numpy()))
"""


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute")
def test_tensorflow_replicas_draw_other_noise_and_train():
    result = subprocess.run(
        [sys.executable, "-c", TENSORFLOW],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert "MOVED" in result.stdout, result.stderr[-3000:]
    moved, loss, updates = result.stdout.split("MOVED")[1].split()
    assert float(moved) > 1e-3 and np.isfinite(float(loss))
    assert int(updates) == 2
