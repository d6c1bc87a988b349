"""Pictures of a LeRobotDataset: colours as bytes, depth in millimetres.

A depth map is marked by `is_depth_map`. As images it is stored as it was
measured, 16 bits of millimetres or floats of metres. As video it is 12 bits of

    q = 4095 (f(d) - f(depth_min)) / (f(depth_max) - f(depth_min)),
    f(d) = log(d + shift), or d itself without `use_log`,

d in metres, with the four numbers in meta/info.json.

Source: https://github.com/huggingface/lerobot, video_encoding_parameters.mdx.
"""

import io

import numpy as np

from keras_flows.datasets.sources import needed

_LARGEST = 4095
_QUANTISER = ("depth_min", "depth_max", "shift", "use_log")
# 16 bits, 32 bits and floats of one channel.
_DEPTH_MODES = ("I;16", "I;16L", "I;16B", "I", "F")


def is_depth(feature):
    """Whether a feature is a depth map, by the new marks or the old."""
    marks = [feature.get("info") or {}, feature.get("video_info") or {}]
    marks.append(marks[0].get("video_info") or {})
    return any(
        mark.get(key)
        for mark in marks
        for key in ("is_depth_map", "video.is_depth_map")
    )


def decoder(videos):
    """PyAV.

    Raises:
        ImportError: if it is not installed; the message names `videos`.
    """
    try:
        return needed("av", "PyAV, a video decoder", "robots")
    except ImportError as error:
        raise ImportError(
            f"{videos} are videos, and PyAV, which decodes them, is not "
            "installed: pip install av. Or leave them out: "
            f"`keys` takes the names of other observations ({error})."
        ) from error


def image(cell, key, feature, root):
    """(H, W, C) of an image's bytes, or of its file.

    Colours are uint8 with the feature's number of channels, 3 or 1; depth is
    float32 in millimetres, of one channel.
    """
    pillow = needed("PIL.Image", "Pillow", "robots")
    data = cell.get("bytes")
    if data is None:
        file = root / (cell.get("path") or "")
        if not file.is_file():
            raise ValueError(f"{key!r}: image file {str(file)!r} is missing.")
        data = file.read_bytes()
    picture = pillow.open(io.BytesIO(data))
    if picture.mode in _DEPTH_MODES:
        depth = np.asarray(picture, "float32")[..., None]
        # Integers are millimetres and floats metres.
        pixels = depth * 1000.0 if picture.mode == "F" else depth
    elif is_depth(feature):
        raise ValueError(
            f"{key!r} is marked as a depth map, but its images have 8 bits "
            f"({picture.mode}): distances are lost. Leave it out of `keys`."
        )
    elif _channels(feature) == 1:
        pixels = np.asarray(picture.convert("L"))[..., None]
    else:
        pixels = np.asarray(picture.convert("RGB"))
    check_shape(pixels.shape, key, feature)
    return pixels


def video(file, place, key, feature, start, length, fps):
    """(T, H, W, C) of an episode's part of a video: see `image`.

    Args:
        file: the video.
        place: what messages call it.
        key, feature: name of the feature and what meta/info.json says of it.
        start: seconds in the file at which the episode starts.
        length: number of frames.
        fps: frames a second.
    """
    av = decoder([key])
    frames = [None] * length
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        read = _reader(stream, key, feature)
        if start:
            container.seek(
                int(max(start - 0.5 / fps, 0.0) / stream.time_base),
                stream=stream,
            )
        for frame in container.decode(stream):
            index = round((frame.time - start) * fps)
            if 0 <= index < length:
                frames[index] = read(frame)
            if index >= length - 1:
                break
    missing = [i for i, frame in enumerate(frames) if frame is None]
    if missing:
        raise ValueError(
            f"{key!r}: {place} has no frame for steps {missing[:5]} "
            f"({len(missing)} of {length} are missing)."
        )
    check_shape(frames[0].shape, key, feature)
    return np.stack(frames)


def _reader(stream, key, feature):
    """The function from a frame to its pixels."""
    pixel_format = stream.format
    bits = max(c.bits for c in pixel_format.components)
    single = len(pixel_format.components) == 1
    if not is_depth(feature):
        if single and bits > 8:
            raise ValueError(
                f"{key!r} is a video of one channel of {bits} bits "
                f"({pixel_format.name}), as depth maps are, but meta/info.json "
                "does not mark it by `is_depth_map`, nor say what its numbers "
                "mean. Leave it out of `keys`."
            )
        if _channels(feature) == 1:
            return lambda frame: frame.to_ndarray(format="gray")[..., None]
        return lambda frame: frame.to_ndarray(format="rgb24")
    info = feature.get("info") or {}
    numbers = [info.get(f"video.{name}") for name in _QUANTISER]
    if not single or bits != 12 or None in numbers:
        raise ValueError(
            f"{key!r} is marked as a depth map, but its distances cannot be "
            f"told: LeRobot's depth videos are gray12le, with "
            f"{', '.join(f'video.{name}' for name in _QUANTISER)} in "
            f"meta/info.json. Received: {pixel_format.name}, {numbers}. Leave "
            "it out of `keys`."
        )
    return lambda frame: _millimetres(_plane(frame), *numbers)


def _plane(frame):
    """The 16-bit numbers of a frame of one channel, (H, W)."""
    plane = frame.planes[0]
    rows = np.frombuffer(plane, "<u2").reshape(frame.height, -1)
    return rows[:, : frame.width]


def _millimetres(codes, low, high, shift, use_log):
    """Distances, (H, W, 1) float32, of 12-bit numbers."""
    share = codes.astype("float64")[..., None] / _LARGEST
    if use_log:
        first, last = np.log(low + shift), np.log(high + shift)
        metres = np.exp(first + share * (last - first)) - shift
    else:
        metres = low + share * (high - low)
    return np.rint(1000.0 * np.clip(metres, low, high)).astype("float32")


def _channels(feature):
    """Channels that meta/info.json says, or None."""
    shape = tuple(feature.get("shape") or ())
    if len(shape) == 2:
        return 1
    if len(shape) != 3:
        return None
    # Channels come first in some sets.
    return shape[2] if shape[2] in (1, 3) else shape[0]


def check_shape(decoded, key, feature):
    """Refuse pictures of another shape than meta/info.json says."""
    shape = tuple(feature.get("shape") or ())
    height, width, channels = decoded
    fits = [(height, width, channels), (channels, height, width)]
    if channels == 1:
        fits.append((height, width))
    if shape not in fits:
        raise ValueError(
            f"{key!r} has pictures of shape {tuple(decoded)}, and "
            f"meta/info.json says {shape}. Repair its `shape`, or leave it "
            "out of `keys`."
        )
