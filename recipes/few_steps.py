"""One teacher, every few-step method, one table and one figure.

    KERAS_BACKEND=jax python recipes/few_steps.py --out=out/few_steps

Hardware: 2 CPU cores, 1 to 3 minutes a method, 9 for DMD2 of four steps. A
flow-matching teacher learns the checkerboard; then every method trains a
network of the same size for the same number of steps and examples, from scratch
or from the teacher. The figure of merit is the KL of histograms (60 bins on
[-2.5, 2.5]^2, 100,000 samples, perfect samples score about 0.011) at 1, 2, 4
and 8 network calls; LSD, trained in the same run, is what the others are held
against. The teacher and all that learn from sampled velocities have stable
targets (`stable_target=True`), but for "lsd (sampled)" as published.

The rows "cd eta=..." distil the teacher by discrete consistency with a walk
that is stochastic to the degree eta (DDIM's), 0 being the ODE: what randomness
in the teacher buys.

Writes to --out: config.json, results.json, table.md, few_steps.png and the
teacher's and every method's preset. Methods trained before into the same --out
with the same configuration are not trained again.
"""

import json
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _quiet  # noqa: F401
import keras
import numpy as np
from _common import cosine
from _common import muon
from _common import pyplot
from _common import save_figure
from _common import settings
from _common import write
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_list("methods", None, "Methods to train; by default all.")
flags.DEFINE_integer("steps", 6_000, "Steps of each method.", lower_bound=6)
flags.DEFINE_integer(
    "teacher_steps", 9_000, "Steps of the teacher.", lower_bound=1
)
flags.DEFINE_integer("batch_size", 512, "Batch size.", lower_bound=4)
flags.DEFINE_integer("width", 128, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_float("ema", 0.998, "Decay of the moving averages.")
flags.DEFINE_integer("num_samples", 100_000, "Samples of each KL.")
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/few_steps", "Folder for what it makes.")

CALLS = (1, 2, 4, 8)
STAGES = (32, 16, 8, 4, 2, 1)
DATA_STD = 4.0 / 12**0.5
PATH = kf.interpolants.Linear(noise_at=0.0)
TRIG = kf.interpolants.TrigFlow(DATA_STD)
# Time features for objectives with the derivative of a network by its own
# time: fast ones would rule it. Differences by time want them slower, too.
SLOW = {"max_frequency": 4.0}
SMOOTH = {"time_features": 5, "max_frequency": 20.0}
# The ends of the path, and the jump all along it, more often.
ENDS = kf.interpolants.Beta(0.5, 0.5)
# Peak of the cosine schedule, where it is not the default.
RATE = 4e-3
RATES = {
    "sct": 2e-3,
    "scd": 2e-3,
    "dmd2": 6e-3,
    "dmd2 (4 steps)": 3e-3,
}


def network(two_times, **options):
    """The same multilayer perceptron for every method."""
    return kf.networks.MLP(
        2,
        width=FLAGS.width,
        depth=FLAGS.depth,
        two_times=two_times,
        fourier_scale=4.0,
        activation="gelu",
        **{"max_frequency": 100.0, **options},
    )


def common():
    return {"ema": FLAGS.ema, "seed": FLAGS.seed}


def flow_map(objective, features=None, **options):
    def build(teacher):
        known = kf.objectives.get(objective)
        if known.teacher == "required":
            options["teacher"] = teacher
        return kf.FlowMapInterface(
            network(True, **(features or {})),
            objective,
            x_sigma=DATA_STD,
            **{"stable_target": known.stable, **common(), **options},
        )

    return build


def discrete(features=None, teacher_sampler=None, **options):
    def build(teacher):
        if teacher_sampler is not None:
            options["teacher"] = teacher
            options["teacher_sampler"] = teacher_sampler
        return kf.ConsistencyInterface(
            network(False, **(features or {})),
            PATH,
            total_steps=FLAGS.steps,
            x_sigma=DATA_STD,
            stable_target=teacher_sampler is None,
            **common(),
            **options,
        )

    return build


def trig(distilled):
    def build(teacher):
        options = dict(
            common(), x_sigma=DATA_STD, warmup_steps=FLAGS.steps // 2
        )
        slow = network(False, **SLOW)
        if not distilled:
            return kf.SCTInterface(slow, stable_target=True, **options)
        teacher = kf.ReparametrizedInterface(teacher, TRIG)
        teacher.trainable = False
        return kf.SCDInterface(slow, teacher, **options)

    return build


def progressive(teacher):
    return kf.ProgressiveInterface(
        teacher,
        num_steps=STAGES,
        steps_per_stage=FLAGS.steps // len(STAGES),
    )


def matching(adversarial=False, fake_updates=2, **options):
    # The published 5 updates of the fake network leave the generator few of
    # its own in so short a training.
    def build(teacher):
        if adversarial:
            # The published weights, 3e-3 and 1e-2, are for images.
            options.update(
                discriminator=network(False, name="discriminator"),
                adversarial_weight=0.3,
                discriminator_weight=1.0,
            )
        return kf.DMDInterface(teacher, fake_updates=fake_updates, **options)

    return build


def distillation(eta):
    # With 64 fixed levels, as in the first paper, eta = 0 had 0.19 in 4 calls.
    return discrete(
        teacher_sampler=kf.samplers.DDIM(eta=eta), schedule="ect", norm="l2"
    )


# name: (what it needs, how to build it from the teacher)
METHODS = {
    "lsd": ("scratch", flow_map("lsd")),
    "lsd (sampled)": ("scratch", flow_map("lsd", stable_target=False)),
    "psd": (
        "scratch",
        flow_map("psd", SMOOTH, train_time_dist_type=ENDS),
    ),
    "shortcut": ("scratch", flow_map("shortcut", SMOOTH)),
    "imm": (
        "scratch",
        flow_map(kf.objectives.IMM(power=14), SMOOTH),
    ),
    "cm (ict)": ("scratch", discrete(SLOW, schedule="ict", max_levels=160)),
    "ect": ("scratch", discrete(schedule="ect")),
    "sct": ("scratch", trig(False)),
    "lmd": ("teacher", flow_map("lmd")),
    "emd": ("teacher", flow_map("emd", SLOW)),
    "ayf": ("teacher", flow_map("ayf", SLOW)),
    "scd": ("teacher", trig(True)),
    "progressive": ("teacher", progressive),
    "dmd2": ("teacher", matching(adversarial=True)),
    "dmd2 (4 steps)": (
        "teacher",
        matching(
            adversarial=True, fake_updates=1, num_steps=4, separate_fakes=True
        ),
    ),
    "sid": ("teacher", matching(method="sid")),
    "cd eta=0": ("teacher", distillation(0.0)),
    "cd eta=0.25": ("teacher", distillation(0.25)),
    "cd eta=0.5": ("teacher", distillation(0.5)),
    "cd eta=1": ("teacher", distillation(1.0)),
}
# Generators that know their own numbers of steps only.
OWN_CALLS = {"dmd2": (1,), "sid": (1,), "dmd2 (4 steps)": (4,)}
flags.register_validator(
    "methods",
    lambda names: not names or set(names) <= set(METHODS),
    f"must be some of: {', '.join(METHODS)}",
)


def schedule(name, steps):
    rate = RATES.get(name, RATE)
    return cosine(rate, max(steps - 100, 1), min(100, steps))


def optimizer(name, steps):
    return muon(schedule(name, steps))


def measure(model, metric, num_steps, sampler=None):
    samples = model.generate(
        FLAGS.num_samples,
        num_steps=num_steps,
        sampler=sampler,
        seed=FLAGS.seed + 7,
    )
    samples = keras.ops.convert_to_numpy(samples)
    return metric(samples), samples


class StageEnds(keras.callbacks.Callback):
    """Measures the student of each stage where the stage ends."""

    def __init__(self, metric):
        super().__init__()
        self.metric = metric
        self.found = {}

    def on_epoch_end(self, epoch, logs=None):
        if STAGES[epoch] in CALLS:
            self.found[STAGES[epoch]] = measure(
                self.model, self.metric, STAGES[epoch]
            )


def fit(name, model, steps, callbacks=()):
    """Train; returns the seconds, without those of the callbacks."""
    keras.utils.set_random_seed(FLAGS.seed)
    if isinstance(model, kf.DMDInterface):
        turns = steps // (1 + model.objective.fake_updates)
        # Adam, as published: Muon is the worse for two rivals. A discriminator
        # wants no momentum, as in other adversarial training.
        momentum = 0.9 if model.discriminator is None else 0.0
        model.compile(
            *(
                keras.optimizers.Adam(
                    schedule(name, count),
                    beta_1=momentum,
                    beta_2=0.99,
                    global_clipnorm=1.0,
                )
                for count in (turns, steps - turns)
            )
        )
    else:
        model.compile(optimizer(name, steps))
    data = kf.datasets.Endless(
        kf.datasets.Checkerboard(), FLAGS.batch_size, seed=FLAGS.seed
    )
    start = time.time()
    model.fit(
        data,
        steps_per_epoch=steps // len(STAGES),
        epochs=len(STAGES),
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar(), *callbacks],
    )
    return time.time() - start


