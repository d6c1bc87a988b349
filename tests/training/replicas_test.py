"""A step that one replica cannot take is skipped by all of them."""

import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent

SKIP = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices('CPU')[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import keras_flows as kf
strategy = tf.distribute.MirroredStrategy(['CPU:0', 'CPU:1'])
with strategy.scope():
    keras.utils.set_random_seed(0)
    x, t = keras.Input((2,), name='x'), keras.Input((), name='t')
    h = keras.layers.Concatenate()([x, keras.layers.Reshape((1,))(t)])
    h = keras.layers.BatchNormalization()(keras.layers.Dense(8)(h))
    network = keras.Model({'x': x, 't': t}, keras.layers.Dense(2)(h))
    model = kf.SiTInterface(network, ema=0.9, seed=0)
    optimizer = keras.optimizers.Adam(0.01)
    if sys.argv[1] == 'scaled':
        optimizer = keras.optimizers.LossScaleOptimizer(
            optimizer, initial_scale=8.0)
    model.compile(optimizer)

def floats():
    variables = [*model.variables, *optimizer.variables]
    return {f'{i} {v.path}': np.stack([
                np.asarray(part) for part in
                getattr(v.value, 'values', [v.value])])
            for i, v in enumerate(variables)
            if v.dtype == 'float32' and 'scale' not in v.path}

good = np.random.default_rng(0).standard_normal((32, 2)).astype('float32')
start = floats()
model.fit(good, batch_size=16, verbose=0)
before = floats()
moved = [k for k in start if k in before and (start[k] != before[k]).any()]
assert any('moving_mean' in k for k in moved), moved
for row in (3, 12):
    bad = good[:16].copy()
    bad[row] = 1e25
    rows = tf.data.Dataset.from_tensor_slices((bad,)).batch(16)
    model.fit(rows, verbose=0)
    after = floats()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key], key)
    assert np.isfinite(after[key]).all()
assert int(model.skipped_steps.numpy()) == 2, model.skipped_steps
assert int(model.emas[0].updates.numpy()) == 2
print('SKIPPED')
"""


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute"
)
@pytest.mark.parametrize("optimizer", ["plain", "scaled"])
def test_replicas_skip_together(optimizer):
    result = subprocess.run(
        [sys.executable, "-c", SKIP, optimizer],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    assert "SKIPPED" in result.stdout, result.stderr[-3000:]
