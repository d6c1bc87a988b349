"""Train robot policies on Meta-World and run them in closed loop.

    KERAS_BACKEND=jax python recipes/metaworld.py --out=out/metaworld \
        --objectives=regression,mip,mip:public,flow --seeds=0,1,2,3,4

Hardware: 2 CPU cores; a minute or two for each objective and seed. 100
demonstrations of the scripted expert, two observations to a chunk of 16
actions of which 8 are executed, 5,000 steps of 256 windows, and 100 episodes
of at most 240 steps from start states that no demonstration began in. A seed
is that of the demonstrations, the weights and the noise; the start states are
the same for all.

`mip` and `tsd` are the paper's form (arXiv 2512.01809), `mip:public` and
`tsd:public` that of its authors' code. Success is counted at the steps that
suit the objective, the flow maps at 1, 2 and 9. Runs found in --out are not
repeated.

Writes to --out: config.json, results.json, table.md, success.png and each
run's preset; with --gif an episode of each.
"""

import functools
import itertools
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

# A spawned process inherits a path without this folder.
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import _quiet  # noqa: F401
from _common import pyplot
from _common import save_figure
from _common import write

# Where this folder comes first, `import metaworld` finds this file.
sys.path[:] = [p for p in sys.path if pathlib.Path(p).resolve() != HERE]

import keras
import numpy as np
from absl import app
from absl import flags

import keras_flows as kf
from keras_flows.datasets import robots

OBJECTIVES = (
    "regression", "straight_flow", "flow", "mip", "mip:public", "tsd",
    "tsd:public", "ctm", "psd", "lsd", "esd", "mf",
)  # fmt: skip
NETWORKS = ("mlp", "unet", "transformer", "dit", "rnn")
FLAGS = flags.FLAGS
flags.DEFINE_list("tasks", ["shelf-place-v3"], "Names of the tasks.")
flags.DEFINE_list("objectives", ["regression", "mip", "flow"], "Objectives.")
flags.register_validator(
    "objectives",
    lambda names: set(names) <= set(OBJECTIVES),
    f"must be some of {', '.join(OBJECTIVES)}",
)
flags.DEFINE_list("seeds", ["0"], "Seeds of data, weights and noise.")
flags.DEFINE_enum("network", "mlp", NETWORKS, "Network of the policy.")
flags.DEFINE_integer("demonstrations", 100, "Episodes.", lower_bound=1)
flags.DEFINE_float("noise", 0.0, "Of the experts' executed actions.")
flags.DEFINE_integer("starts", 100, "Start states.", lower_bound=1)
flags.DEFINE_integer("steps", 5_000, "Training steps.", lower_bound=1)
flags.DEFINE_integer("batch_size", 256, "Windows of a batch.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-3, "Start of the cosine schedule.")
flags.DEFINE_float("ema", 0.995, "Decay of the moving average.")
flags.DEFINE_integer("num_envs", 25, "Environments at once.", lower_bound=1)
flags.DEFINE_integer(
    "processes", None, "Processes of environments; by default one a core."
)
flags.DEFINE_integer("seed", None, "One seed, in the place of --seeds.")
flags.DEFINE_bool("gif", False, "Whether to record an episode of each run.")
flags.DEFINE_string("out", "out/metaworld", "Folder for what it makes.")

OBS_STEPS, HORIZON, ACT_STEPS, MAX_STEPS = 2, 16, 8, 240
WIDTH = 128
REFERENCE = {
    # The authors' PyTorch code with the same data, network and budget, two
    # seeds: docs/robots.md.
    "shelf-place-v3": {
        "regression": (0.76, 0.80), "mip:public": (0.91, 0.89),
        "flow": (0.85, 0.81),
    },
}  # fmt: skip


def network(name, two_times):
    """A network of chunks under (OBS_STEPS, WIDTH) features."""
    shape = (robots.ACTION_DIM, HORIZON, (OBS_STEPS, WIDTH), two_times)
    if name == "mlp":
        return kf.networks.ChunkMLP(
            *shape,
            width=WIDTH,
            depth=2,
            dropout=0.0,
            # The published frequencies reach 100 radians per unit of time,
            # and a flow map's losses hold derivatives by time: in 9 steps LSD
            # succeeds in 36 % of the episodes with them, in 74 % with these.
            max_frequency=8.0 if two_times else 100.0,
        )
    if name == "unet":
        return kf.networks.TemporalUNet(*shape)
    if name == "transformer":
        return kf.networks.PolicyTransformer(*shape)
    if name == "dit":
        return kf.networks.PolicyDiT(*shape)
    return kf.networks.PolicyRNN(*shape)


def build(objective, seed):
    """The policy of one objective, and its name without the form."""
    keras.utils.set_random_seed(seed)
    name, _, form = objective.partition(":")
    options = {"form": form} if form else {}
    if name == "ctm":
        # At the default of 0.01 its residual is too small to learn from.
        options = {"dt": 0.2}
    interface = kf.FlowMapInterface(
        network(FLAGS.network, kf.objectives.get(name).needs_r),
        kf.objectives.get(name, **options),
        ema=FLAGS.ema,
        seed=seed,
    )
    return kf.policies.Policy(
        interface,
        kf.networks.MLPEncoder((OBS_STEPS, robots.OBSERVATION_DIM), WIDTH),
        # What moves less than a millimetre is noise of the simulator.
        observation_normalizer=kf.networks.MinMax(floor=5e-4),
        act_steps=ACT_STEPS,
        action_low=-1.0,
        action_high=1.0,
    )


def train(policy, windows):
    """Fit the policy; returns the seconds it took."""
    policy.adapt(windows)
    policy.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                FLAGS.learning_rate, FLAGS.steps
            ),
            weight_decay=1e-5,
            global_clipnorm=10.0,
        ),
        # XLA is what makes TensorFlow fast; PyTorch is faster eager here.
        jit_compile=keras.backend.backend() != "torch",
    )
    epochs = min(10, FLAGS.steps)
    start = time.time()
    policy.fit(
        windows,
        steps_per_epoch=FLAGS.steps // epochs,
        epochs=epochs,
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar()],
    )
    return time.time() - start


