"""The policies of recipes/metaworld.py."""

import json
import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
from absl import flags

import keras_flows as kf
from benchmarks.suites.fits import of_models

FLAGS = flags.FLAGS

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


def noise_windows(rng):
    """Windows of episodes of noise, of Meta-World's shapes."""
    episodes = [
        {
            "observation": rng.standard_normal((100, 21)).astype("float32"),
            "action": rng.uniform(-1, 1, (100, 4)).astype("float32"),
        }
        for _ in range(20)
    ]
    return kf.datasets.robots.Windows(episodes, repeat=True)


def policies():
    """The suite of that name."""
    rng = np.random.default_rng(FLAGS.seed)
    windows = noise_windows(rng)
    chosen = dict.fromkeys(["regression", *(FLAGS.objectives or OBJECTIVES)])
    models = {name: policy(name, windows) for name in chosen}
    results = of_models(models, windows, "regression")
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
