"""Prepared latents as batches: an autoencoder's posteriors, kept in files.

`Latents` gives samples of the posteriors to `fit`, as if the autoencoder ran
at every step; `prepare_latents` (tools/prepare_latents.py is its command line)
wrote them.
"""

from __future__ import annotations

import io
import pathlib
import typing

import numpy as np

from keras_flows.datasets.batches import Batches
from keras_flows.datasets.batches import stack
from keras_flows.datasets.images import ImageTransform
from keras_flows.datasets.manifest import check_shards
from keras_flows.datasets.manifest import read_manifest
from keras_flows.datasets.sources import needed
from keras_flows.ops import given
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import SEED
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.ops.types import PathLike
    from keras_flows.ops.types import Tree


class LatentSource:
    """Records of prepared latents, by random access.

    Args:
        path: folder that `prepare_latents` wrote.
        checksums: whether to check every shard's sha256 (about a second a
            gigabyte) or only sizes and counts.
    """

    def __init__(self, path, checksums=True):
        path = pathlib.Path(path)
        self.manifest = manifest = read_manifest(path)
        check_shards(path, manifest, checksums)
        reader = needed(
            "array_record.python.array_record_data_source", "array_record"
        )
        self._records = reader.ArrayRecordDataSource(
            [str(path / entry["file"]) for entry in manifest["shards"]]
        )
        if len(self._records) != manifest["num_records"]:
            raise ValueError(
                f"The shards of {str(path)!r} hold {len(self._records)} "
                f"records and should hold {manifest['num_records']}. Prepare "
                "them again."
            )
        self.name = f"latents:{path.name}"
        self.classes = manifest["classes"]
        self._views = 2 if manifest["flips"] else 1
        self._dtype = np.dtype(manifest["dtype"]).newbyteorder("<")

    def __len__(self):
        return len(self._records)

    def __getitem__(self, index):
        data, offset = self._records[index], 4
        parts = {
            "latents": (2 * self._views, *self.manifest["latent_shape"]),
        }
        if self.manifest.get("features"):
            shape = self.manifest["features_shape"]
            parts["features"] = (self._views, *shape)
        record = {}
        for name, shape in parts.items():
            count = int(np.prod(shape))
            record[name] = np.frombuffer(
                data, self._dtype, count, offset
            ).reshape(shape)
            offset += count * self._dtype.itemsize
        if self.manifest.get("images"):
            record["png"] = data[offset:]
        if self.manifest["labelled"]:
            record["label"] = int(np.frombuffer(data, "<i4", count=1)[0])
        return record


class _Sample:
    """z = (mean + std eps - shift) * scale of a record, eps ~ N(0, 1)."""

    def __init__(self, autoencoder, flip, extras):
        self.shift = np.float32(autoencoder["shift_factor"])
        self.scale = np.float32(autoencoder["scaling_factor"])
        self.flip = flip
        self.extras = extras

    def __call__(self, record, rng):
        mirrored = int(self.flip and rng.random() < 0.5)
        mean, std = record["latents"][2 * mirrored :][:2].astype(np.float32)
        noise = rng.standard_normal(mean.shape, dtype=np.float32)
        z = (mean + std * noise - self.shift) * self.scale
        if "label" not in record:
            return (z,)
        batch = z, np.int32(record["label"])
        if self.extras == "features":
            features = record["features"][mirrored].astype(np.float32)
            return *batch, {"features": features}
        if self.extras == "image":
            image = _decoded(record["png"])
            return *batch, {"image": image[:, ::-1] if mirrored else image}
        return batch

    def batch(self, examples):
        """The same of many: the arithmetic is that of the whole batch."""
        if self.extras is not None:
            rows = [self(record, rng()) for record, rng in examples]
            return tuple(stack(column) for column in zip(*rows, strict=True))
        posteriors = [record["latents"] for record, _ in examples]
        count, shape = len(examples), posteriors[0].shape[1:]
        mean, std = np.empty((2, count, *shape), np.float32)
        noise = np.empty((count, *shape), np.float32)
        for i, (_, make) in enumerate(examples):
            rng = make()
            mirrored = int(self.flip and rng.random() < 0.5)
            mean[i], std[i] = posteriors[i][2 * mirrored :][:2]
            rng.standard_normal(dtype=np.float32, out=noise[i])
        std *= noise
        mean += std
        mean -= self.shift
        mean *= self.scale
        if "label" not in examples[0][0]:
            return (mean,)
        labels = [record["label"] for record, _ in examples]
        return mean, np.array(labels, "int32")