def train(name, teacher, metric):
    """(result, {calls: samples}, model) of one method."""
    keras.utils.set_random_seed(FLAGS.seed)
    needs, build = METHODS[name]
    model = build(teacher)
    staged = isinstance(model, kf.ProgressiveInterface)
    stages = StageEnds(metric)
    seconds = fit(name, model, FLAGS.steps, [stages] if staged else [])
    if staged:
        found = stages.found
    else:
        found = {
            n: measure(model, metric, n) for n in OWN_CALLS.get(name, CALLS)
        }
    result = {
        "needs": needs,
        "kl": {str(n): found[n][0] for n in CALLS if n in found},
        "training_seconds": round(seconds, 1),
    }
    return result, {n: found[n][1] for n in found}, model


def teach(out, metric):
    """The teacher, from --out if it is there, and what it samples."""
    path = out / "teacher"
    if path.exists():
        teacher = kf.FlowMapInterface.from_preset(path)
        seconds = json.loads((out / "teacher.json").read_text())
        seconds = seconds["training_seconds"]
    else:
        keras.utils.set_random_seed(FLAGS.seed)
        teacher = kf.FlowMapInterface(
            network(False), "flow", stable_target=True, **common()
        )
        seconds = round(fit("teacher", teacher, FLAGS.teacher_steps), 1)
        teacher.save_to_preset(path)
        write(out / "teacher.json", {"training_seconds": seconds})
    teacher.trainable = False
    rows = {
        "teacher (Heun)": {128: measure(teacher, metric, 64, "heun")},
        "teacher (Euler)": {
            n: measure(teacher, metric, n, "euler") for n in CALLS
        },
        "teacher (DPM-Solver++)": {
            n: measure(teacher, metric, n, "dpm_solver++") for n in CALLS
        },
    }
    results = {
        name: {
            "needs": "",
            "kl": {str(n): kl for n, (kl, _) in row.items()},
            "training_seconds": seconds,
        }
        for name, row in rows.items()
    }
    samples = {
        name: {n: x for n, (_, x) in row.items()} for name, row in rows.items()
    }
    return teacher, results, samples


