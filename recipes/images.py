"""Train image models on rendered scenes, MNIST or a folder, and compare.

    KERAS_BACKEND=jax python recipes/images.py --data=scenes --out=out/scenes
    KERAS_BACKEND=jax python recipes/images.py --data=mnist --patch_size=7 \
        --out=out/mnist
    KERAS_BACKEND=jax python recipes/images.py --data=folder --folder=PATH \
        --out=out/mine

Hardware: 2 CPU cores, --minutes a method. "sit" comes first: the one-step
methods (mean_flow, lsd) start from its weights, lmd and dmd2 distil it.

A probe, a small network that learned to read the factors of the training images
(floor hue, shape, ...; of MNIST the digit), judges --draws sets of samples: how
many have each factor that was asked for; the Frechet distance (FD) of their
features to those of real images that nobody trained on; precision and recall;
and where the training set is finite the distance to the nearest training image.
Beside them stand real images, as many, and an untrained network's samples.

Writes to --out: config.json, results.json, table.md, images.png, the probe and
each method's preset. Methods trained before into the same --out stay in the
table; --notrain measures them again.
"""

import json
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import _quiet  # noqa: F401
import keras
import numpy as np
from _autoencoder import Latents
from _autoencoder import trained as trained_autoencoder
from _common import Clock
from _common import muon
from _common import settings
from _common import write
from _image_data import Folder
from _image_data import Mnist
from _image_data import Scenes
from _image_table import figure
from _image_table import table
from _methods import DISTILLED
from _methods import METHODS
from _methods import ONE_STEP
from _methods import interface
from _probe import Judge
from _probe import Probe
from _probe import summary
from _probe import token_encoder
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_enum("data", "scenes", ["scenes", "mnist", "folder"], "Data set.")
flags.DEFINE_string("folder", None, "Folder of images, for --data=folder.")
flags.DEFINE_bool("full", False, "All of MNIST, downloaded, not 5,000 images.")
flags.DEFINE_integer("size", 32, "Pixels a side, but for MNIST's 28.")
flags.DEFINE_integer("pool", 20_000, "Scenes to train on.", lower_bound=1)
flags.DEFINE_list("method", ["sit", "lsd"], "Methods to train.")
flags.register_validator(
    "method",
    lambda names: set(names) <= set(METHODS),
    f"must be some of {', '.join(METHODS)}",
)
flags.DEFINE_string(
    "teacher", None, "Preset that lmd and dmd2 distil; the sit of --out."
)
flags.DEFINE_string(
    "start",
    None,
    "Preset whose weights a method starts from; for mean_flow and lsd the sit "
    "of --out, if it is there; 'none' for new weights.",
)
flags.DEFINE_bool("latents", False, "Train in an own autoencoder's latents.")
flags.DEFINE_integer(
    "autoencoder_steps", 3_000, "Steps of its training.", lower_bound=1
)
flags.DEFINE_enum("network", "dit", ["dit", "unet"], "Network.")
flags.DEFINE_float("minutes", 60.0, "Budget of a method, of the clock.")
flags.DEFINE_integer("steps", None, "Its steps: what is spent first ends it.")
flags.DEFINE_integer("probe_steps", 1_500, "Steps of the probe.", lower_bound=1)
flags.DEFINE_bool("train", True, "False measures the presets in --out again.")
flags.DEFINE_integer("batch_size", 64, "Batch size.", lower_bound=1)
flags.DEFINE_float("learning_rate", 3e-3, "Peak of the cosine schedule.")
flags.DEFINE_float("ema", 0.995, "Decay of the moving average.")
flags.DEFINE_integer("patch_size", 4, "Side of the DiT's patches.")
flags.DEFINE_integer("width", 128, "Channels of a token, or of the U-Net.")
flags.DEFINE_integer("depth", 4, "Blocks of the DiT.")
flags.DEFINE_float("guidance_scale", 1.0, "Scale of guidance; 1 is none.")
flags.DEFINE_integer("num_samples", 1_000, "Samples of a draw.", lower_bound=5)
flags.DEFINE_integer("draws", 3, "Sampling seeds.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/images", "Folder for what it makes.")

CALLS = (1, 2, 4, 32)
# A generator that starts as the teacher's copy, beside an unsteady rival.
RATES = {"dmd2": 5e-4}
# Real images that samples are compared with.
REFERENCE = 5_000


