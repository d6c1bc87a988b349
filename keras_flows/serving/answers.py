"""Samples as the bytes of an answer."""

import base64
import io
import json

import numpy as np

from keras_flows.serving.checks import wrong


class NotFinite(Exception):
    """Samples that hold NaN or infinity.

    Attributes:
        rows: their numbers within the request.
    """

    def __init__(self, rows, count):
        super().__init__(
            f"{len(rows)} of {count} samples hold NaN or infinity, which JSON "
            "and PNG cannot. Other steps, guidance or conditions may be what "
            "the model needs."
        )
        self.rows = rows


def encoded(samples, encoding, value_range, told):
    """The JSON of an answer, as bytes.

    Args:
        samples: array (B, ...).
        encoding: "json" or "png".
        value_range: what black and white are, of images.
        told: dict of what stands beside the samples.

    Raises:
        NotFinite: if the samples are not.
    """
    flat = np.asarray(samples).reshape(len(samples), -1)
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        raise NotFinite(np.flatnonzero(~finite).tolist(), len(samples))
    values = samples.tolist() if encoding == "json" else None
    if values is None:
        values = as_png(samples, value_range)
    content = {"samples": values, "shape": samples.shape} | told
    return json.dumps(content, allow_nan=False).encode()


def check_encoding(encoding, shape):
    """Refuse PNG of what is no image; `shape` is that of one sample."""
    if encoding == "png" and (len(shape) != 3 or shape[-1] not in (1, 3)):
        raise wrong("encoding", "Only images of 1 or 3 channels have PNG.")


def as_png(samples, value_range):
    """Images (B, H, W, 1 or 3) as base64 PNG files."""
    from PIL import Image

    low, high = value_range
    pixels = np.clip((samples - low) / (high - low), 0.0, 1.0) * 255.0
    files = []
    for image in np.rint(pixels).astype("uint8"):
        file = io.BytesIO()
        image = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(image).save(file, "PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    return files
