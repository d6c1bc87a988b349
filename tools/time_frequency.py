"""Quality against `max_frequency`, the largest frequency of time features.

    python tools/time_frequency.py --out=docs/results/time_frequency.json

Flow matching, LSD and MeanFlow on four small tasks: a checkerboard (`MLP`),
the digits of scikit-learn (`MLP` of 8 x 8 pixels), series of two channels (a
Conv1D network of one's own with `TimeFeatures`) and chunks of actions that
pass an obstacle left or right (`ChunkMLP`, whose features are
`LinearTimeFeatures`). Noted for each are the velocity loss u(x_t, t, t)
against dx_t/dt on data held out, the quality of samples (of jump models at 1
and 4 calls, of flows at 32), and the largest ratio of the logs' map loss to
their velocity loss after the first eighth of the training. Some minutes a
task on a CPU; results already in --out stay, so that seeds can be added.
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import layers  # noqa: E402
from keras import ops  # noqa: E402

import keras_flows as kf  # noqa: E402

FREQUENCIES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 100.0)
OBJECTIVES = ("flow", "lsd", "mean_flow")
EPOCHS = 4
# Steps of a window, and how many of them, of the ratios noted.
WINDOW, WINDOWS = 8, 8
HORIZON = 8


def board(num, rng):
    seed = int(rng.integers(2**31))
    return kf.datasets.Checkerboard().sample(num, seed), None


def digits(num, rng):
    from sklearn.datasets import load_digits

    images = load_digits().images[..., None] / 8.0 - 1.0
    rows = rng.integers(0, len(images), num)
    return images[rows].astype("float32"), None


def series(num, rng):
    """Two sines of the same frequency, 1 to 4 periods, with two phases."""
    at = np.linspace(0.0, 2.0 * np.pi, 64, endpoint=False)[:, None]
    periods = rng.integers(1, 5, (num, 1, 1))
    phase = rng.uniform(0.0, 2.0 * np.pi, (num, 1, 2))
    return np.sin(periods * at + phase).astype("float32"), None


def chunks(num, rng):
    """Actions (x, y) from o to 1, past the middle on one side or the other."""
    o = rng.uniform(-1.0, 1.0, (num, 1)).astype("float32")
    at = np.linspace(0.0, 1.0, HORIZON)[None]
    side = rng.choice([-1.0, 1.0], (num, 1))
    x = o + (1.0 - o) * at
    y = side * np.sin(np.pi * at) * (0.6 + 0.3 * o)
    a = np.stack([x, y], -1) + 0.05 * rng.standard_normal((num, HORIZON, 2))
    return a.astype("float32"), o


def conv(two_times, width=24, shape=(64, 2)):
    """A network as a user may write it."""
    inputs = {"x": keras.Input(shape, name="x"), "t": keras.Input((), name="t")}
    if two_times:
        inputs["r"] = keras.Input((), name="r")
    times = [
        kf.networks.TimeFeatures(8)(inputs[name])
        for name in ("t", "r")
        if name in inputs
    ]
    times = layers.Concatenate()(times) if two_times else times[0]
    times = layers.Dense(64, activation="silu")(times)
    h = layers.Conv1D(width, 5, padding="same")(inputs["x"])
    for _ in range(3):
        shift = layers.Reshape((1, width))(layers.Dense(width)(times))
        h = layers.Add()([h, shift])
        h = layers.Conv1D(width, 5, padding="same", activation="silu")(h)
    return keras.Model(inputs, layers.Conv1D(shape[1], 5, padding="same")(h))


# Data, network, steps, batch size and number of samples of each task.
TASKS = {
    "board": (
        board, lambda two: kf.networks.MLP(2, 128, 3, two), 800, 128, 20_000,
    ),
    "series": (series, conv, 320, 32, 1000),
    "chunks": (
        chunks,
        lambda two: kf.networks.ChunkMLP(
            2, HORIZON, (1,), two, width=64, depth=2, dropout=0.0
        ),
        480, 64, 2000,
    ),
    "digits": (
        digits,
        lambda two: kf.networks.MLP(
            (8, 8, 1), 256, 3, two, fourier_features=0
        ),
        480, 64, 2000,
    ),
}  # fmt: skip


def sliced_distance(a, b):
    """Mean distance of the quantiles of a and b over 64 directions."""
    a, b = (v.reshape(len(v), -1) for v in (a, b))
    d = np.random.default_rng(0).standard_normal((a.shape[1], 64))
    d /= np.linalg.norm(d, axis=0)
    return float(np.abs(np.sort(a @ d, 0) - np.sort(b @ d, 0)).mean())


class FirstSteps(keras.callbacks.Callback):
    """The two losses of each of the first steps, out of their means."""

    def on_train_begin(self, logs=None):
        self.sums = [(0.0, 0.0)]

    def on_train_batch_end(self, batch, logs=None):
        if "map_loss" in logs and len(self.sums) <= WINDOW * WINDOWS:
            names = ("map_loss", "velocity_loss")
            self.sums.append([(batch + 1) * logs[name] for name in names])

    def ratios(self):
        if len(self.sums) == 1:
            return {}
        mapped, velocity = np.diff(self.sums[::WINDOW], axis=0).T
        ratios = mapped / velocity
        return {
            "map_ratio": float(ratios.max()),
            "map_ratios": [float(f"{r:.3g}") for r in ratios],
        }


class Bench:
    """One task under one objective, compiled once.

    The frequencies are variables here, and weights and optimizer are set back
    before each run.
    """

    def __init__(self, task, objective):
        self.task = task
        self.data, make, self.steps, self.batch_size, self.num = TASKS[task]
        self.make = lambda: make(objective != "flow")
        self.network = self.make()
        self.model = {
            "flow": lambda n: kf.SiTInterface(n, ema=None, seed=0),
            "lsd": lambda n: kf.FlowMapInterface(n, "lsd", ema=None, seed=0),
            "mean_flow": lambda n: kf.MeanFlowInterface(n, ema=None, seed=0),
        }[objective](self.network)
        self.features = []
        for layer in self.network.layers:
            values = getattr(layer, "_frequencies", None)
            if values is not None:
                layer._frequencies = layer.add_weight(
                    shape=values.shape, trainable=False, name="frequencies"
                )
                self.features.append(layer)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, self.steps)
        self.model.compile(keras.optimizers.Adam(rate))
        self.model.optimizer.build(self.model.trainable_variables)
        self.calls = (16,) if objective == "flow" else (1, 4)

    def start(self, frequency, seed):
        keras.utils.set_random_seed(seed)
        fresh = self.make()
        for variable, value in zip(
            self.network.trainable_variables,
            fresh.trainable_variables,
            strict=True,
        ):
            variable.assign(value)
        for layer in self.features:
            again = type(layer)(layer.num, frequency)
            layer._frequencies.assign(again._frequencies)
        for variable in self.model.optimizer.variables:
            if "learning_rate" not in variable.path:
                variable.assign(np.zeros(variable.shape, variable.dtype))
        state = self.model.seed_generator.state
        state.assign(np.array([seed, 0], state.dtype))

    def run(self, frequency, seed):
        self.start(frequency, seed)
        rng = np.random.default_rng(seed)
        x, y = self.data(self.steps * self.batch_size // EPOCHS, rng)
        watch = FirstSteps()
        self.model.fit(
            x, y, batch_size=self.batch_size, epochs=EPOCHS, verbose=0,
            callbacks=[watch],
        )  # fmt: skip
        result = {"velocity_loss": self.velocity_loss()} | watch.ratios()
        for n in self.calls:
            result |= self.quality(n)
        return {k: _rounded(v) for k, v in result.items()}

    def velocity_loss(self):
        path, rng = self.model.interpolant, np.random.default_rng(1)
        x, y = self.data(2000, rng)
        level = rng.uniform(0.02, 0.98, len(x)).astype("float32")
        noise = rng.standard_normal(x.shape).astype("float32")
        t = path.time_of_level(ops.convert_to_tensor(level))
        x, noise = map(ops.convert_to_tensor, (x, noise))
        x_t = self.model.sample_x_t(x, noise, t)
        v = self.model.pred(x_t, t, condition=y)
        return float(ops.mean(ops.square(v - path.velocity(x, noise, t))))

    def quality(self, num_steps):
        x, y = self.data(self.num, np.random.default_rng(2))
        made = self.model.generate(
            self.num if y is None else None,
            condition=y, num_steps=num_steps, seed=0,
        )  # fmt: skip
        made = ops.convert_to_numpy(made)
        if not np.isfinite(made).all():
            return {f"distance_{num_steps}": float("inf")}
        result = {}
        if self.task == "board":
            metric = kf.metrics.HistogramKL(kf.datasets.Checkerboard())
            result[f"kl_{num_steps}"] = metric(made)
        if y is not None:
            x, made = (
                np.concatenate([v.reshape(len(v), -1), y], 1) for v in (x, made)
            )
        result[f"distance_{num_steps}"] = sliced_distance(made, x)
        return result


def _rounded(value):
    return [*value] if isinstance(value, list) else float(f"{value:.4g}")


def table(results):
    """Markdown: a row for each task and objective, a column a frequency."""
    columns = sorted(
        {f for task in results.values() for row in task.values() for f in row},
        key=float,
    )
    lines = [
        "| task, objective | " + " | ".join(columns) + " |",
        "|" + "---|" * (1 + len(columns)),
    ]
    for task, by_objective in results.items():
        for objective, by_frequency in by_objective.items():
            cells = [_cell(by_frequency.get(f)) for f in columns]
            lines.append(f"| {task}, {objective} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(runs):
    """Velocity loss / distance at the fewest calls, each +- its spread."""
    if not runs:
        return ""
    runs = list(runs.values())
    name = "distance_1" if "distance_1" in runs[0] else "distance_16"
    found = ([run[key] for run in runs] for key in ("velocity_loss", name))
    return " / ".join(f"{np.mean(v):.3g} ± {np.ptp(v) / 2:.1g}" for v in found)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", help="JSON file to write, and to add to")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--seeds",
        type=int,
        default=2,
        help="how many; 0: the table of --out only",
    )
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--objectives", default=",".join(OBJECTIVES))
    parser.add_argument(
        "--frequencies", default=",".join(f"{f:g}" for f in FREQUENCIES)
    )
    arguments = parser.parse_args()
    out = pathlib.Path(arguments.out) if arguments.out else None
    results = json.loads(out.read_text()) if out and out.exists() else {}
    frequencies = [float(f) for f in arguments.frequencies.split(",")]
    if not arguments.seeds:
        print(table(results))
        return
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    for task in arguments.tasks.split(","):
        for objective in arguments.objectives.split(","):
            bench = Bench(task, objective)
            found = results.setdefault(task, {}).setdefault(objective, {})
            for frequency in frequencies:
                for seed in seeds:
                    start = time.process_time()
                    run = bench.run(frequency, seed)
                    found.setdefault(f"{frequency:g}", {})[str(seed)] = run
                    print(
                        task, objective, f"{frequency:g}", seed, run,
                        f"{time.process_time() - start:.0f} s", flush=True,
                    )  # fmt: skip
            if out:
                out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
