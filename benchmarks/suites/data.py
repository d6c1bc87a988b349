"""Batches read from files, beside the plainest code that reads them."""

import pathlib
import tempfile
import time

import numpy as np
from absl import flags

import keras_flows as kf
from benchmarks.timing import rows

FLAGS = flags.FLAGS
COUNT = 2048
SIZE = 64


def data():
    """Images a second of a folder of PNG files, each epoch in an order."""
    from PIL import Image

    rng = np.random.default_rng(FLAGS.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for label in range(2):
            (folder / str(label)).mkdir()
        for i in range(COUNT):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / str(i % 2) / f"{i}.png")
        batches = kf.datasets.from_image_folder(folder, 64)

        def ours():
            for i in range(batches.num_batches):
                batches[i]

        return _rates({"tf.data": _by_tf_data(folder), "ours": ours})


def _by_tf_data(folder):
    import tensorflow as tf

    files = sorted(map(str, folder.rglob("*.png")))

    def decoded(path):
        pixels = tf.io.decode_png(tf.io.read_file(path))
        return tf.cast(pixels, tf.float32) / 127.5 - 1.0

    dataset = (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files))
        .map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(64)
        .prefetch(tf.data.AUTOTUNE)
    )

    def run():
        for _ in dataset:
            pass

    return run


def _rates(runs):
    """{name: {"records_per_second", "spread", "ratio"}}."""
    values = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(FLAGS.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            values[name].append(COUNT / (time.perf_counter() - start))
    return rows(values, next(iter(runs)), "records_per_second")
