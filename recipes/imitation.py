"""What the recipes that learn from a file of demonstrations share.

Hyper-parameters are those of the authors' code of arXiv 2512.01809 (MIP), of
its files examples/configs/{task,network,optimization}: 300,000 steps of 1024
windows, AdamW from 1e-4 on a cosine to 0 with weight decay 1e-5, gradients
clipped at 10, an average of decay 0.995, two observations to a chunk of which
8 actions are executed, an MLP of two layers as encoder. Its factor 0.1 on the
loss is left out: AdamW takes no notice of it, the clipping does.

No simulator runs here: the measure is the error of the executed actions on
episodes that were held out, beside that of the mean action. It says whether a
policy has learnt anything; how well it acts only a robot or a simulator says.
"""

import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _quiet  # noqa: F401
import keras
import numpy as np
from _common import write
from absl import flags

import keras_flows as kf
from keras_flows.datasets import robots

OBJECTIVES = (
    "regression", "straight_flow", "flow", "mip", "mip:public", "tsd",
    "tsd:public", "ctm", "psd", "lsd", "esd", "mf",
)  # fmt: skip
# Class, whose defaults are the published sizes, and the encoder's width.
NETWORKS = {
    "mlp": (kf.networks.ChunkMLP, 512),
    "unet": (kf.networks.TemporalUNet, 256),
    "transformer": (kf.networks.PolicyTransformer, 384),
    "dit": (kf.networks.PolicyDiT, 256),
    "rnn": (kf.networks.PolicyRNN, 512),
}
# What `--synthetic` trains unless told otherwise: a minute on 2 CPU cores.
QUICK = {"steps": 500, "batch_size": 128, "learning_rate": 1e-3}
OBS_STEPS, ACT_STEPS = 2, 8

FLAGS = flags.FLAGS
flags.DEFINE_string("path", None, "The file of demonstrations.")
flags.DEFINE_bool("synthetic", False, "Make a small file in --out instead.")
flags.DEFINE_enum("objective", "mip", OBJECTIVES, "Objective.")
flags.DEFINE_enum("network", "mlp", list(NETWORKS), "Network of the policy.")
flags.DEFINE_integer("width", None, "Of network and encoder; as published.")
flags.DEFINE_integer("depth", None, "Of the network; as published.")
flags.DEFINE_integer("steps", 300_000, "Training steps.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1024, "Windows of a batch.", lower_bound=1)
flags.DEFINE_float("learning_rate", 1e-4, "Start of the cosine schedule.")
flags.DEFINE_float("ema", 0.995, "Decay of the moving average.")
flags.DEFINE_float("held_out", 0.1, "Share of the episodes to measure on.")
flags.DEFINE_integer("windows", 1_000, "To measure on, at most.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of split, weights, windows and noise.")


def setting(name):
    """A flag, or the quick value of a synthetic run that was not told one."""
    if FLAGS.synthetic and not FLAGS[name].present:
        return QUICK[name]
    return FLAGS[name].value


def demonstrations(make):
    """Path of the file: --path, or what `make(path)` makes in --out."""
    if not FLAGS.synthetic:
        if FLAGS.path is None:
            raise SystemExit(
                "--path is missing: the file of demonstrations. --synthetic "
                "makes a small one to try the recipe."
            )
        return FLAGS.path
    path = pathlib.Path(FLAGS.out) / make.file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, np.random.default_rng(FLAGS.seed))
    return path


def encoder(observation, width):
    """The published MLP from histories to (OBS_STEPS, width).

    Args:
        observation: an array (T, D), or a dict of such, for its shape.
    """
    if isinstance(observation, dict):
        inputs = {
            key: keras.Input((OBS_STEPS, value.shape[-1]), name=key)
            for key, value in observation.items()
        }
    else:
        inputs = keras.Input((OBS_STEPS, observation.shape[-1]))
    h = [keras.layers.Flatten()(i) for i in keras.tree.flatten(inputs)]
    h = keras.layers.Concatenate()(h) if len(h) > 1 else h[0]
    for _ in range(2):
        h = keras.layers.LeakyReLU(0.01)(keras.layers.Dense(width)(h))
    h = keras.layers.Dense(OBS_STEPS * width)(h)
    return keras.Model(inputs, keras.layers.Reshape((OBS_STEPS, width))(h))


def build(horizon, episode, representation):
    """The policy: encoder, network, objective and normalisers."""
    keras.utils.set_random_seed(FLAGS.seed)
    name, _, form = FLAGS.objective.partition(":")
    kind, width = NETWORKS[FLAGS.network]
    width = FLAGS.width or width
    options = {
        key: FLAGS[key].value
        for key in ("width", "depth")
        if FLAGS[key].value is not None
    }
    if FLAGS.network == "unet" and "depth" in options:
        options["width_mult"] = (1,) + (2,) * (options.pop("depth") - 1)
    network = kind(
        episode["action"].shape[-1],
        horizon,
        (OBS_STEPS, width),
        kf.objectives.get(name).needs_r,
        **options,
    )
    interface = kf.FlowMapInterface(
        network,
        kf.objectives.get(name, **({"form": form} if form else {})),
        ema=FLAGS.ema,
        seed=FLAGS.seed,
    )
    return kf.policies.Policy(
        interface,
        encoder(episode["observation"], width),
        act_steps=ACT_STEPS,
        representation=representation,
    )