def _decoded(png):
    """The image of a PNG, (H, W, C) float32 in [-1, 1]."""
    pillow = needed("PIL.Image", "Pillow")
    pixels = np.asarray(pillow.open(io.BytesIO(png)))
    return ImageTransform().image(
        pixels[..., None] if pixels.ndim == 2 else pixels
    )


class Latents(Batches):
    """Batches of latents, sampled anew each epoch: (z, labels) or (z,).

    With `extras` (z, labels, {"features": (B, T, D)}) or (z, labels,
    {"image": (B, H, W, C)}), of the image that z is of, mirrored as z is:
    what `REPAInterface` aligns with.

    z = (mean + std eps - shift_factor) * scaling_factor with the manifest's
    factors, which are 0 and 1 where the autoencoder scales by itself.

    Args:
        path: folder that tools/prepare_latents.py wrote.
        batch_size: rows of a batch.
        seed: int, of order, flips and eps.
        flip: whether half of the examples are those of mirrored images.
        extras: None, "features" or "image", which the folder must hold.
        checksums: whether to check every shard's sha256 (about a second a
            gigabyte) or only sizes and counts.
        **batching: `shuffle`, `repeat`, `workers`, ... of `Batches`.

    Attributes:
        manifest: what manifest.json says.

    Raises:
        ValueError: if the manifest is missing, a shard is not whole, or
            flips or extras are asked for that were not kept.
    """

    @checked(
        path=given.path_of,
        flip=FLAG,
        checksums=FLAG,
        batch_size=SIZE,
        seed=SEED,
    )
    def __init__(
        self,
        path: PathLike,
        batch_size: int,
        seed: int | None = 0,
        flip: bool = True,
        extras: Tree | None = None,
        checksums: bool = True,
        **batching: Any,
    ) -> None:
        source = LatentSource(path, checksums)
        self.manifest = source.manifest
        if flip and not self.manifest["flips"]:
            raise ValueError(
                f"`flip` needs the latents of mirrored images, which "
                f"{str(path)!r} has not. Pass flip=False, or prepare them "
                "with --flip."
            )
        self._check_extras(extras, path)
        super().__init__(
            source,
            batch_size,
            _Sample(self.manifest["autoencoder"], flip, extras),
            seed=seed,
            **batching,
        )

    def _check_extras(self, extras, path):
        kept = {"features": "features", "image": "images"}
        if extras is None:
            return
        if extras not in kept:
            raise ValueError(
                "`extras` must be None, 'features' or 'image'. Received: "
                f"{extras!r}."
            )
        if not self.manifest.get(kept[extras]):
            flag = {"features": "features", "image": "keep_images"}[extras]
            raise ValueError(
                f"`extras={extras!r}` needs what {str(path)!r} does not hold. "
                f"Prepare the latents with --{flag}."
            )
        if not self.manifest["labelled"]:
            raise ValueError(
                f"`extras={extras!r}` comes third in a batch, after labels, "
                f"and {str(path)!r} has none."
            )

    def check(self, model: keras.Model) -> None:
        """Compare the manifest with a model; `fit` calls it.

        A model without a mark, `model.latents_of`, is marked.

        Raises:
            ValueError: if the model takes another shape, or is marked with
                another autoencoder.
        """
        shape = tuple(self.manifest["latent_shape"])
        expected = model.data_shape
        if expected is not None and not (
            len(shape) == len(expected)
            and all(
                b in (None, a) for a, b in zip(shape, expected, strict=True)
            )
        ):
            raise ValueError(
                f"`x` holds latents of shape {shape} and the network takes "
                f"{tuple(expected)}. Build the network for {shape}, or "
                "prepare latents of other images."
            )
        given = self.manifest["autoencoder"]
        if model.latents_of is None:
            model.latents_of = given
        differ = [
            f"{key} is {given[key]} in the manifest and "
            f"{model.latents_of.get(key)} in the model's"
            for key in given
            if key != "name" and given[key] != model.latents_of.get(key)
        ]
        if differ:
            raise ValueError(
                f"`x` holds latents of {given['name']!r}, but the model's "
                f"`latents_of` is {model.latents_of.get('name')!r}: "
                f"{'; '.join(differ)}. Prepare latents with the model's "
                "autoencoder, or set model.latents_of = None to train it on "
                "these."
            )
