"""More than one device or process: gradients, noise and sharding."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import replicas

ROOT = pathlib.Path(__file__).parents[2]
BACKEND = keras.backend.backend()

JAX = """
import sys
import keras, numpy as np
import keras_flows as kf
from keras_flows.training.resume.state import variables as everything

rng = np.random.default_rng(0)
x = rng.standard_normal((160, 8, 8, 4)).astype('float32')
labels = rng.integers(0, 15, 160).astype('int32')
devices = keras.distribution.list_devices()
assert len(devices) == 8, devices
def check_loaded(model, folder, expected):
    assert kf.callbacks.load_checkpoint(model, folder) == 10
    for v, value in zip(everything(model), expected, strict=True):
        np.testing.assert_array_equal(np.asarray(v.value), value, v.path)
folder = None
for layout, distribution in {
    'one': None,
    'data_parallel': keras.distribution.DataParallel(devices=devices),
    'fully_sharded': kf.training.FullySharded(),
    'one again': None,
}.items():
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    network = kf.networks.DiT(
        (8, 8, 4), width=64, depth=1, num_heads=2, num_classes=15,
        two_times=True)
    model = kf.MeanFlowInterface(network, ema=0.9, seed=0)
    model.compile(keras.optimizers.Adam(1e-3))
    if layout == 'one again':
        check_loaded(model, folder, expected)
        print('MOVED')
        break
    losses = []
    class Losses(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs['mse']))
    model.fit(x, labels, batch_size=16, shuffle=False, verbose=0,
              callbacks=[Losses(), kf.callbacks.Checkpoint(
                  f'{sys.argv[1]}/{layout}')])
    variables = [*network.variables, *model.emas[0].averages,
                 *model.optimizer.variables]
    on = {len(v.value.sharding.device_set) for v in variables}
    table, share = kf.training.coverage(variables)
    print(table)
    now = [np.array(v.value) for v in everything(model)]
    if folder is not None:
        # Of the layout before, into this one.
        check_loaded(model, folder, expected)
        assert {len(v.value.sharding.device_set) for v in variables} == on
    folder, expected = f'{sys.argv[1]}/{layout}', now
    print('LAYOUT', layout, max(on), share, *losses)
"""


def train_on_jax(folder):
    """{layout: (devices, share of the bytes on each, losses of 10 steps)}."""
    result = subprocess.run(
        [sys.executable, "-c", JAX, folder],
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
    assert "MOVED" in result.stdout
    found = {}
    for line in result.stdout.splitlines():
        if line.startswith("LAYOUT"):
            layout, devices, share, *losses = line.split()[1:]
            losses = [float(v) for v in losses]
            found[layout] = int(devices), float(share), losses
    return found


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution on JAX")
def test_jax_layouts_equal_one_device(tmp_path):
    """Rows split by stride, noise, averages: all as on one device.

    A checkpoint of each layout loads in the next: 1, 8, 8 split, 1.
    """
    found = train_on_jax(tmp_path)
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
# Two optimizers that take turns, which no conditional may hold here.
with strategy.scope():
    teacher = kf.SiTInterface(
        kf.networks.MLP(2, width=8, depth=1), ema=None, seed=0)
    teacher.trainable = False
    student = kf.DMDInterface(teacher, fake_updates=1)
    student.compile(keras.optimizers.Adam(0.01))
    # The fake network begins as the teacher: there is nothing to learn.
    for variable in student.trainable_variables:
        variable.assign_add(0.1 * keras.random.normal(variable.shape, seed=3))
groups = student.network, student.fake_networks[0]
start = [[v.numpy().copy() for v in g.variables] for g in groups]
turns = []
for _ in range(2):
    student.fit(x[:32], batch_size=32, verbose=0)
    now = [[v.numpy().copy() for v in g.variables] for g in groups]
    turns.append([any((a != b).any() for a, b in zip(*pair))
                  for pair in zip(start, now)])
    start = now
assert sorted(turns) == [[False, True], [True, False]], turns
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


@pytest.mark.skipif(
    BACKEND == "torch" or os.environ.get("EQUALITY") != "all",
    reason="long: EQUALITY=all; PyTorch's is in ranks_test",
)
def test_every_objective(tmp_path):
    """On all layouts as on one device, and runs move between them."""
    names = sorted(replicas.OBJECTIVES)
    result = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/devices.py", tmp_path, *names],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": BACKEND},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    print(result.stdout)
    lines = [line.split() for line in result.stdout.splitlines()]
    equal = [line[1:] for line in lines if line[:1] == ["EQUAL"]]
    layouts = 3 if BACKEND == "jax" else 1
    assert len(equal) == 5 * layouts * len(names)
    for objective, layout, kind, worst in equal:
        if (BACKEND, objective) == ("tensorflow", "dmd"):
            # The scale of its loss is of a replica's rows.
            continue
        assert float(worst) < 1e-5, (objective, layout, kind)
    moves = [line for line in lines if line[:1] == ["KEPT"]]
    assert len(moves) == (9 if BACKEND == "jax" else 2)