def train(policy, windows, plain=()):
    """Fit the policy; returns the seconds it took.

    Args:
        plain: columns of an action that are not normalised.
    """
    policy.adapt(windows)
    normalizer = policy.action_normalizer
    for variable, value in ((normalizer.offset, 0.0), (normalizer.scale, 1.0)):
        numbers = keras.ops.convert_to_numpy(variable).copy()
        numbers[list(plain)] = value
        variable.assign(numbers)
    steps = setting("steps")
    policy.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(
                setting("learning_rate"), steps
            ),
            weight_decay=1e-5,
            global_clipnorm=10.0,
        ),
        jit_compile=keras.backend.backend() != "torch",
    )
    epochs = min(10, steps)
    start = time.time()
    policy.fit(
        windows,
        steps_per_epoch=steps // epochs,
        epochs=epochs,
        verbose=0,
        callbacks=[kf.callbacks.ProgressBar()],
    )
    return time.time() - start


def sweeps():
    """{steps: options of `predict_chunk`} to measure the objective at."""
    name = FLAGS.objective.partition(":")[0]
    if name in ("regression", "straight_flow"):
        return {1: {}}
    if name in ("mip", "tsd"):
        # One step is the first of the two calls alone.
        return {1: {"num_steps": 1, "sampler": "one_step"}, 2: {}}
    return {n: {"num_steps": n} for n in (1, 2, 9)}


def executed(chunk):
    """The actions of a chunk that would be executed."""
    return chunk[:, OBS_STEPS - 1 : OBS_STEPS - 1 + ACT_STEPS]


def held_out(episodes, horizon):
    """(actions, observations, mask) of windows spread over the episodes."""
    windows = robots.Windows(
        episodes, horizon, OBS_STEPS, ACT_STEPS, batch_size=1, mask=True,
        short="pad",
    )  # fmt: skip
    numbers = np.linspace(
        0, windows.num_windows - 1, min(FLAGS.windows, windows.num_windows)
    )
    actions, observations, extras = windows.gather(numbers.astype(int))
    return actions, observations, executed(extras["mask"]).astype(bool)


def run(config, episodes, horizon, errors, representation="absolute", plain=()):
    """Train, measure, save; writes the results.

    Args:
        config: dict of what was trained, for the results.
        episodes: list of episodes, their observations (T, D) or dicts of such.
        horizon: actions of a chunk.
        errors: function (predicted, recorded), both (N, A), to a dict of
            numbers.
        representation: of the policy.
        plain: columns of an action that are not normalised.
    """
    out = pathlib.Path(FLAGS.out)
    training, measured = robots.split_episodes(
        episodes, FLAGS.held_out, FLAGS.seed
    )
    config = config | {
        "objective": FLAGS.objective,
        "network": FLAGS.network,
        "horizon": horizon,
        "ema": FLAGS.ema,
        "seed": FLAGS.seed,
        "synthetic": FLAGS.synthetic,
        "backend": keras.backend.backend(),
        "keras_flows": kf.__version__,
        **{key: setting(key) for key in QUICK},
    }
    write(out / "config.json", config)
    policy = build(horizon, training[0], representation)
    windows = robots.Windows(
        training, horizon, OBS_STEPS, ACT_STEPS, setting("batch_size"),
        transform=policy.encode_actions, short="pad", repeat=True,
        seed=FLAGS.seed,
    )  # fmt: skip
    seconds = train(policy, windows, plain)

    actions, observations, mask = held_out(measured, horizon)
    recorded = executed(actions)[mask]
    found = {}
    for steps, options in sweeps().items():
        chunks = policy.predict_chunk(observations, seed=FLAGS.seed, **options)
        found[str(steps)] = errors(executed(chunks)[mask], recorded)
    mean = np.concatenate([e["action"] for e in training]).mean(axis=0)
    results = {
        "config": config,
        "episodes": {"train": len(training), "held_out": len(measured)},
        "windows": windows.num_windows,
        "parameters": policy.count_params(),
        "training_seconds": round(seconds, 1),
        "errors": found,
        "errors_of_the_mean_action": errors(
            np.broadcast_to(mean, recorded.shape), recorded
        ),
    }
    policy.save_to_preset(out / "preset", metadata={"training": results})
    write(out / "results.json", results)
    for steps, row in found.items():
        print(f"{FLAGS.objective}, {steps} step(s):", row, flush=True)
    print("the mean action:", results["errors_of_the_mean_action"])
    print(f"Wrote {out / 'results.json'} and {out / 'preset'}")
