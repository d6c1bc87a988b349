"""Train flow maps on the 2-D checkerboard and measure them.

    KERAS_BACKEND=jax python recipes/checkerboard.py --out=out/checkerboard

Hardware: 2 CPU cores, 5 minutes. Measured KL of LSD in 1 / 2 / 4 / 8 / 16
steps, mean of seeds 0 to 2: 0.111 / 0.085 / 0.076 / 0.054 / 0.049 (perfect
samples score about 0.011; published 0.4576 / 0.4298 / 0.3515 / 0.2651 /
0.2508). The shipped presets are runs of this recipe:
psd_checkerboard with --objective=psd --beta=0.5 --stable_target
--batch_size=2048 --steps=35000, lsd_checkerboard from its weights with
--beta=0.5 --weighting=batch --stable_target --batch_size=2048 --steps=28000
--learning_rate=3e-3 --initial=psd_checkerboard.

With --objective= (none) it only measures and draws the shipped presets.
Writes to --out, for each objective: config.json, results.json,
<objective>/preset (`kf.FlowMapInterface.from_preset` reads it),
<objective>/saved_model and <objective>/reference.npz (noise and the sample
it must give), and checkerboard.png.
"""

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
flags.DEFINE_list("objective", ["lsd"], "Objectives to train, in turn.")
flags.DEFINE_integer("steps", 7_000, "Training steps.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1024, "Global batch size.", lower_bound=1)
flags.DEFINE_float("learning_rate", 4e-3, "Peak of the cosine schedule.")
flags.DEFINE_float("ema", 0.999, "Decay of the moving average.")
flags.DEFINE_integer("width", 256, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_integer("fourier_features", 16, "Fourier features of x.")
flags.DEFINE_float("fourier_scale", 4.0, "Their spread, radians per unit.")
flags.DEFINE_integer("time_features", 5, "Frequencies of each time.")
flags.DEFINE_float("max_frequency", 20.0, "Their largest, radians per unit.")
flags.DEFINE_float(
    "beta",
    1.0,
    "Times are drawn from Beta(beta, beta): 1 is uniform, less trains the ends "
    "of the path, and the jump all along it, more often.",
    lower_bound=0.01,
)
flags.DEFINE_enum(
    "weighting",
    "rows",
    ["rows", "batch"],
    "Mean of each term over its own rows, or over the batch: a third of the "
    "weight for the map, which disturbs the velocity less.",
)
flags.DEFINE_bool(
    "stable_target",
    False,
    "Average the velocity to learn over what x_t may come from in the batch.",
)
flags.DEFINE_string(
    "initial",
    None,
    "Preset whose averaged weights to start from: a folder, name or handle. "
    "The network's flags must be those that it was trained with.",
)
flags.DEFINE_integer(
    "data_size",
    None,
    "Examples, drawn once before training (arXiv 2505.18825: 10^7); by "
    "default each batch is new, which a GPU waits for.",
    lower_bound=1,
)
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/checkerboard", "Folder for what it makes.")
flags.DEFINE_integer("num_samples", 100_000, "Samples of each KL.")
flags.DEFINE_bool("export", True, "Whether to export a SavedModel.")

flags.register_multi_flags_validator(
    ["data_size", "batch_size"],
    lambda f: f["data_size"] is None or f["data_size"] >= f["batch_size"],
    "--data_size must be at least --batch_size.",
)

STEPS = (1, 2, 4, 8, 16)
PUBLISHED = {
    "samples": {
        "lsd": (0.4576, 0.4298, 0.3515, 0.2651, 0.2508),
        "psd": (1.5893, 0.8930, 0.5197, 0.3219, 0.2671),
    },
    "density": {
        "lsd": (0.0864, 0.0765, 0.0708, 0.0699, 0.0710),
        "psd": (0.1456, 0.0891, 0.0812, 0.0717, 0.0689),
        "esd": (0.0983, 0.0921, 0.0834, 0.0816, 0.0751),
    },
}
NEEDS_TEACHER = ("lmd", "emd")


def build(objective, seed):
    """The model of one objective."""
    keras.utils.set_random_seed(seed)
    network = kf.networks.MLP(
        2,
        width=FLAGS.width,
        depth=FLAGS.depth,
        two_times=True,
        fourier_features=FLAGS.fourier_features,
        fourier_scale=FLAGS.fourier_scale,
        time_features=FLAGS.time_features,
        max_frequency=FLAGS.max_frequency,
        activation="gelu",
    )
    if FLAGS.initial:
        start = kf.FlowMapInterface.from_preset(FLAGS.initial)
        network.set_weights(start.inference_network().get_weights())
    return kf.FlowMapInterface(
        network,
        objective=objective,
        train_time_dist_type="uniform"
        if FLAGS.beta == 1.0
        else kf.interpolants.Beta(FLAGS.beta, FLAGS.beta),
        weighting=FLAGS.weighting,
        stable_target=FLAGS.stable_target,
        ema=FLAGS.ema,
        seed=seed,
    )


class Pool:
    """Batches out of `data_size` examples that were drawn once."""

    def __init__(self, data, seed):
        self.examples = data.sample(FLAGS.data_size, seed)

    def sample(self, num, rng):
        # Neighbours are independent: any stretch is a batch.
        start = rng.integers(len(self.examples) - num + 1)
        return self.examples[start : start + num]


def train(model, seed):
    """Fit the model; returns the seconds it took."""
    schedule = cosine(
        FLAGS.learning_rate, max(FLAGS.steps - 200, 1), min(200, FLAGS.steps)
    )
    model.compile(
        muon(schedule),
        # XLA is what makes TensorFlow fast; PyTorch is faster eager here.
        jit_compile=keras.backend.backend() != "torch",
    )
    epochs = min(20, FLAGS.steps)
    data = kf.datasets.Checkerboard()
    if FLAGS.data_size is not None:
        data = Pool(data, seed)
    print(
        f"Training a flow map ({model.objective.name}) of "
        f"{model.count_params():,} parameters on the checkerboard: "
        f"{FLAGS.steps:,} steps of {FLAGS.batch_size:,} points, on "
        f"{keras.backend.backend()}",
        flush=True,
    )
    start = time.time()
    model.fit(
        kf.datasets.Endless(data, FLAGS.batch_size, seed=seed),
        steps_per_epoch=FLAGS.steps // epochs,
        epochs=epochs,
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar()],
    )
    return time.time() - start


def estimators():
    """The two published KL estimators: (metric, scale of the samples)."""
    return {
        # 60 bins on [-2.5, 2.5]^2, histogram against histogram.
        "samples": (
            kf.metrics.HistogramKL(
                kf.datasets.Checkerboard(), bins=60, extent=2.5
            ),
            1.0,
        ),
        # 50 bins on [-1, 1]^2 against the exact density (2505.18825).
        "density": (
            kf.metrics.HistogramKL(
                kf.datasets.Checkerboard(extent=1.0),
                bins=50,
                extent=1.0,
                reference="density",
            ),
            0.5,
        ),
    }


def sample(model, num):
    """{steps: samples}, all from the same noise."""
    return {
        steps: keras.ops.convert_to_numpy(
            model.generate(num, num_steps=steps, seed=FLAGS.seed + 7)
        )
        for steps in STEPS
    }


def evaluate(objective, samples):
    """{estimator: {kl, floor, published, num_samples}}."""
    results = {}
    for name, (metric, scale) in estimators().items():
        num = FLAGS.num_samples if name == "samples" else 64_000
        num = min(num, FLAGS.num_samples)
        results[name] = {
            "kl": [metric(scale * samples[n][:num]) for n in STEPS],
            "floor": metric.floor(num),
            "published": PUBLISHED[name].get(objective),
            "num_samples": num,
        }
    return results


def table(results):
    """A text table of the KL by number of steps."""
    lines = [
        "KL (nats), 60 bins on [-2.5, 2.5]^2, floor "
        f"{next(iter(results.values()))['samples']['floor']:.4f}",
        f"{'steps N':<18}" + "".join(f"{n:>9}" for n in STEPS),
    ]
    for objective, result in results.items():
        rows = {
            objective: result["samples"]["kl"],
            "  published": result["samples"]["published"],
        }
        for label, values in rows.items():
            if values is not None:
                lines.append(
                    f"{label:<18}" + "".join(f"{v:9.4f}" for v in values)
                )
    return "\n".join(lines)


def picture(path, rows, kls):
    """Target beside a row of histograms for each objective."""
    plt = pyplot()

    target = kf.datasets.Checkerboard().sample(100_000, 0)
    fig, axes = plt.subplots(
        len(rows),
        len(STEPS) + 1,
        figsize=(2.1 * (len(STEPS) + 1), 2.25 * len(rows)),
        squeeze=False,
        constrained_layout=True,
    )
    for i, (label, samples) in enumerate(rows.items()):
        for j, x in enumerate([target, *samples.values()]):
            axis = axes[i, j]
            axis.hist2d(
                x[:, 0],
                x[:, 1],
                bins=150,
                range=[[-2.5, 2.5]] * 2,
                cmap="magma",
                vmax=22 * len(x) / 100_000,
            )
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_aspect("equal")
            if j == 0:
                axis.set_title("target", fontsize=9)
                axis.set_ylabel(label, fontsize=10)
            else:
                axis.set_title(
                    f"N = {STEPS[j - 1]}   KL {kls[label][j - 1]:.3f}",
                    fontsize=9,
                )
    save_figure(path, fig, 110)


def shipped(trained, num):
    """{name: samples} of the shipped presets that were not trained here."""
    return {
        name: sample(kf.FlowMapInterface.from_preset(name), num)
        for name in ("lsd_checkerboard", "psd_checkerboard")
        if name.split("_")[0] not in trained
    }


def prepare(out):
    """The output folder, checked to be writable before any work is done."""
    out = pathlib.Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".probe").write_text("")
        (out / ".probe").unlink()
    except OSError as error:
        raise ValueError(
            f"--out={str(out)!r} cannot be written ({error}); name a folder "
            "that can."
        ) from error
    return out


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    for objective in FLAGS.objective:
        kf.objectives.get(objective)
        if objective in NEEDS_TEACHER:
            raise ValueError(
                f"--objective={objective} distils a teacher; "
                "recipes/objectives.py trains it with one."
            )
    out = prepare(FLAGS.out)
    config = settings(
        "objective", "steps", "batch_size", "learning_rate", "ema",
        "width", "depth", "fourier_features", "fourier_scale",
        "time_features", "max_frequency", "beta", "weighting",
        "stable_target", "initial", "data_size", "seed", "num_samples",
    )  # fmt: skip
    config |= {
        "keras": keras.__version__,
        "keras_flows": kf.__version__,
    }
    write(out / "config.json", config)

    results, rows, kls = {}, {}, {}
    for objective in FLAGS.objective:
        model = build(objective, FLAGS.seed)
        seconds = train(model, FLAGS.seed)
        samples = sample(model, FLAGS.num_samples)
        results[objective] = evaluate(objective, samples) | {
            "training_seconds": round(seconds, 1),
            "samples_seen": FLAGS.steps * FLAGS.batch_size,
            **config,
        }
        folder = out / objective
        folder.mkdir(exist_ok=True)
        model.save_to_preset(
            folder / "preset", metadata={"results": results[objective]}
        )
        rows[objective.upper()] = samples
        kls[objective.upper()] = results[objective]["samples"]["kl"]
        write(out / "results.json", results)
        if FLAGS.export:
            noise = np.random.default_rng(0).standard_normal(
                (1000, 2), dtype="float32"
            )
            np.savez(
                folder / "reference.npz",
                noise=noise,
                sample=keras.ops.convert_to_numpy(
                    model.generate(noise=noise, num_steps=1)
                ),
            )
            model.export(folder / "saved_model", num_steps=1, verbose=False)
    for name, samples in shipped(FLAGS.objective, FLAGS.num_samples).items():
        label = f"{name.split('_')[0].upper()} (shipped)"
        results[name] = evaluate(name.split("_")[0], samples)
        rows[label] = samples
        kls[label] = results[name]["samples"]["kl"]
    write(out / "results.json", results)
    picture(out / "checkerboard.png", rows, kls)
    print(table(results))
    print(f"Figures: {out}/results.json")
    print(f"Picture: {out}/checkerboard.png")


if __name__ == "__main__":
    app.run(main)
