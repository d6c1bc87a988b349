"""What `train`, `eval` and `distil` read, by what lies at a path."""

import dataclasses
import pathlib

import numpy as np

import keras_flows as kf
from keras_flows.datasets import robots
from keras_flows.datasets.robots.episodes import natural
from keras_flows.ops import given

ARRAYS = ("x", "data", "images", "points", "windows", "samples")
LABELS = ("labels", "label", "y", "condition", "classes")
BUILTIN = ("checkerboard", "digits")
# Images whose colours are looked at before the others are read.
LOOKED_AT = 64
# Of an observation's name in a file of an episode.
PREFIX = "observation."


@dataclasses.dataclass
class Data:
    """What there is to learn from.

    Attributes:
        kind: "points", "windows", "images" or "episodes".
        x: array (n, ...), float32; None for a folder of images, endless data
            and episodes.
        labels: int32 (n,), or None.
        num_classes: how many labels there are, or None.
        source: an object with `sample(num, seed)`, a `FolderSource`, or the
            list of episodes, where `x` is None.
        image_size: of a folder, pixels a side.
        grey: of a folder, whether images have one channel.
        scale: None, or {"mean", "std"} that `x` was brought from.
    """

    kind: str
    x: np.ndarray | None = None
    labels: np.ndarray | None = None
    num_classes: int | None = None
    source: object = None
    image_size: int | None = None
    grey: bool = False
    scale: dict | None = None

    @property
    def shape(self):
        """Shape of one example."""
        if self.x is not None:
            return self.x.shape[1:]
        if self.kind == "points":
            return (2,)
        return self.image_size, self.image_size, 1 if self.grey else 3

    def sample(self, num, seed):
        """Rows at random, with replacement: (num, ...)."""
        if self.x is None:
            return self.source.sample(num, seed)
        arrays = [self.x] if self.labels is None else [self.x, self.labels]
        return kf.datasets.Rows(*arrays).sample(num, seed)

    def batches(self, batch_size, seed):
        """Batches without end, for `fit`."""
        if self.kind == "images" and self.x is None:
            return kf.datasets.Batches(
                self.source,
                batch_size,
                self._transform(),
                repeat=True,
                seed=seed,
                workers=2,
            )
        return kf.datasets.Endless(self, batch_size, seed)

    def examples(self, num, seed):
        """At most `num` examples (n, ...), to measure with."""
        if self.kind == "images" and self.x is None:
            rng = np.random.default_rng(seed)
            rows = rng.permutation(len(self.source))[:num]
            transform = self._transform()
            return np.stack([transform(self.source[i], rng)[0] for i in rows])
        if self.x is None:
            return self.source.sample(num, seed)
        rng = np.random.default_rng(seed)
        return self.x[rng.permutation(len(self.x))[:num]]

    def _transform(self):
        transform = kf.datasets.images.ImageTransform(
            self.image_size, rgb=not self.grey
        )
        if self.num_classes is not None:
            return transform
        return lambda record, rng: transform(record, rng)[:1]


def read(path, image_size=None, standardize=False):
    """The `Data` at a path, or of a built-in name.

    Raises:
        ValueError: if there is nothing to learn from, saying what was found.
    """
    place = pathlib.Path(path)
    if place.is_dir():
        if any(place.glob("*.npz")):
            found = Data("episodes", source=_episodes(place))
        else:
            found = _folder(place, image_size or 32)
        if standardize:
            raise ValueError(
                "--standardize is of arrays: policies have normalisers of "
                "their own, and images are in [-1, 1]."
            )
        return found
    if place.is_file():
        return _file(place, standardize)
    if path == "checkerboard":
        return Data("points", source=kf.datasets.Checkerboard())
    if path == "digits":
        x, labels = kf.datasets.digits("train")
        return Data("images", x, labels, 10)
    raise ValueError(
        f"{path}: there is no such file or folder, nor is it one of "
        f"{', '.join(BUILTIN)}."
    )


