"""Encode a data set once: sharded latents with a manifest.

    KERAS_BACKEND=jax python tools/prepare_latents.py \\
        --source=tfds:imagenet2012 --split=train --image_size=256 \\
        --vae=vae.keras --shards=128 --out=latents/imagenet256

`kf.datasets.Latents(--out, batch_size)` reads them. Stopped, it goes on from
the last whole shard when called again with the same flags. --vae is a Keras
file or a preset folder (config.json and model.weights.h5) of a model with
`encode`, such as `kf.networks.AutoencoderKL`.

For REPA --features=dinov2_base --feature_grid=16 keeps an encoder's tokens
beside each latent (16 x 16 of them), and --keep_images the images, for an
encoder that runs at every step; `Latents(..., extras="features")` or "image"
reads them.
"""

import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
from absl import app
from absl import flags

import keras_flows as kf

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "source",
    None,
    "tfds:NAME, an image folder, or a zip of EDM's dataset_tool.",
    required=True,
)
flags.DEFINE_string("split", "train", "Split of a tfds set.")
flags.DEFINE_string("data_dir", None, "Folder of the prepared tfds sets.")
flags.DEFINE_string("vae", None, "Keras file or preset.", required=True)
flags.DEFINE_float("scaling_factor", 1.0, "Where the VAE does not scale.")
flags.DEFINE_float("shift_factor", 0.0, "Where the VAE does not shift.")
flags.DEFINE_integer("image_size", None, "Pixels a side; as it is if unset.")
flags.DEFINE_integer("batch_size", 32, "Images at a time.", lower_bound=1)
flags.DEFINE_integer("shards", 1, "Number of files.", lower_bound=1)
flags.DEFINE_bool("flip", True, "Also the mirrored images' latents.")
flags.DEFINE_bool("rgb", False, "Three equal channels for grey images.")
flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the files.")
flags.DEFINE_string(
    "features",
    None,
    "Encoder for REPA: a Keras file or preset, images in [-1, 1] to tokens, or "
    "with --feature_grid a KerasHub DINOv2 or DINOv3 preset.",
)
flags.DEFINE_integer("feature_grid", None, "DINO's tokens a side.")
flags.DEFINE_bool("keep_images", False, "Keep the cropped images as PNG.")
flags.DEFINE_integer("seed", 0, "Seed of the records' order.")
flags.DEFINE_string("out", None, "Folder to write.", required=True)


def open_source():
    """The source that --source names."""
    name = FLAGS.source
    if name.startswith("tfds:"):
        return kf.datasets.TfdsSource(
            name.removeprefix("tfds:"), FLAGS.split, FLAGS.data_dir
        )
    if name.endswith(".zip") or (pathlib.Path(name) / "dataset.json").is_file():
        return kf.datasets.EdmSource(name)
    return kf.datasets.FolderSource(name)


def load(path):
    """A model from a Keras file or a preset."""
    if pathlib.Path(path).suffix == ".keras":
        return keras.saving.load_model(path, compile=False)
    return kf.from_preset(path)


def load_autoencoder(path):
    """A model with `encode`."""
    model = load(path)
    if not hasattr(model, "encode"):
        raise ValueError(
            f"`--vae` {path!r} holds a {type(model).__name__} without "
            "`encode`. Name an autoencoder, e.g. kf.networks.AutoencoderKL."
        )
    return model


def load_encoder(path):
    """A model of images to tokens, or None."""
    if path is None:
        return None
    if FLAGS.feature_grid is None:
        return load(path)
    if FLAGS.image_size is None:
        raise app.UsageError("--feature_grid needs --image_size.")
    return kf.networks.dino_encoder(
        path, (FLAGS.image_size,) * 2 + (3,), (FLAGS.feature_grid,) * 2
    )


class Progress:
    """A line of progress on the error stream, at every percent."""

    def __init__(self):
        self.percent = -1

    def __call__(self, done, total):
        percent = 100 * done // total
        if percent != self.percent:
            self.percent = percent
            print(f"\r{done}/{total} images", end="", file=sys.stderr)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    manifest = kf.datasets.prepare_latents(
        open_source(),
        load_autoencoder(FLAGS.vae),
        FLAGS.out,
        image_size=FLAGS.image_size,
        batch_size=FLAGS.batch_size,
        shards=FLAGS.shards,
        flip=FLAGS.flip,
        rgb=FLAGS.rgb,
        dtype=FLAGS.dtype,
        seed=FLAGS.seed,
        scaling_factor=FLAGS.scaling_factor,
        shift_factor=FLAGS.shift_factor,
        name=FLAGS.vae,
        features=load_encoder(FLAGS.features),
        features_name=FLAGS.features,
        keep_images=FLAGS.keep_images,
        command=" ".join(sys.argv),
        progress=Progress(),
    )
    stds = [shard["std"] for shard in manifest["shards"]]
    std = FLAGS.scaling_factor * sum(stds) / len(stds)
    print(
        f"\n{manifest['num_records']} latents {manifest['latent_shape']} in "
        f"{FLAGS.out}, of standard deviation {std:.3f} (a model expects "
        "about 1)."
    )


if __name__ == "__main__":
    app.run(main)
