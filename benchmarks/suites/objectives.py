"""Objectives beside flow matching, and what saving costs."""

import tempfile
import time

import keras
from absl import flags

import keras_flows as kf
from benchmarks.suites.fits import of_models
from benchmarks.timing import rows

FLAGS = flags.FLAGS


def build(cls, **kwargs):
    keras.utils.set_random_seed(FLAGS.seed)
    # Both networks take r, so that the two steps differ in the objective.
    network = kf.networks.MLP(
        2, width=FLAGS.width, depth=FLAGS.depth, two_times=True
    )
    model = cls(network, ema=None, seed=FLAGS.seed, **kwargs)
    model.compile(
        keras.optimizers.Adam(1e-4),
        jit_compile=keras.backend.backend() != "torch",
    )
    return model


def mean_flow():
    """The suite of that name."""
    models = {
        "flow_matching": build(kf.SiTInterface),
        "mean_flow": build(kf.MeanFlowInterface, fm_portion=0.75),
    }
    if FLAGS.all_rows:
        models["mean_flow_all_rows"] = build(
            kf.MeanFlowInterface, fm_portion=0.0
        )
    data = kf.datasets.Endless(kf.datasets.Checkerboard(), FLAGS.batch_size)
    return of_models(models, data, "flow_matching")


def checkpoint():
    """The suite of that name; a round takes 300 steps and three savings."""
    steps, batch_size = 300, 1024
    points = kf.datasets.Checkerboard().sample(steps * batch_size, FLAGS.seed)
    model = kf.FlowMapInterface(
        kf.networks.MLP(2, 256, 4, two_times=True),
        "lsd",
        ema=0.999,
        seed=FLAGS.seed,
    )
    model.compile(keras.optimizers.Adam(1e-3))
    model.fit(points[: 5 * batch_size], batch_size=batch_size, verbose=0)
    times = {"no saving": [], "every 100 steps": []}
    for _ in range(FLAGS.rounds):
        for name, values in times.items():
            with tempfile.TemporaryDirectory() as folder:
                keep = kf.callbacks.Checkpoint(folder, every_steps=100)
                start = time.perf_counter()
                model.fit(
                    points,
                    batch_size=batch_size,
                    callbacks=[keep] if name == "every 100 steps" else [],
                    verbose=0,
                )
                values.append(1e3 * (time.perf_counter() - start) / steps)
    return rows(times, "no saving")