def rescale(data, scale):
    """Bring a `Data`'s array to the units of a model; None for its own.

    Raises:
        ValueError: if it has no array, or is far from scale 1 then.
    """
    if scale is not None:
        if data.x is None:
            raise ValueError("The model was standardized: give it a file.")
        mean, std = np.asarray(scale["mean"]), np.asarray(scale["std"])
        data.x = ((data.x - mean) / std).astype("float32")
    check_scale(data)


def check_scale(data):
    """Refuse arrays that a network would not learn well.

    Raises:
        ValueError: if their deviation is far from 1.
    """
    if data.x is not None and not 0.1 < float(data.x.std()) < 4.0:
        raise ValueError(
            f"The data has the standard deviation {data.x.std():.3g}, and "
            "models learn data of about 1: add --standardize."
        )


def _folder(place, image_size):
    source = kf.datasets.FolderSource(place)
    step = max(len(source) // LOOKED_AT, 1)
    looked_at = range(0, len(source), step)
    grey = all(source[i]["image"].shape[-1] == 1 for i in looked_at)
    classes = len(source.classes or ())
    return Data(
        "images",
        source=source,
        # One class tells nothing apart.
        num_classes=classes if classes > 1 else None,
        image_size=image_size,
        grey=grey,
    )


def _episodes(place):
    """Episodes as `robots.check_episodes` has them, in the files' order.

    A file holds `action` and `observation`, or several observations by name:
    `observation.NAME`, or all arrays of at least two dimensions.
    """
    episodes = []
    for file in sorted(place.glob("*.npz"), key=lambda p: natural(p.name)):
        arrays = _load(file)
        if "action" not in arrays:
            raise ValueError(
                f"{file} has no array `action`. It has {sorted(arrays)}."
            )
        if "observation" not in arrays:
            arrays["observation"] = {
                name.removeprefix(PREFIX): arrays.pop(name)
                for name in _observed(arrays)
            }
        episodes.append(arrays)
    return robots.check_episodes(episodes)


def _observed(arrays):
    """Names of an episode's observations."""
    others = [name for name in arrays if name != "action"]
    named = [name for name in others if name.startswith(PREFIX)]
    return named or [name for name in others if arrays[name].ndim > 1]


def _load(file):
    """{name: array} of a .npz, {"x": array} of a .npy."""
    try:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return {"x": found}
        with found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file} is no .npy or .npz file: {error}.") from error


def _named(arrays, names, file):
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise ValueError(f"{file} has {' and '.join(found)}: keep one of them.")
    return found[0] if found else None


def _file(file, standardize):
    arrays = _load(file)
    label = _named(arrays, LABELS, file)
    labels = None if label is None else arrays.pop(label)
    name = _named(arrays, ARRAYS, file)
    if name is None and len(arrays) == 1:
        (name,) = arrays
    if name is None:
        raise ValueError(
            f"{file} must have one array, or one named {', '.join(ARRAYS)}. "
            f"It has {sorted(arrays)}."
        )
    x = given.plain_array(name, arrays[name])
    kinds = {2: "points", 3: "windows", 4: "images"}
    if x.ndim not in kinds or not len(x):
        raise ValueError(
            f"{file}: `{name}` must be points (n, d), windows (n, length, "
            f"channels) or images (n, height, width, channels). Its shape is "
            f"{x.shape}."
        )
    if x.dtype == np.uint8 and x.ndim == 4:
        x = x / 127.5 - 1.0
    x = x.astype("float32")
    found = Data(kinds[x.ndim], x)
    if labels is not None:
        _label(found, labels, label, file)
    if standardize:
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes, dtype="float64")
        std = np.maximum(x.std(axes, dtype="float64"), 1e-6)
        found.scale = {"mean": mean.tolist(), "std": std.tolist()}
        found.x = ((x - mean) / std).astype("float32")
    return found


def _label(data, labels, name, file):
    if labels.shape != data.x.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{file}: `{name}` must be whole numbers, one for each of the "
            f"{len(data.x)} rows. It is {labels.dtype} of shape "
            f"{labels.shape}."
        )
    if labels.min() < 0:
        raise ValueError(f"{file}: `{name}` must not be below 0.")
    data.labels = labels.astype("int32")
    data.num_classes = int(labels.max()) + 1