def sweeps(objective):
    """{steps: options of `predict_chunk`} to measure an objective at."""
    name = objective.partition(":")[0]
    if name in ("regression", "straight_flow"):
        return {1: {}}
    if name in ("mip", "tsd"):
        # One step is the first of the two calls alone.
        return {1: {"num_steps": 1, "sampler": "one_step"}, 2: {}}
    return {n: {"num_steps": n} for n in (1, 2, 9)}


def measure(policy, envs, objective):
    """{steps: rollout summary}, and the seconds it took."""
    starts = robots.EVALUATION_START + np.arange(FLAGS.starts)
    found, start = {}, time.time()
    for steps, options in sweeps(objective).items():
        rollout = kf.policies.evaluate(
            policy, envs, starts, max_steps=MAX_STEPS, **options
        )
        found[str(steps)] = rollout.summary()
    return found, time.time() - start


@functools.lru_cache(1)
def demonstrations(task, seed, envs):
    """The episodes of a seed, and the seconds they took."""
    start = time.time()
    episodes = robots.demonstrations(
        task, FLAGS.demonstrations, seed, FLAGS.noise, MAX_STEPS, pool=envs
    )
    return episodes, time.time() - start


def run(task, objective, seed, envs, out):
    """Demonstrations, training and evaluation; the entry of the results."""
    episodes, demonstration_seconds = demonstrations(task, seed, envs)
    windows = robots.Windows(
        episodes, HORIZON, OBS_STEPS, ACT_STEPS, FLAGS.batch_size,
        repeat=True, seed=seed,
    )  # fmt: skip
    policy = build(objective, seed)
    training_seconds = train(policy, windows)
    success, evaluation_seconds = measure(policy, envs, objective)
    folder = out / "presets" / f"{task}_{objective.replace(':', '_')}_{seed}"
    kf.presets.slim(policy).save_to_preset(
        folder,
        metadata={
            "task": task,
            "objective": objective,
            "demonstrations": FLAGS.demonstrations,
            "seed": seed,
            "success": success,
        },
    )
    if FLAGS.gif:
        kf.policies.record(
            policy,
            robots.make_env(task),
            robots.EVALUATION_START,
            folder / "episode.gif",
        )
    return {
        "task": task,
        "objective": objective,
        "seed": seed,
        "success": success,
        "windows": windows.num_windows,
        "parameters": policy.count_params(),
        "seconds": {
            "demonstrations": round(demonstration_seconds, 1),
            "training": round(training_seconds, 1),
            "evaluation": round(evaluation_seconds, 1),
        },
    }


def pooled(runs, steps):
    """(mean over seeds, its interval, the seeds' rates) of some runs."""
    rates = [r["success"][steps]["success"] for r in runs]
    episodes = sum(r["success"][steps]["episodes"] for r in runs)
    wins = round(sum(rates) / len(rates) * episodes)
    return float(np.mean(rates)), kf.policies.wilson_interval(
        wins, episodes
    ), rates  # fmt: skip


def groups(runs):
    """Runs by (task, objective, steps), in the order of OBJECTIVES."""
    found = {}
    ordered = sorted(
        runs, key=lambda r: (r["task"], OBJECTIVES.index(r["objective"]))
    )
    for entry in ordered:
        for steps in entry["success"]:
            key = entry["task"], entry["objective"], steps
            found.setdefault(key, []).append(entry)
    return found


