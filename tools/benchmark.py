"""Training-step times as ratios measured in one run.

    KERAS_BACKEND=jax python tools/benchmark.py --out=out/benchmark
    KERAS_BACKEND=jax python tools/benchmark.py --suite=policies

--suite=mean_flow: MLP 4 x 512, batch 2,048, guidance off: milliseconds of a
flow-matching step (SiTInterface) and a MeanFlow step at fm_portion 0.75,
interleaved, and their ratio; with --all_rows also MeanFlow with the JVP on
every row.

--suite=policies: the policies of recipes/metaworld.py, batch 256: a step of
each objective beside one of regression, and the milliseconds of one chunk for
one robot, by `predict_chunk` and by the exported SavedModel in a process of
TensorFlow alone.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_enum("suite", "mean_flow", ["mean_flow", "policies"], "What.")
flags.DEFINE_list("objectives", None, "Of the policies; all by default.")
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


def interleaved(models, data, base):
    """{name: {"milliseconds", "ratio"}} of a training step."""
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
    return {
        name: {
            "milliseconds": float(np.median(values)),
            # Of each round, so that a busy machine slows both alike.
            "ratio": float(np.median(np.array(values) / times[base])),
        }
        for name, values in times.items()
    }


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
    return interleaved(models, data, "flow_matching")


OBJECTIVES = (
    "regression", "flow", "mip", "tsd", "psd", "ctm", "lsd", "esd", "mf",
)  # fmt: skip


def policy(objective, windows):
    """A policy as recipes/metaworld.py has it, on windows of noise."""
    keras.utils.set_random_seed(FLAGS.seed)
    network = kf.networks.ChunkMLP(
        4,
        16,
        (2, 128),
        kf.objectives.get(objective).needs_r,
        width=128,
        depth=2,
        dropout=0.0,
    )
    made = kf.policies.Policy(
        kf.FlowMapInterface(network, objective, ema=0.995, seed=FLAGS.seed),
        kf.networks.MLPEncoder((2, 21), 128),
        action_low=-1.0,
        action_high=1.0,
    )
    made.adapt(windows)
    made.compile(
        keras.optimizers.AdamW(1e-3, global_clipnorm=10.0),
        jit_compile=keras.backend.backend() != "torch",
    )
    return made


def policies():
    """The suite of that name."""
    rng = np.random.default_rng(FLAGS.seed)
    episodes = [
        {
            "observation": rng.standard_normal((100, 21)).astype("float32"),
            "action": rng.uniform(-1, 1, (100, 4)).astype("float32"),
        }
        for _ in range(20)
    ]
    windows = kf.datasets.robots.Windows(episodes, repeat=True)
    chosen = dict.fromkeys(["regression", *(FLAGS.objectives or OBJECTIVES)])
    models = {name: policy(name, windows) for name in chosen}
    results = interleaved(models, windows, "regression")
    history = rng.standard_normal((1, 2, 21)).astype("float32")
    for name in set(models) & {"regression", "mip", "flow"}:
        results[name]["latency"] = kf.policies.latency(
            models[name].predict_chunk, history
        )
        results[name]["saved_model_latency"] = served(models[name])
    return results


# What a server runs: TensorFlow alone, without the threads of a backend.
SERVER = """
import json, sys, time
import numpy as np
import tensorflow as tf
folder, repeats = sys.argv[1:]
loaded = tf.saved_model.load(folder)
serve = loaded.signatures["serve"]
noise = tf.zeros((1, 16, 4))
times = []
for i in range(50 + int(repeats)):
    history = np.full((1, 2, 21), i % 7, "float32")
    start = time.perf_counter()
    serve(observation=tf.constant(history), noise=noise)["actions"].numpy()
    times.append(1e3 * (time.perf_counter() - start))
print("SERVED" + json.dumps({
    name: float(np.quantile(times[50:], q))
    for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
}))
"""


def served(model):
    """Latency of the exported policy, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        model.export(f"{folder}/policy", verbose=False)
        text = subprocess.run(
            [sys.executable, "-c", SERVER, f"{folder}/policy", "1000"],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return json.loads(text.split("SERVED")[1])


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    results = mean_flow() if FLAGS.suite == "mean_flow" else policies()
    backend = keras.backend.backend()
    for name, result in results.items():
        line = (
            f"{backend:<11} {name:<20} {result['milliseconds']:8.1f} ms  "
            f"{result['ratio']:.2f}"
        )
        for key in ("latency", "saved_model_latency"):
            if key in result:
                median, p99 = result[key]["median"], result[key]["p99"]
                line += f"  {key} {median:.2f} ms (p99 {p99:.2f})"
        print(line)
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    name = backend if FLAGS.suite == "mean_flow" else f"{backend}_policies"
    (out / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
