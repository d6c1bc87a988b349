"""Several devices in one process: 8 simulated of JAX, 2 of TensorFlow.

    python devices.py FOLDER OBJECTIVE...

Prints "EQUAL <objective> <layout> <kind> <distance>" against one device, and
"KEPT <from> <to>" for each pair of layouts between which a run was moved.
"""

import contextlib
import functools
import os
import pathlib
import sys

BACKEND = os.environ["KERAS_BACKEND"]
if BACKEND == "jax":
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "")
        + " --xla_force_host_platform_device_count=8"
    )
else:
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )

import keras
import numpy as np

import keras_flows as kf

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from helpers import replicas


def model_parallel():
    """Kernels split over 2 of 4 x 2 devices, data over 4."""
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((4, 2), ["batch", "model"], devices)
    rules = keras.distribution.LayoutMap(mesh)
    rules[".*kernel"] = (None, "model")
    return keras.distribution.ModelParallel(
        layout_map=rules, batch_dim_name="batch"
    )


LAYOUTS = {
    "one": lambda: None,
    "data_parallel": lambda: keras.distribution.DataParallel(
        devices=keras.distribution.list_devices()
    ),
    "fully_sharded": lambda: kf.training.FullySharded(min_size=8),
    "model_parallel": model_parallel,
}


@contextlib.contextmanager
def layout(name):
    """Within, what is built is laid out so."""
    if BACKEND == "jax":
        keras.distribution.set_distribution(LAYOUTS[name]())
        try:
            yield
        finally:
            keras.distribution.set_distribution(None)
    elif name == "one":
        yield
    else:
        with _mirrored().scope():
            yield


@functools.cache
def _mirrored():
    """One for all: a second one's collectives take the first one's keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def devices_of(model):
    """How many devices hold the largest kernel, and its share on each."""
    value = max(model.trainable_variables, key=lambda v: np.prod(v.shape)).value
    if BACKEND == "tensorflow":
        return len(getattr(value, "values", [value])), 1.0
    share = np.prod(value.sharding.shard_shape(value.shape))
    return len(value.sharding.device_set), share / np.prod(value.shape)


def replica():
    """(index, number) of a replica of TensorFlow."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 0, 1
    return context.replica_id_in_sync_group, context.num_replicas_in_sync


def same_seeds():
    """Replicas of TensorFlow with the seeds of one device."""
    if BACKEND == "tensorflow":
        kf.training.SeedGenerator.next = keras.random.SeedGenerator.next


def check_noise():
    """No two replicas draw the same."""
    with layout("data_parallel"):
        generator = replicas.made("flow").seed_generator
        if BACKEND == "jax":
            rows = keras.random.normal((16, 4), seed=generator)
            drawn = np.split(np.asarray(rows), 8)
        else:
            drawn = tf.distribute.get_strategy().run(
                lambda: keras.random.normal((4,), seed=generator)
            )
            drawn = [value.numpy() for value in drawn.values]
    for i, a in enumerate(drawn):
        for b in drawn[:i]:
            assert np.abs(a - b).max() > 1e-2
    print("NOISE", len(drawn))


def check_equal(objective, names):
    place = replica if BACKEND == "tensorflow" else None
    with layout("one"):
        expected = replicas.trained(objective)
    for name in names:
        with layout(name):
            found = replicas.trained(objective, place=place)
        for kind, worst in replicas.distance(found, expected).items():
            print("EQUAL", objective, name, kind, worst)


def check_kept(folder, names):
    """A run that is moved from one layout to the next."""
    before = None
    for epochs, name in enumerate(names, start=1):
        with layout(name):
            model = replicas.made("lsd")
            print("DEVICES", name, *devices_of(model))
            after = replicas.kept(folder, epochs)
        if before is not None:
            replicas.check_kept(before, after, epochs)
            print("KEPT", names[epochs - 2], name)
        before = after


if __name__ == "__main__":
    folder, *objectives = sys.argv[1:]
    several = [name for name in LAYOUTS if name != "one"]
    if BACKEND == "tensorflow":
        several = ["data_parallel"]
    check_noise()
    same_seeds()
    for objective in objectives:
        check_equal(objective, several)
    order = ["one"]
    for name in several:
        order += [name, "one"]
    if BACKEND == "jax":
        order += ["fully_sharded", "data_parallel", "model_parallel"]
    check_kept(pathlib.Path(folder) / "run", order)