def table(results):
    """The runs as a table in Markdown."""
    lines = [
        "| task | objective | steps | success (95 %) | seeds | reference | "
        "training |",
        "|---|---|---|---|---|---|---|",
    ]
    for (task, objective, steps), runs in groups(results["runs"]).items():
        mean, (low, high), rates = pooled(runs, steps)
        seconds = np.mean([r["seconds"]["training"] for r in runs])
        reference = REFERENCE.get(task, {}).get(objective, ())
        if int(steps) != max(sweeps(objective)):
            reference = ()
        lines.append(
            f"| {task} | `{objective}` | {steps} | {100 * mean:.0f} % "
            f"({100 * low:.0f} to {100 * high:.0f}) | "
            f"{', '.join(f'{100 * r:.0f}' for r in rates)} | "
            f"{', '.join(f'{100 * r:.0f}' for r in reference) or '-'} | "
            f"{seconds:.0f} s |"
        )
    for task, expert in results["expert"].items():
        low, high = expert["interval"]
        lines.append(
            f"| {task} | expert | | {100 * expert['success']:.0f} % "
            f"({100 * low:.0f} to {100 * high:.0f}) | | | |"
        )
    return "\n".join(lines) + "\n"


def draw(results, path):
    """Bars of success with their intervals, one panel a task."""
    plt = pyplot()

    found = groups(results["runs"])
    tasks = sorted({task for task, _, _ in found})
    figure, axes = plt.subplots(
        len(tasks), 1, figsize=(9, 3.2 * len(tasks)), squeeze=False
    )
    colors = {"1": "#9ecae1", "2": "#4292c6", "9": "#084594"}
    for axis, task in zip(axes[:, 0], tasks, strict=True):
        keys = [key for key in found if key[0] == task]
        names = list(dict.fromkeys(key[1] for key in keys))
        for key in keys:
            mean, (low, high), rates = pooled(found[key], key[2])
            own = [k[2] for k in keys if k[1] == key[1]]
            width = 0.8 / len(own)
            x = names.index(key[1]) + width * (
                own.index(key[2]) - (len(own) - 1) / 2
            )
            axis.bar(x, 100 * mean, 0.95 * width, color=colors[key[2]])
            axis.plot([x, x], [100 * low, 100 * high], color="black", lw=1)
            axis.plot(
                np.full(len(rates), x), 100 * np.array(rates), "o",
                color="black", ms=2.5,
            )  # fmt: skip
        expert = results["expert"][task]["success"]
        axis.axhline(100 * expert, color="gray", ls="--", lw=1)
        labels = [name.replace("_", "\n") for name in names]
        axis.set_xticks(range(len(names)), labels, fontsize=8)
        axis.set_ylim(0, 100)
        axis.set_ylabel("success, %")
        axis.set_title(
            f"{task}: {results['config']['starts']} start states, bars mean "
            "and 95 %, dots seeds, dashed the expert",
            fontsize=9,
        )
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=color) for color in colors.values()
    ]
    axes[-1, 0].legend(
        handles,
        [f"{n} step{'s' * (n != '1')}" for n in colors],
        fontsize=8,
        ncol=3,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.1),
    )
    figure.tight_layout()
    save_figure(path, figure, 130)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    seeds = [FLAGS.seed] if FLAGS.seed is not None else map(int, FLAGS.seeds)
    config = {
        name: FLAGS[name].value
        for name in (
            "network", "demonstrations", "noise", "starts", "steps",
            "batch_size", "learning_rate", "ema",
        )
    } | {"backend": keras.backend.backend()}  # fmt: skip
    path = out / "results.json"
    results = {"config": config, "expert": {}, "runs": []}
    if path.exists():
        results = json.loads(path.read_text())
        if results["config"] != config:
            raise app.UsageError(
                f"--out={out} holds runs of another configuration: "
                f"{results['config']}. Name a new folder."
            )
    write(out / "config.json", config)
    seeds = list(seeds)
    done = {(r["task"], r["seed"], r["objective"]) for r in results["runs"]}
    for task in FLAGS.tasks:
        todo = [
            (seed, objective)
            for seed, objective in itertools.product(seeds, FLAGS.objectives)
            if (task, seed, objective) not in done
        ]
        if not todo:
            continue
        make = functools.partial(robots.make_env, task)
        # Tells here of a task that does not exist.
        make()
        with robots.EnvPool(make, FLAGS.num_envs, FLAGS.processes) as envs:
            if task not in results["expert"]:
                starts = robots.EVALUATION_START + np.arange(FLAGS.starts)
                results["expert"][task] = kf.policies.evaluate_expert(
                    envs, starts, max_steps=MAX_STEPS
                ).summary()
            for seed, objective in todo:
                entry = run(task, objective, seed, envs, out)
                results["runs"].append(entry)
                print(task, objective, seed, entry["success"], entry["seconds"])
                write(path, json.dumps(results, indent=1) + "\n")
    write(out / "table.md", table(results))
    draw(results, out / "success.png")
    print(table(results))


if __name__ == "__main__":
    app.run(main)
