"""Train every objective on every backend and write the table.

    python recipes/objectives.py --out=out/objectives

Hardware: 2 CPU cores, about a minute for each objective on each backend.
Aim, marked where missed: the KL of every flow-map objective at N = 1 and 4
(of flow at 16 and 64) below half of the untrained one's; the action of every
policy objective within 0.05 of the closed-form conditional mean (root mean
square; an untrained one is off by about 0.7).

The checkerboard trains flow, ctm, psd, lsd, esd, mf, lmd and emd (the last
two distil the flow just trained). The policies' toy has observations o
uniform on [-1, 1] and actions a = (sin 2o, cos 2o) + 0.2 z, whose conditional
mean is known.

Writes results.json, table.md and a config.json.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _quiet  # noqa: F401
import keras
import numpy as np
from _common import cosine
from _common import muon
from _common import write
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
BACKENDS = ("jax", "tensorflow", "torch")
flags.DEFINE_list("backends", list(BACKENDS), "Backends to run.")
flags.register_validator(
    "backends",
    lambda names: set(names) <= set(BACKENDS),
    f"must be some of {', '.join(BACKENDS)}",
)
flags.DEFINE_integer(
    "steps", None, "Training steps; by default a minute's.", lower_bound=1
)
flags.DEFINE_list(
    "objectives",
    None,
    "Objectives to run, all by default; the others' results in --out stay.",
)
flags.DEFINE_integer("batch_size", 512, "Batch size.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.register_validator(
    "objectives",
    lambda names: not names or set(names) <= set(GENERATIVE + POLICY),
    "must be some of the objectives that the table has",
)
flags.DEFINE_string("out", "out/objectives", "Folder for what it makes.")
flags.DEFINE_bool("child", False, "Run this process's backend only.")

GENERATIVE = ("flow", "ctm", "psd", "lsd", "esd", "mf", "lmd", "emd")
DISTILLED = ("lmd", "emd")
POLICY = ("regression", "straight_flow", "tsd", "mip")
STEPS = (1, 4)
SPREAD = 0.2
# About a minute of one CPU core; PyTorch runs op by op.
MINUTE = {"jax": 7500, "tensorflow": 7500, "torch": 3000}


class Demonstrations:
    """Observations o and actions a = (sin 2o, cos 2o) + 0.2 z."""

    def sample(self, num, seed):
        rng = np.random.default_rng(seed)
        o = rng.uniform(-1.0, 1.0, (num, 1))
        a = self.mean(o) + SPREAD * rng.standard_normal((num, 2))
        return a.astype("float32"), o.astype("float32")

    @staticmethod
    def mean(o):
        return np.concatenate([np.sin(2.0 * o), np.cos(2.0 * o)], axis=1)


def fit(model, data):
    """Train; returns the seconds."""
    keras.utils.set_random_seed(FLAGS.seed)
    name = model.objective.name
    rate = LEARNING_RATE.get(name, 4e-3)
    model.compile(muon(cosine(rate, FLAGS.steps, 50)))
    start = time.time()
    model.fit(
        data,
        steps_per_epoch=FLAGS.steps,
        epochs=1,
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar()],
    )
    return time.time() - start


def endless(data):
    """Batches (a, o) without end."""
    step = 0
    while True:
        yield data.sample(FLAGS.batch_size, (FLAGS.seed, step))
        step += 1


def call_counts(name):
    """The numbers of steps that an objective is measured at."""
    # One Euler step of a plain velocity goes to the mean of the data.
    return (16, 64) if name == "flow" else STEPS


def kl(model, metric):
    """KL at each of the objective's numbers of steps."""
    return [
        metric(
            keras.ops.convert_to_numpy(
                model.generate(50_000, num_steps=n, seed=1)
            )
        )
        for n in call_counts(model.objective.name)
    ]


# What departs from the defaults, found by one run each on JAX.
ENDS = {"train_time_dist_type": kf.interpolants.Beta(0.5, 0.5)}
OPTIONS = {
    # The map's residual is a difference over one step dt: at the default of
    # 0.01 its square weighs next to nothing beside the velocity's.
    "ctm": {"dt": 0.3},
    # With the spatial Jacobian stopped it diverges in some runs.
    "esd": {"stop_gradient": "convex"},
    # The policies' form, a time derivative against a stopped spatial one,
    # diverges here; the loss of the MeanFlow paper does not.
    "mf": {"stop_gradient": "target"},
}
SETTINGS = {
    "ctm": {
        "diagonal_portion": 0.5,
        "stable_target": True,
        **ENDS,
    },
    "psd": ENDS,
    "esd": ENDS,
    "mf": {
        "diagonal_portion": 0.5,
        "stable_target": True,
        **ENDS,
    },
}
LEARNING_RATE = {"ctm": 6e-3, "esd": 2e-3, "mf": 2e-3}
# A difference or derivative by time follows slower features better.
FAST = {"max_frequency": 100.0}
SLOW = {"time_features": 5, "max_frequency": 20.0}
SLOWER = {"max_frequency": 8.0}
TIME_FEATURES = {"ctm": SLOWER, "psd": SLOW, "esd": SLOW, "mf": SLOWER}


