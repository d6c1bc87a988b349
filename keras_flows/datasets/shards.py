"""Shards of prepared latents: records to write, one for each image."""

import dataclasses
import io

import numpy as np

from keras_flows.datasets.manifest import sha256_of
from keras_flows.datasets.sources import needed
from keras_flows.ops.files import move

# What every shard must have alike.
SHARED = ("latent_shape", "labelled", "features_shape", "image_shape")


@dataclasses.dataclass
class Row:
    """One image: its label, posteriors, features and PNG."""

    label: int
    posteriors: list
    features: list
    png: bytes
    image_shape: list


def png_of(image):
    """The PNG of an image in [-1, 1] that was uint8."""
    pillow = needed("PIL.Image", "Pillow")
    pixels = np.round((image + 1.0) * 127.5).astype("uint8")
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    file = io.BytesIO()
    pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def write_shard(path, rows, dtype, report):
    """Write a shard and return its entry of the manifest."""
    records = needed("array_record.python.array_record_module", "array_record")
    # One name, so that the next try writes over what a broken one left.
    temporary = path.with_name(f"{path.name}.partial")
    writer = records.ArrayRecordWriter(
        str(temporary), "group_size:1,uncompressed"
    )
    count, labelled, shape, tokens, image = 0, set(), None, None, None
    total, squares = 0.0, 0.0
    try:
        for row in rows:
            record = np.array(row.label, "<i4").tobytes()
            record += _stored(row.posteriors, dtype, "autoencoder's latents")
            shape, image = list(row.posteriors[0].shape), row.image_shape
            if row.features:
                record += _stored(row.features, dtype, "encoder's features")
                tokens = list(row.features[0].shape)
            labelled.add(row.label >= 0)
            writer.write(record + row.png)
            mean, std = (np.float64(part) for part in row.posteriors[:2])
            total += mean.mean()
            squares += (mean**2 + std**2).mean()
            count += 1
            if report is not None:
                report()
    finally:
        writer.close()
    if len(labelled) > 1:
        raise ValueError("`source` has labels for some images only.")
    move(temporary, path)
    average = total / count
    return {
        "records": count,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        # Of what `encode` gave, its noise included.
        "mean": average,
        "std": float(np.sqrt(squares / count - average**2)),
        "latent_shape": shape,
        "labelled": labelled.pop(),
        "features_shape": tokens,
        "image_shape": image,
    }


def _stored(parts, dtype, what):
    """The bytes of arrays of one shape, checked to be finite."""
    values = np.stack(parts).astype(f"<{np.dtype(dtype).str[1:]}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"The {what} are not finite in {dtype}. Check its weights, or use "
            "dtype='float32'."
        )
    return values.tobytes()