def load_data():
    """The data set of --data, in pixels."""
    if FLAGS.data == "scenes":
        return Scenes(FLAGS.size, FLAGS.pool, FLAGS.seed)
    if FLAGS.data == "mnist":
        return Mnist(FLAGS.full)
    if FLAGS.folder is None:
        raise ValueError("--data=folder needs --folder=PATH.")
    return Folder(FLAGS.folder, FLAGS.size, FLAGS.seed)


def network(data, two_times):
    """A new network for the images of a data set."""
    if FLAGS.network == "unet":
        return kf.networks.SongUNet(
            data.shape,
            channels=FLAGS.width,
            channel_mult=(1, 2),
            num_blocks=1,
            attn_resolutions=(),
            dropout=0.0,
            two_times=two_times,
            num_classes=data.classes,
        )
    return kf.networks.DiT(
        data.shape,
        patch_size=FLAGS.patch_size,
        width=FLAGS.width,
        depth=FLAGS.depth,
        num_heads=4,
        two_times=two_times,
        num_classes=data.classes,
    )


def teacher_of(method):
    """What a method distils, frozen, or None."""
    if method not in DISTILLED:
        return None
    path = pathlib.Path(FLAGS.teacher or f"{FLAGS.out}/sit/preset")
    if not path.exists():
        raise ValueError(
            f"--method={method} distils {path}, and there is none: train "
            "--method=sit first, or name a preset by --teacher."
        )
    teacher = kf.Interface.from_preset(path)
    teacher.trainable = False
    return teacher


def start_of(method):
    """The preset whose weights a method starts from, or None."""
    if FLAGS.start is not None:
        return None if FLAGS.start == "none" else pathlib.Path(FLAGS.start)
    path = pathlib.Path(FLAGS.out) / "sit" / "preset"
    return path if method in ("mean_flow", "lsd") and path.exists() else None


