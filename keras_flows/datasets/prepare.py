"""Write prepared latents: encode every image of a source once.

`prepare_latents` is what tools/prepare_latents.py calls; `Latents` reads the
files. A record is the label (int32, -1 for none); the mean and the standard
deviation (h, w, c) of the autoencoder's posterior, and where flips are kept
those of the mirrored image; where features are kept those of the image (T, D),
and of the mirrored one; all in the manifest's dtype, little-endian; and where
images are kept, the cropped image as a PNG. `manifest.json` says how they were
made, and `fit` compares it with the model.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import typing
from importlib import metadata

import keras
import numpy as np
from keras import ops

from keras_flows import ops as kf_ops
from keras_flows.datasets.batches import stack
from keras_flows.datasets.images import ImageTransform
from keras_flows.datasets.manifest import FORMAT
from keras_flows.datasets.manifest import MANIFEST
from keras_flows.datasets.manifest import PROGRESS
from keras_flows.datasets.manifest import check_shard
from keras_flows.datasets.manifest import check_shards
from keras_flows.datasets.shards import SHARED
from keras_flows.datasets.shards import Row
from keras_flows.datasets.shards import png_of
from keras_flows.datasets.shards import write_shard
from keras_flows.ops import given
from keras_flows.ops.files import write_text
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import REAL
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    from keras_flows.ops.types import ArrayLike
    from keras_flows.ops.types import PathLike


@checked(
    name=given.of(given.text, none=True),
    scaling_factor=POSITIVE,
    shift_factor=REAL,
)
def describe_autoencoder(
    autoencoder: keras.Model,
    name: str | None = None,
    scaling_factor: float = 1.0,
    shift_factor: float = 0.0,
) -> dict[str, Any]:
    """What tells one autoencoder's latents from another's, as JSON values.

    Args:
        autoencoder: a `keras.Model` with `encode`.
        name: what to call it, by default its class.
        scaling_factor: see `prepare_latents`.
        shift_factor: see `prepare_latents`.

    Returns:
        Dict of the name, the sha256 of the weights, the two factors that
        sampling applies, and those of the autoencoder's own config, which its
        `encode` applies (None where it has none).
    """
    check_model("autoencoder", autoencoder)
    config = _config_of(autoencoder)
    return {
        "name": name or type(autoencoder).__name__,
        "weights_sha256": _weights_sha256(autoencoder),
        "scaling_factor": float(scaling_factor),
        "shift_factor": float(shift_factor),
        "own_scaling_factor": config.get("scaling_factor"),
        "own_shift_factor": config.get("shift_factor"),
    }


def check_model(name, model):
    """Refuse what is no `keras.Model`."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`{name}` must be a keras.Model. Received: {type(model).__name__}."
        )


def _config_of(autoencoder):
    try:
        return autoencoder.get_config()
    except NotImplementedError:  # a subclassed model without a config
        return {}


def _weights_sha256(model):
    digest = hashlib.sha256()
    # In order, without names, which Keras may number differently.
    for weight in model.weights:
        value = np.ascontiguousarray(ops.convert_to_numpy(weight))
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def _write_json(path, content):
    write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


class _Encoder:
    """A function of a batch of images to arrays, compiled once."""

    def __init__(self, function, model, batch_size):
        self.batch_size = batch_size
        self._function = kf_ops.compiled(function, model.variables)

    def __call__(self, images):
        num = len(images)
        # The last batch is filled up, so that there is one shape only.
        fill = np.repeat(images[-1:], self.batch_size - num, axis=0)
        images = np.concatenate([images, fill])
        return [
            ops.convert_to_numpy(part)[:num]
            for part in self._function(ops.convert_to_tensor(images))
        ]


def _posteriors(autoencoder, batch_size):
    """Images in [-1, 1] to means and standard deviations."""

    def encode(images):
        mean, logvar = autoencoder.encode(images)
        return [mean, ops.exp(0.5 * logvar)]

    return _Encoder(encode, autoencoder, batch_size)


def _tokens(encoder, batch_size):
    """Images in [-1, 1] to an encoder's tokens."""
    return _Encoder(
        lambda images: [encoder(images, training=False)], encoder, batch_size
    )


