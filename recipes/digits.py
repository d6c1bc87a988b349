"""Train class-conditional image models on scikit-learn's digits, and compare.

    KERAS_BACKEND=jax python recipes/digits.py --out=out/digits

Hardware: 2 CPU cores, at most 12 minutes an objective. Objectives by
--objective: sit, edm, mean_flow, repa (around sit), lsd, and lmd and dmd2,
which distil the sit in --out; all by default. The data are 1,197 images of
8 x 8 pixels to train, 200 to validate, 400 to test.

The measure is the Frechet distance (FD) to the test images, in the features of
a small classifier trained on the same training images, of as many samples as
there are test images, with the test images' labels, the mean of 5 draws.
Beside it stand the FD of as many real training images of the same classes, the
accuracy of the classifier on the samples and on the test images, and the
distance of a sample to its nearest training image (root mean square over
pixels, the median), beside that of the test images: a model that copies is
nearer than those. The guidance scale is chosen by the FD to the validation
images.

Writes to --out: config.json, results.json, table.md, digits.png, and for each
objective its preset and sample grids during training. Objectives trained
before into the same --out stay in the table.
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
from _common import settings
from _common import write
from _methods import DISTILLED
from _methods import METHODS as OBJECTIVES
from _methods import ONE_STEP
from _methods import interface
from _probe import nearest
from absl import app
from absl import flags
from keras import layers

import keras_flows as kf
from keras_flows.ops.files import replacing

FLAGS = flags.FLAGS
flags.DEFINE_list("objective", list(OBJECTIVES), "Objectives to train.")
flags.register_validator(
    "objective",
    lambda names: set(names) <= set(OBJECTIVES),
    f"must be some of {', '.join(OBJECTIVES)}",
)
flags.DEFINE_integer(
    "steps", None, "Training steps; by default TRAINING_STEPS.", lower_bound=1
)
flags.DEFINE_bool("train", True, "False measures the presets in --out again.")
flags.DEFINE_integer("batch_size", 128, "Batch size.", lower_bound=1)
flags.DEFINE_float("learning_rate", 2e-3, "Peak of the cosine schedule.")
flags.DEFINE_float("ema", 0.999, "Decay of the moving average.")
flags.DEFINE_integer("patch_size", 4, "Side of a patch: 2 or 4 pixels.")
flags.DEFINE_integer("width", 128, "Channels of a token.")
flags.DEFINE_integer("depth", 4, "Number of blocks.")
flags.DEFINE_integer("draws", 5, "Draws of samples per figure.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of weights, data and noise.")
flags.DEFINE_string("out", "out/digits", "Folder for what it makes.")

SHAPE, CLASSES = (8, 8, 1), 10
# One step is harder to learn than a velocity; all stay under 10 minutes.
TRAINING_STEPS = {name: 3_000 for name in OBJECTIVES} | {
    "mean_flow": 4_500,
    # Of which one in six moves the generator.
    "dmd2": 6_000,
}
STEPS = (1, 2, 4, 32)
# Guidance scales to choose from. MeanFlow's would be inside its training, and
# DMD's its teacher's.
SCALES = (1.0, 1.25, 1.5, 2.0)
# A generator that starts as the teacher's copy, beside an unsteady rival.
RATES = {"dmd2": 5e-4}


def classifier():
    """A small convolutional classifier, its features a 4 x 4 grid."""
    inputs = keras.Input(SHAPE)
    x = inputs
    for i, (filters, strides) in enumerate([(32, 1), (64, 2), (64, 1)]):
        x = layers.Conv2D(
            filters, 3, strides, "same", activation="gelu", name=f"conv_{i}"
        )(x)
    x = layers.Dropout(0.3)(layers.Flatten()(x))
    x = layers.Dense(64, "gelu", name="features")(x)
    x = layers.Dense(CLASSES, name="logits")(layers.Dropout(0.3)(x))
    return keras.Model(inputs, x, name="digits_classifier")


def trained_classifier():
    """The classifier, from --out if it was trained there before."""
    path = pathlib.Path(FLAGS.out) / "classifier.keras"
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(FLAGS.seed)
    model = classifier()
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=1_140)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, labels = kf.datasets.digits("train")
    model.fit(x, labels, batch_size=64, epochs=60, verbose=0)
    model.compile()
    with replacing(path) as temporary:
        model.save(temporary)
    return model


class Digits:
    """Training images drawn with replacement."""

    def __init__(self):
        self.x, self.labels = kf.datasets.digits("train")

    def batches(self, seed):
        """(images, labels) without end."""
        rng = np.random.default_rng(seed)
        while True:
            rows = rng.integers(0, len(self.x), FLAGS.batch_size)
            yield self.x[rows], self.labels[rows]


def trained_teacher():
    """The sit of --out, frozen."""
    path = pathlib.Path(FLAGS.out) / "sit" / "preset"
    if not path.exists():
        raise ValueError(
            f"--objective={','.join(DISTILLED)} distils the sit of --out, and "
            f"{path} is not there: train --objective=sit first."
        )
    teacher = kf.Interface.from_preset(path)
    teacher.trainable = False
    return teacher


def network(two_times):
    """A new network for the digits."""
    return kf.networks.DiT(
        SHAPE,
        patch_size=FLAGS.patch_size,
        width=FLAGS.width,
        depth=FLAGS.depth,
        num_heads=4,
        two_times=two_times,
        num_classes=CLASSES,
    )


def build(objective, encoder):
    """The interface of one objective."""
    teacher = trained_teacher() if objective in DISTILLED else None
    keras.utils.set_random_seed(FLAGS.seed)
    return interface(
        objective,
        network,
        teacher=teacher,
        encoder=encoder,
        x_sigma=0.75,
        depth=FLAGS.depth,
        ema=FLAGS.ema,
        seed=FLAGS.seed,
    )


def token_encoder(model):
    """The classifier's last convolution as tokens, for REPA."""
    grid = model.get_layer("conv_2").output
    grid = layers.AveragePooling2D(FLAGS.patch_size // 2)(grid)
    tokens = layers.Reshape((-1, grid.shape[-1]))(grid)
    return keras.Model(model.input, tokens, name="digits_encoder")


def optimizers(model, objective, steps):
    """The optimizer, and of two networks that take turns the second's."""
    counts = [steps]
    if isinstance(model, kf.DMDInterface):
        turns = steps // (1 + model.objective.fake_updates)
        counts = [turns, steps - turns]
    rate = RATES.get(objective, FLAGS.learning_rate)
    schedules = [cosine(rate, count, min(200, count)) for count in counts]
    if len(schedules) == 2:
        # As published; Muon is the worse for two rivals, and the slower.
        return [
            keras.optimizers.Adam(s, beta_2=0.99, global_clipnorm=1.0)
            for s in schedules
        ]
    return [muon(schedules[0])]


def train(model, objective, out):
    """Fit; returns the seconds."""
    steps = FLAGS.steps or TRAINING_STEPS[objective]
    model.compile(
        *optimizers(model, objective, steps),
        jit_compile=keras.backend.backend() != "torch",
    )
    epochs = min(10, steps)
    start = time.time()
    model.fit(
        Digits().batches(FLAGS.seed),
        steps_per_epoch=steps // epochs,
        epochs=epochs,
        verbose=0,
        callbacks=[
            kf.callbacks.ProgressBar(),
            kf.callbacks.SampleGrid(
                out / "grids",
                max(steps // 5, 1),
                columns=10,
                scale=4,
                condition=np.arange(40, dtype="int32") % 10,
                num_steps=1 if objective in (*ONE_STEP, *DISTILLED) else 16,
            ),
        ],
    )
    return time.time() - start


def sampler_of(objective):
    if objective in (*ONE_STEP, *DISTILLED):
        return "flow_map_jump"
    return "heun"


def steps_of(objective):
    """The numbers of steps to measure; dmd2's generator knows one."""
    return (1,) if objective == "dmd2" else STEPS


def draw(model, objective, labels, steps, scale, seed):
    """Samples with the given labels, clipped to the images' range."""
    samples = model.generate(
        condition=labels,
        num_steps=steps,
        guidance_scale=scale,
        sampler=sampler_of(objective),
        seed=seed,
    )
    return np.clip(keras.ops.convert_to_numpy(samples), -1.0, 1.0)


def choose_scale(model, objective, extractor):
    """The guidance scale of least FD to the validation images."""
    if objective in ("mean_flow", "dmd2"):
        return 1.0, {}
    x, labels = kf.datasets.digits("validation")
    distance = kf.metrics.FrechetDistance(extractor, x)
    labels = np.tile(labels, 2)
    steps = 1 if objective in ONE_STEP else 32
    distances = {
        scale: distance(draw(model, objective, labels, steps, scale, seed=1))
        for scale in SCALES
    }
    return min(distances, key=distances.get), distances


def accuracy(extractor, x, labels):
    logits = extractor(x)["logits"]
    return float(np.mean(np.argmax(logits, axis=-1) == labels))


def real(extractor):
    """The figures of real images, which the samples' stand beside."""
    x, labels = kf.datasets.digits("test")
    training, classes = kf.datasets.digits("train")
    distance = kf.metrics.FrechetDistance(extractor, x)
    rng = np.random.default_rng(FLAGS.seed)

    def draw():
        """As many training images, of the test images' classes."""
        picked = np.zeros(len(labels), "int64")
        for c, count in enumerate(np.bincount(labels)):
            rows = np.flatnonzero(classes == c)
            picked[labels == c] = rng.choice(rows, count, replace=False)
        return training[picked]

    return {
        "accuracy": accuracy(extractor, x, labels),
        "fd": float(np.mean([distance(draw()) for _ in range(FLAGS.draws)])),
        "nearest_training_image": float(np.median(nearest(x, training))),
        "num_images": len(x),
    }


def evaluate(model, objective, extractor):
    """The figures of one objective, and samples for the picture."""
    x, labels = kf.datasets.digits("test")
    training, _ = kf.datasets.digits("train")
    distance = kf.metrics.FrechetDistance(extractor, x)
    scale, scales = choose_scale(model, objective, extractor)
    results, pictures = {"guidance_scales": scales, "steps": {}}, {}
    for steps in steps_of(objective):
        draws = [
            draw(model, objective, labels, steps, scale, seed)
            for seed in range(2, 2 + FLAGS.draws)
        ]
        records = [
            distance.record(
                samples,
                seed=seed,
                steps=steps,
                sampler=sampler_of(objective),
                guidance_scale=scale,
                ema=FLAGS.ema,
            )
            for seed, samples in enumerate(draws, 2)
        ]
        results["steps"][steps] = {
            "fd": float(np.mean([r["value"] for r in records])),
            "accuracy": float(
                np.mean([accuracy(extractor, s, labels) for s in draws])
            ),
            "nearest_training_image": float(
                np.median(np.concatenate([nearest(s, training) for s in draws]))
            ),
            "records": records,
        }
        pictures[steps] = draw(
            model, objective, np.arange(10, dtype="int32"), steps, scale, 0
        )
    return results, pictures


def table(results, base):
    """Markdown: rows are objectives, columns numbers of steps."""
    lines = [
        f"Real images: accuracy {base['accuracy']:.1%}, FD {base['fd']:.2f}, "
        f"nearest training image {base['nearest_training_image']:.3f}.",
        "",
        "| FD / accuracy | "
        + " | ".join(f"{n} step{'s' * (n > 1)}" for n in STEPS)
        + " | nearest training image | guidance | seconds |",
        "|---" * (len(STEPS) + 4) + "|",
    ]
    for name, result in results.items():
        cells = [
            f"{s['fd']:.2f} / {s['accuracy']:.1%}" if s else ""
            for s in (result["steps"].get(str(n)) for n in STEPS)
        ]
        last = list(result["steps"].values())[-1]
        lines.append(
            f"| {name} | "
            + " | ".join(cells)
            + f" | {last['nearest_training_image']:.3f} | "
            f"{last['records'][0]['guidance_scale']} | "
            f"{result['seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def picture(path, rows):
    """Real digits, then a row for each objective and number of steps."""
    plt = pyplot()

    fig, axes = plt.subplots(
        1 + len(rows),
        len(STEPS),
        figsize=(3.4 * len(STEPS), 0.62 * (1 + len(rows))),
        squeeze=False,
        constrained_layout=True,
    )
    x, labels = kf.datasets.digits("test")
    for axis in axes.flat:
        axis.axis("off")

    def show(axis, images):
        grid = kf.callbacks.image_grid(images, columns=10, scale=4, border=2)
        axis.imshow(grid.squeeze(-1), cmap="gray", vmin=0, vmax=255)

    for column in range(len(STEPS)):
        rows_of = [np.flatnonzero(labels == c)[column] for c in range(CLASSES)]
        show(axes[0, column], x[rows_of])
        axes[0, column].set_title("test images", fontsize=8)
    for i, (name, pictures) in enumerate(rows.items(), 1):
        for column, steps in enumerate(STEPS):
            if str(steps) not in pictures:
                continue
            show(axes[i, column], pictures[str(steps)])
            axes[i, column].set_title(
                f"{name}, {steps} step{'s' * (steps > 1)}", fontsize=8
            )
    fig.savefig(path, dpi=160)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    config = settings(
        "batch_size", "learning_rate", "ema", "patch_size", "width", "depth",
        "draws", "seed",
    )  # fmt: skip
    config["keras"] = keras.__version__
    config["keras_flows"] = kf.__version__
    write(out / "config.json", config)
    model = trained_classifier()
    extractor = kf.metrics.ClassifierFeatures(model)
    base = real(extractor)
    print("real images:", base, flush=True)
    path = out / "results.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    results = known.get("objectives", {})
    for objective in FLAGS.objective:
        folder = out / objective
        if FLAGS.train:
            trainee = build(objective, token_encoder(model))
            seconds = train(trainee, objective, folder)
            if objective == "repa":
                trainee = trainee.interface
            trained = {
                "seconds": round(seconds, 1),
                "training_steps": FLAGS.steps or TRAINING_STEPS[objective],
                "settings": config,
            }
            trainee.save_to_preset(folder / "preset", {"training": trained})
        else:
            trainee = kf.Interface.from_preset(folder / "preset")
            metadata = json.loads(
                (folder / "preset" / "metadata.json").read_text()
            )
            trained = metadata["training"]
        result, pictures = evaluate(trainee, objective, extractor)
        result |= trained
        np.savez_compressed(
            folder / "samples.npz",
            **{str(steps): images for steps, images in pictures.items()},
        )
        results[objective] = json.loads(json.dumps(result))
        results = {k: results[k] for k in OBJECTIVES if k in results}
        write(
            path,
            json.dumps({"real": base, "objectives": results}, indent=2) + "\n",
        )
        print(table(results, base), flush=True)
    write(out / "table.md", table(results, base))
    picture(
        out / "digits.png",
        {name: np.load(out / name / "samples.npz") for name in results},
    )
    print(f"Wrote {path} and {out / 'digits.png'}")


if __name__ == "__main__":
    app.run(main)