def build(method, data, probe):
    """A new model of one method."""
    start, encoder = start_of(method), None
    if method == "repa":
        if FLAGS.network == "unet" or FLAGS.latents:
            raise ValueError("--method=repa is for --network=dit on pixels.")
        encoder = token_encoder(probe.model, data.shape[0] // FLAGS.patch_size)
    teacher = teacher_of(method)
    keras.utils.set_random_seed(FLAGS.seed)
    return interface(
        method,
        lambda two_times: network(data, two_times),
        teacher=teacher,
        encoder=encoder,
        depth=FLAGS.depth,
        start=None if start is None else kf.Interface.from_preset(start),
        ema=FLAGS.ema,
        seed=FLAGS.seed,
    )


def train(model, method, data):
    """Fit within the budget; returns what it took."""
    rate = RATES.get(method, FLAGS.learning_rate)
    optimizers = [muon(rate)]
    if isinstance(model, kf.DMDInterface):
        # As published; Muon is the worse for two rivals, and the slower.
        optimizers = [
            keras.optimizers.Adam(rate, beta_2=0.99, global_clipnorm=1.0)
            for _ in range(2)
        ]
    model.compile(*optimizers, jit_compile=keras.backend.backend() != "torch")
    clock = Clock(method, [rate] * len(optimizers), FLAGS.minutes, FLAGS.steps)
    began, cpu = time.time(), time.process_time()
    model.fit(
        data.batches(FLAGS.batch_size, FLAGS.seed + 1),
        steps_per_epoch=min(10, FLAGS.steps or 10),
        epochs=10**6,
        verbose=0,
        callbacks=[clock],
    )
    took = {
        "seconds": round(time.time() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "training_steps": clock.steps,
        "images_seen": clock.steps * FLAGS.batch_size,
    }
    start = start_of(method)
    if start is not None:
        took["before"] = training_of(start)
    return took


def training_of(preset):
    """What a preset of this recipe keeps of its training."""
    metadata = json.loads((preset / "metadata.json").read_text())
    return metadata["training"]


def sampler_of(method, calls):
    """The sampler and its number of steps for so many network calls.

    Heun's method takes two calls a step, and one in the last.
    """
    if method in (*ONE_STEP, *DISTILLED):
        return "flow_map_jump", calls
    return ("euler", calls) if calls <= 2 else ("heun", calls // 2)


def draw(model, method, data, labels, num, calls, seed):
    """Images with the given labels, clipped to the images' range."""
    sampler, steps = sampler_of(method, calls)
    samples = model.generate(
        num,
        condition=labels,
        num_steps=steps,
        sampler=sampler,
        guidance_scale=FLAGS.guidance_scale,
        batch_size=min(num, 250),
        seed=seed,
    )
    images = data.decode(keras.ops.convert_to_numpy(samples))
    return np.clip(images, -1.0, 1.0)


def judged(judge, make):
    """The summary of --draws sets: make(num, seed) gives images, labels."""
    seeds = range(1, 1 + FLAGS.draws)
    return summary([judge(*make(FLAGS.num_samples, seed)) for seed in seeds])


def evaluate(model, method, data, pixels, judge, calls_of):
    """The figures of one model by calls, and samples for the figure."""
    found, shown = {}, {}
    for calls in calls_of:

        def make(num, seed, calls=calls):
            images, labels = pixels.fresh(num, seed)
            samples = draw(
                model, method, data, labels, len(images), calls, 100 + seed
            )
            return samples, labels

        began = time.time()
        found[str(calls)] = judged(judge, make)
        shown[str(calls)] = make(24, 0)[0]
        print(
            f"{method}, calls {calls}: FD {found[str(calls)]['fd']:.3f}, "
            f"{time.time() - began:.0f} s",
            flush=True,
        )
    return found, shown


def floors(data, pixels, probe, judge):
    """What real images score, and what a network scores before training."""
    real = judged(judge, pixels.real)
    if pixels.training is not None:
        # The probe knows the training images, each of which is its own nearest.
        held_out = judge(*pixels.fresh(REFERENCE, 0))
        real |= {key: held_out[key] for key in ("accuracy", "nearest")}
    keras.utils.set_random_seed(FLAGS.seed)
    model = kf.SiTInterface(network(data, False), ema=None, seed=FLAGS.seed)
    none, _ = evaluate(model, "untrained", data, pixels, judge, CALLS[:1])
    return {"real": real, "untrained": none["1"]}


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    pixels = data = load_data()
    if FLAGS.latents:
        autoencoder = trained_autoencoder(
            pixels, out / "autoencoder.keras", FLAGS.autoencoder_steps, 8,
            FLAGS.seed,
        )  # fmt: skip
        data = Latents(pixels, autoencoder)
    config = settings(
        "data", "size", "latents", "network", "patch_size", "width", "depth",
        "batch_size", "learning_rate", "ema", "start", "minutes", "steps",
        "guidance_scale", "num_samples", "draws", "seed",
    )  # fmt: skip
    config |= {"keras": keras.__version__, "keras_flows": kf.__version__}
    write(out / "config.json", config)
    print(f"{data.description}.", flush=True)
    probe = Probe(pixels, out / "probe.keras", FLAGS.probe_steps, FLAGS.seed)
    judge = Judge(probe, pixels.fresh(REFERENCE, 0)[0])
    path = out / "results.json"
    results = json.loads(path.read_text()) if path.exists() else {"methods": {}}
    results |= {"data": data.description, "config": config}
    results |= floors(data, pixels, probe, judge)
    for method in FLAGS.method:
        folder = out / method
        if FLAGS.train:
            model = build(method, data, probe)
            trained = train(model, method, data) | {"settings": config}
            if method == "repa":
                model = model.interface
            model.save_to_preset(folder / "preset", {"training": trained})
        else:
            model = kf.from_preset(folder / "preset")
            trained = training_of(folder / "preset")
        # dmd2's generator knows one number of steps.
        calls = (1,) if method == "dmd2" else CALLS
        found, shown = evaluate(model, method, data, pixels, judge, calls)
        np.savez_compressed(folder / "samples.npz", **shown)
        results["methods"][method] = {"calls": found, **trained}
        write(path, results)
    write(out / "table.md", table(results))
    print(table(results))
    rows = {
        name: dict(np.load(out / name / "samples.npz"))
        for name in results["methods"]
    }
    figure(out / "images.png", pixels.fresh(24, 0)[0], rows)
    print(f"Wrote {path} and {out / 'images.png'}")


if __name__ == "__main__":
    app.run(main)
