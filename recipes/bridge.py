"""A stochastic interpolant from one data set to another: board to rings.

    KERAS_BACKEND=jax python recipes/bridge.py --out=out/bridge

Hardware: 2 CPU cores, about 5 minutes (11 beside other jobs). Two networks
learn the drift of x_t = (1 - t) x_0 + t x_1 + sqrt(t (1 - t)) z between the
checkerboard (x_0) and two rings (x_1), neither of them noise
(arXiv 2303.08797). The samples
that start on the board follow the probability flow (Heun) or an SDE with the
same marginals (Euler-Maruyama, several diffusion coefficients); the KL of
histograms to the rings (60 bins on [-2.5, 2.5]^2) stands beside that of as
many true samples.

Writes to --out: config.json, results.json, bridge.png and the preset.
"""

import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _quiet  # noqa: F401
import keras
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
flags.DEFINE_integer("steps", 6_000, "Training steps.", lower_bound=1)
flags.DEFINE_integer("batch_size", 512, "Batch size.", lower_bound=1)
flags.DEFINE_integer("width", 128, "Units of a hidden layer.")
flags.DEFINE_integer("depth", 4, "Number of hidden layers.")
flags.DEFINE_float("learning_rate", 4e-3, "Peak of the cosine schedule.")
flags.DEFINE_float("ema", 0.998, "Decay of the moving average.")
flags.DEFINE_integer("num_samples", 50_000, "Samples of each KL.")
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/bridge", "Folder for what it makes.")

SAMPLERS = {
    "ODE, 16 steps": ("heun", 16),
    "ODE, 64 steps": ("heun", 64),
    "SDE, w = 0.1, 64 steps": (
        kf.samplers.EulerMaruyama("constant", 0.1), 64,
    ),
    "SDE, w = 0.1, 256 steps": (
        kf.samplers.EulerMaruyama("constant", 0.1), 256,
    ),
    "SDE, w = 0.5, 256 steps": (
        kf.samplers.EulerMaruyama("constant", 0.5), 256,
    ),
}  # fmt: skip


class Pairs:
    """Independent (x_1, x_0): a point of the rings, one of the board."""

    rings, board = kf.datasets.Rings(), kf.datasets.Checkerboard()

    def sample(self, num, seed):
        return self.rings.sample(num, seed), self.board.sample(num, seed)


def build():
    """The interface with its two networks."""
    keras.utils.set_random_seed(FLAGS.seed)
    options = {
        "width": FLAGS.width,
        "depth": FLAGS.depth,
        "fourier_scale": 4.0,
        "activation": "gelu",
        "max_frequency": 100.0,
    }
    return kf.StochasticInterpolantInterface(
        kf.networks.MLP(2, name="velocity", **options),
        kf.networks.MLP(2, name="latent", **options),
        ema=FLAGS.ema,
        seed=FLAGS.seed,
    )


def train(model):
    """Fit; returns the seconds."""
    rate, steps = FLAGS.learning_rate, FLAGS.steps
    model.compile(muon(cosine(rate, steps, min(100, steps))))
    start = time.time()
    epochs = min(6, FLAGS.steps)
    model.fit(
        kf.datasets.Endless(Pairs(), FLAGS.batch_size, seed=FLAGS.seed),
        steps_per_epoch=FLAGS.steps // epochs,
        epochs=epochs,
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar()],
    )
    return time.time() - start


def picture(path, columns):
    """Histograms: where samples start, where they end, and the rings."""
    plt = pyplot()

    figure, axes = plt.subplots(
        1, len(columns), figsize=(2.4 * len(columns), 3.1), layout="constrained"
    )
    for axis, (title, x) in zip(axes, columns.items(), strict=True):
        axis.hist2d(
            x[:, 0], x[:, 1], bins=140, range=[[-2.5, 2.5]] * 2, cmap="magma"
        )
        axis.set_title(title, fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_aspect("equal")
    save_figure(path, figure, 90)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    config = settings(
        "steps", "batch_size", "width", "depth", "learning_rate", "ema",
        "num_samples", "seed",
    )  # fmt: skip
    write(out / "config.json", config)
    model = build()
    seconds = train(model)
    metric = kf.metrics.HistogramKL(Pairs.rings, bins=60, extent=2.5)
    start = Pairs.board.sample(FLAGS.num_samples, FLAGS.seed + 5)
    results = {
        "training_seconds": round(seconds, 1),
        "floor": metric.floor(FLAGS.num_samples),
        "untransported": metric(start),
        "kl": {},
        **config,
    }
    columns = {"start: board": start}
    for name, (sampler, steps) in SAMPLERS.items():
        x = keras.ops.convert_to_numpy(
            model.generate(
                noise=start,
                sampler=sampler,
                num_steps=steps,
                seed=FLAGS.seed + 7,
            )
        )
        results["kl"][name] = metric(x)
        columns[f"{name}\nKL {results['kl'][name]:.3f}"] = x
        print(f"{name}: KL {results['kl'][name]:.4f}", flush=True)
    columns["target: rings"] = Pairs.rings.sample(FLAGS.num_samples, 3)
    model.save_to_preset(out / "preset", metadata={"results": results})
    write(out / "results.json", results)
    picture(out / "bridge.png", columns)
    print(f"Wrote {out}/results.json and bridge.png")


if __name__ == "__main__":
    app.run(main)