def table(results, floor):
    """Markdown; every KL, and in brackets its ratio to LSD's."""
    lsd = results.get("lsd", {}).get("kl", {})
    counts = [*map(str, CALLS), "128"]
    lines = [
        "| method | needs | 1 call | "
        + " | ".join(f"{n} calls" for n in counts[1:])
        + " | seconds |",
        "|---" * (3 + len(counts)) + "|",
    ]  # fmt: skip
    for name, result in results.items():
        cells = []
        for n in counts:
            value = result["kl"].get(n)
            ratio = f" ({value / lsd[n]:.2f})" if value and n in lsd else ""
            cells.append("" if value is None else f"{value:.4f}{ratio}")
        lines.append(
            f"| {name} | {result['needs']} | {' | '.join(cells)} | "
            f"{result['training_seconds']:.0f} |"
        )
    return "\n".join([*lines, "", f"Perfect samples score {floor:.4f}."]) + "\n"


def picture(path, results, samples):
    """KL against calls and training seconds, and samples of fewest calls."""
    plt = pyplot()

    shown = [name for name in results if name in samples]
    columns = 5
    rows = -(-len(shown) // columns)
    figure = plt.figure(figsize=(13, 4.6 + 2.7 * rows), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.6, 2.7 * rows])
    curves, seconds = top.subplots(1, 2)
    colours = plt.get_cmap("turbo")(np.linspace(0.0, 1.0, len(results)))
    for i, (name, result) in enumerate(results.items()):
        style = {"color": colours[i], "label": name}
        if name.startswith("teacher"):
            style["linestyle"] = ":"
        calls = [int(n) for n in result["kl"]]
        curves.plot(calls, result["kl"].values(), marker="o", ms=4, **style)
        if "1" in result["kl"] and not name.startswith("teacher"):
            x, y = result["training_seconds"], result["kl"]["1"]
            seconds.plot(x, y, "o", color=style["color"])
            seconds.annotate(
                name, (x, y), (4, 3), textcoords="offset points", fontsize=7
            )
    for axis, label in (
        (curves, "network calls"),
        (seconds, "training seconds"),
    ):
        axis.set_yscale("log")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    curves.set_xscale("log", base=2)
    curves.set_ylabel("KL (nats)")
    seconds.set_ylabel("KL at 1 call")
    curves.legend(fontsize=6, ncols=2)
    axes = bottom.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, name in zip(axes, shown, strict=False):
        x = samples[name]
        axis.hist2d(
            x[:, 0], x[:, 1], bins=120, range=[[-2.5, 2.5]] * 2, cmap="magma"
        )
        axis.set_aspect("equal")
        kl = next(iter(results[name]["kl"].values()))
        axis.set_title(f"{name}: KL {kl:.3f}", fontsize=8)
    save_figure(path, figure, 80)