@checked(
    image_size=Optional(SIZE),
    batch_size=SIZE,
    shards=SIZE,
    flip=FLAG,
    rgb=FLAG,
    scaling_factor=POSITIVE,
    shift_factor=REAL,
    out=given.path_of,
    seed=SEED,
    keep_images=FLAG,
)
def prepare_latents(
    source: Any,
    autoencoder: keras.Model,
    out: PathLike,
    *,
    image_size: int | None = None,
    batch_size: int = 32,
    shards: int = 1,
    flip: bool = True,
    rgb: bool = False,
    dtype: str | keras.DTypePolicy | None = "float32",
    seed: int | None = 0,
    scaling_factor: float = 1.0,
    shift_factor: float = 0.0,
    name: str | None = None,
    features: ArrayLike | None = None,
    features_name: str | None = None,
    keep_images: bool = False,
    command: str | None = None,
    progress: bool | None = None,
) -> Any:
    """Encode every image of a source into sharded files with a manifest.

    A shard is written under a temporary name and renamed when it is whole, the
    manifest last. Called again with the same arguments it keeps whole shards
    and makes the others.

    Args:
        source: a source of `datasets.sources`.
        autoencoder: `keras.Model` whose `encode(x)` gives the mean and log
            variance, (B, h, w, c), of what a model is to be trained on. That
            of `kf.networks.AutoencoderKL` is scaled already.
        out: folder to write.
        image_size: pixels a side after `center_crop`, or None.
        batch_size: images encoded at a time.
        shards: number of files.
        flip: whether the mirrored images' latents are kept as well.
        rgb: whether grey images get three equal channels.
        dtype: "float32" or "float16", of the files.
        seed: of the order in which records are spread over the shards.
        scaling_factor: with `shift_factor`, for an `encode` that gives raw
            latents z: training gets (z - shift_factor) * scaling_factor.
        shift_factor: see `scaling_factor`.
        name: what the manifest calls the autoencoder.
        features: None, or a frozen `keras.Model` of images in [-1, 1] to
            tokens (B, T, D), such as `kf.networks.dino_encoder(...)`, whose
            output is kept beside each latent: what REPA aligns with.
        features_name: what the manifest calls it.
        keep_images: whether the cropped images are kept as PNG, for an
            encoder that runs at every step.
        command: the command line, for the manifest.
        progress: None or a function of (records done, records in all).

    Returns:
        The manifest, a dict.

    Raises:
        ValueError: if `out` holds latents made in another way.
    """
    given.choice("dtype", dtype, ("float32", "float16"))
    given.having(
        "source", source, ("__len__", "__getitem__", "name", "classes"),
        "a source of `datasets.sources`",
    )  # fmt: skip
    if not 1 <= shards <= len(source):
        raise ValueError(
            f"`shards` must lie between 1 and the {len(source)} records. "
            f"Received: {shards!r}."
        )
    if batch_size < 1:
        raise ValueError(
            f"`batch_size` must be at least 1. Received: {batch_size!r}."
        )
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "format": FORMAT,
        "source": source.name,
        "num_records": len(source),
        "classes": source.classes,
        "autoencoder": describe_autoencoder(
            autoencoder, name, scaling_factor, shift_factor
        ),
        "image_size": image_size,
        "resize": None if image_size is None else "center_crop",
        "rgb": rgb,
        "flips": flip,
        "dtype": dtype,
        "seed": seed,
        "num_shards": shards,
        "features": None
        if features is None
        else {
            "name": features_name or features.name,
            "weights_sha256": _weights_sha256(features),
        },
        # None and not False: as in folders made before there were any.
        "images": keep_images or None,
    }
    manifest = _earlier(out, MANIFEST, settings)
    if manifest is not None:
        check_shards(out, manifest)
        return manifest
    done = _earlier(out, PROGRESS, settings) or {**settings, "shards": []}
    reading = _Reading(
        source,
        ImageTransform(image_size, rgb=rgb),
        batch_size,
        _posteriors(autoencoder, batch_size),
        None if features is None else _tokens(features, batch_size),
        keep_images,
        flip,
    )
    order = np.random.default_rng(seed).permutation(len(source))
    finished = 0
    for number, part in enumerate(np.array_split(order, shards)):
        file = f"latents-{number:05d}-of-{shards:05d}.array_record"
        if number == len(done["shards"]):
            report = None
            if progress is not None:
                report = _Counter(progress, finished, len(source))
            shard = write_shard(out / file, reading.rows(part), dtype, report)
            for key in SHARED:
                _check_same(done, key, shard.pop(key))
            done["shards"].append({"file": file, **shard})
            _write_json(out / PROGRESS, done)
        else:
            check_shard(out, done["shards"][number])
        finished += len(part)
    manifest = {
        **done,
        "library": f"keras_flows {metadata.version('keras_flows')}",
        "command": command,
    }
    _write_json(out / MANIFEST, manifest)
    (out / PROGRESS).unlink()
    return manifest


class _Counter:
    """Tells a progress function how many records are done."""

    def __init__(self, progress, done, total):
        self.progress, self.done, self.total = progress, done, total

    def __call__(self):
        self.done += 1
        self.progress(self.done, self.total)


def _earlier(out, file, settings):
    """What an earlier run left in `file`, if it was the same run."""
    if not (out / file).exists():
        return None
    found = json.loads((out / file).read_text())
    differ = [key for key in settings if found.get(key) != settings[key]]
    if differ:
        raise ValueError(
            f"`out` {str(out)!r} holds latents made in another way: "
            + "; ".join(
                f"{key} was {found.get(key)!r} and is {settings[key]!r}"
                for key in differ
            )
            + ". Name another folder, or remove this one."
        )
    return found


def _check_same(done, key, value):
    if done.setdefault(key, value) != value:
        raise ValueError(
            f"`source` changes its {key} from {done[key]} to {value}. Pass "
            "`image_size`, and label all images or none."
        )


@dataclasses.dataclass
class _Reading:
    """How records become rows."""

    source: object
    transform: ImageTransform
    batch_size: int
    posteriors: _Encoder
    features: _Encoder | None
    keep_images: bool
    flip: bool

    def rows(self, indices):
        """Yields a `Row` for each index."""
        for start in range(0, len(indices), self.batch_size):
            records = [
                self.source[int(i)]
                for i in indices[start : start + self.batch_size]
            ]
            images = stack([self.transform.image(r["image"]) for r in records])
            views = [images, images[:, :, ::-1]] if self.flip else [images]
            posteriors = [p for view in views for p in self.posteriors(view)]
            features = []
            if self.features is not None:
                features = [p for view in views for p in self.features(view)]
            for i, record in enumerate(records):
                yield Row(
                    record.get("label", -1),
                    [part[i] for part in posteriors],
                    [part[i] for part in features],
                    png_of(images[i]) if self.keep_images else b"",
                    list(images[i].shape) if self.keep_images else None,
                )
