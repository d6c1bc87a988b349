"""Training-step times as ratios measured in one run.

    KERAS_BACKEND=jax python tools/benchmark.py --out=out/benchmark

MLP 4 x 512, batch 2,048, guidance off: milliseconds of a flow-matching step
(SiTInterface) and a MeanFlow step at fm_portion 0.75, interleaved, and their
ratio; with --all_rows also MeanFlow with the JVP on every row.
"""

import json
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 2048, "Batch size.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_integer("rounds", 12, "Interleaved rounds.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Steps of a round.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_bool("all_rows", True, "Also MeanFlow with fm_portion 0.")
flags.DEFINE_string("out", "out/benchmark", "Folder for the figures.")


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


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    models = {
        "flow_matching": build(kf.SiTInterface),
        "mean_flow": build(kf.MeanFlowInterface, fm_portion=0.75),
    }
    if FLAGS.all_rows:
        models["mean_flow_all_rows"] = build(
            kf.MeanFlowInterface, fm_portion=0.0
        )
    data = kf.datasets.Endless(kf.datasets.Checkerboard(), FLAGS.batch_size)
    times = {name: [] for name in models}
    for model in models.values():
        model.fit(data, steps_per_epoch=5, verbose=0)
    for _ in range(FLAGS.rounds):
        for name, model in models.items():
            start = time.perf_counter()
            model.fit(data, steps_per_epoch=FLAGS.steps, verbose=0)
            times[name].append(
                1e3 * (time.perf_counter() - start) / FLAGS.steps
            )
    base = np.array(times["flow_matching"])
    results = {
        name: {
            "milliseconds": float(np.median(values)),
            # Of each round, so that a busy machine slows both alike.
            "ratio": float(np.median(np.array(values) / base)),
        }
        for name, values in times.items()
    }
    backend = keras.backend.backend()
    for name, result in results.items():
        print(
            f"{backend:<11} {name:<20} {result['milliseconds']:8.1f} ms  "
            f"{result['ratio']:.2f} flow-matching steps"
        )
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{backend}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