def configure(out):
    """Check --out against an earlier run's configuration, and note ours."""
    config = settings(
        "steps", "teacher_steps", "batch_size", "width", "depth", "ema",
        "num_samples", "seed",
    )  # fmt: skip
    path = out / "config.json"
    if path.exists() and json.loads(path.read_text()) != config:
        raise ValueError(
            f"--out={str(out)!r} holds runs of another configuration, "
            f"{path.read_text()}; name another folder."
        )
    write(path, config)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    configure(out)
    metric = kf.metrics.HistogramKL(
        kf.datasets.Checkerboard(), bins=60, extent=2.5
    )
    teacher, results, _ = teach(out, metric)
    path = out / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    results |= {k: v for k, v in known.items() if k in METHODS}
    for name in FLAGS.methods or METHODS:
        if name in results:
            continue
        results[name], samples, model = train(name, teacher, metric)
        print(name, results[name], flush=True)
        folder = out / name.replace(" ", "_")
        model.save_to_preset(folder)
        fewest = samples[min(samples)]
        np.save(folder / "samples.npy", fewest.astype("float16"))
        write(path, results)
    order = [k for k in results if k not in METHODS]
    results = {k: results[k] for k in (*order, *METHODS) if k in results}
    write(path, results)
    write(out / "table.md", table(results, metric.floor(FLAGS.num_samples)))
    samples = {
        name: np.load(file)
        for name in METHODS
        if name in results
        and (file := out / name.replace(" ", "_") / "samples.npy").exists()
    }
    picture(out / "few_steps.png", results, samples)
    print((out / "table.md").read_text())
    print(f"Wrote {out}/results.json, table.md and few_steps.png")


if __name__ == "__main__":
    app.run(main)