def generative(name, teacher, metric):
    keras.utils.set_random_seed(FLAGS.seed)
    network = kf.networks.MLP(
        2,
        width=128,
        depth=3,
        two_times=name != "flow",
        fourier_scale=4.0,
        activation="gelu",
        **TIME_FEATURES.get(name, FAST),
    )
    model = kf.FlowMapInterface(
        network,
        kf.objectives.get(name, **OPTIONS.get(name, {})),
        teacher=teacher if name in DISTILLED else None,
        seed=FLAGS.seed,
        **{"ema": 0.99, **SETTINGS.get(name, {})},
    )
    before = kl(model, metric)
    data = kf.datasets.Endless(
        kf.datasets.Checkerboard(), FLAGS.batch_size, FLAGS.seed
    )
    seconds = fit(model, data)
    after = kl(model, metric)
    return model, {
        "kl_untrained": dict(zip(call_counts(name), before, strict=True)),
        "kl": dict(zip(call_counts(name), after, strict=True)),
        "seconds": round(seconds, 1),
        "passed": all(a < 0.5 * b for a, b in zip(after, before, strict=True)),
    }


def policy(name):
    keras.utils.set_random_seed(FLAGS.seed)
    network = kf.networks.MLP(2, width=128, depth=3, condition_dim=1, **FAST)
    model = kf.FlowMapInterface(network, name, ema=0.99, seed=FLAGS.seed)
    o = np.linspace(-0.95, 0.95, 200, dtype="float32")[:, None]
    mean = Demonstrations.mean(o)

    def error():
        # tsd acts at random around the mean: average its actions.
        draws = [
            keras.ops.convert_to_numpy(model.generate(condition=o, seed=s))
            for s in range(64 if name == "tsd" else 1)
        ]
        return float(np.sqrt(np.mean((np.mean(draws, axis=0) - mean) ** 2)))

    before = error()
    seconds = fit(model, endless(Demonstrations()))
    after = error()
    return {
        "error_untrained": before,
        "error": after,
        "seconds": round(seconds, 1),
        "passed": after < 0.05,
    }


def run_backend(results):
    """The chosen objectives on this process's backend, into `results`."""
    chosen = FLAGS.objectives or GENERATIVE + POLICY
    metric = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
    teacher = None
    for name in GENERATIVE:
        wanted = name in chosen
        if wanted or (name == "flow" and set(DISTILLED) & set(chosen)):
            model, result = generative(name, teacher, metric)
            if teacher is None:
                teacher = model
                teacher.trainable = False
            if wanted:
                results[name] = result
                print(name, result, flush=True)
    for name in POLICY:
        if name in chosen:
            results[name] = policy(name)
            print(name, results[name], flush=True)
    return {k: results[k] for k in GENERATIVE + POLICY if k in results}


def cell(result):
    if "kl" in result:
        values = " / ".join(f"{v:.2f}" for v in result["kl"].values())
        start = " / ".join(f"{v:.1f}" for v in result["kl_untrained"].values())
    else:
        values = f"{result['error']:.3f}"
        start = f"{result['error_untrained']:.2f}"
    mark = "" if result["passed"] else " (MISSED)"
    return f"{values} (from {start}), {result['seconds']:.0f} s{mark}"


def table(results):
    lines = [
        "| objective | " + " | ".join(results) + " |",
        "|" + "---|" * (1 + len(results)),
    ]
    for name in GENERATIVE + POLICY:
        counts = " / ".join(map(str, call_counts(name)))
        kind = f"KL, N = {counts}" if name in GENERATIVE else "action error"
        if not all(name in result for result in results.values()):
            continue
        cells = [cell(result[name]) for result in results.values()]
        lines.append(f"| `{name}` ({kind}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    if FLAGS.child:
        name = keras.backend.backend()
        path = out / f"{name}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        write(path, json.dumps(run_backend(known), indent=2))
        return
    steps = {b: FLAGS.steps or MINUTE[b] for b in FLAGS.backends}
    path = out / "config.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    config = {
        "steps": {**known.get("steps", {}), **steps},
        "batch_size": FLAGS.batch_size,
        "seed": FLAGS.seed,
    }
    write(path, json.dumps(config, indent=2))
    for backend in FLAGS.backends:
        subprocess.run(
            [
                sys.executable,
                __file__,
                "--child",
                f"--out={out}",
                f"--steps={steps[backend]}",
                f"--batch_size={FLAGS.batch_size}",
                f"--seed={FLAGS.seed}",
                *(
                    [f"--objectives={','.join(FLAGS.objectives)}"]
                    if FLAGS.objectives
                    else []
                ),
            ],  # fmt: skip
            env={**os.environ, "KERAS_BACKEND": backend},
            check=True,
        )
    # Backends that ran before into the same --out stay in the table.
    results = {
        backend: json.loads((out / f"{backend}.json").read_text())
        for backend in BACKENDS
        if (out / f"{backend}.json").exists()
    }
    write(out / "results.json", results)
    write(out / "table.md", table(results))
    print(table(results))


if __name__ == "__main__":
    app.run(main)
