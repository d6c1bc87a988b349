"""Sources of images: random access to records, whatever holds them.

A source has `len(source)`, `source[i]`, `name` and `classes` (a list of
names, an int where only their number is known, None without labels). A record
is a dict of "image", (H, W, C) uint8, and where there are labels "label", an
int. Sources may be read by several threads at once.
"""

from __future__ import annotations

import importlib
import io
import json
import pathlib
import threading
import typing
import zipfile

import numpy as np

from keras_flows.ops import given
from keras_flows.ops.files import write_text
from keras_flows.ops.scalars import checked

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import PathLike

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".npy")


def needed(module, package, extra="data"):
    """Import a module of an extra, `data` say, when it is used first."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"This needs {package}: pip install 'keras_flows[{extra}]' "
            f"({error})."
        ) from error


def decode(data, name):
    """(H, W, C) uint8 of an image file's bytes, C = 1 (grey) or 3.

    Palettes and print colours become RGB. `.npy` holds (C, H, W), as EDM
    writes it.

    Raises:
        ValueError: if the file cannot be read, or has transparency or more
            than 8 bits, which 3 channels of uint8 would lose.
    """
    if name.lower().endswith(".npy"):
        return _decode_npy(data, name)
    pillow = needed("PIL.Image", "Pillow")
    try:
        image = pillow.open(io.BytesIO(data))
        image.load()
    except (
        OSError,
        SyntaxError,
        ValueError,
        pillow.DecompressionBombError,
    ) as error:
        raise ValueError(
            f"Image file {name!r} cannot be read: {error}. Remove or replace "
            "it."
        ) from error
    if image.mode == "P" and "transparency" not in image.info:
        image = image.convert("RGB")
    if image.mode in ("CMYK", "YCbCr"):
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB"):
        raise ValueError(
            f"Image file {name!r} has mode {image.mode!r} (transparency, or "
            "other than 8 bits a channel). Convert it to 'L' or 'RGB'."
        )
    image = np.asarray(image)
    return image[..., None] if image.ndim == 2 else image


def _decode_npy(data, name):
    try:
        image = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"Image file {name!r} cannot be read: {error}. Remove or replace "
            "it."
        ) from error
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"{name!r} must hold an image (C, H, W) of 1 or 3 channels. "
            f"Received: {image.shape}. For latents of an autoencoder use "
            "tools/prepare_latents.py."
        )
    return np.ascontiguousarray(image.transpose(1, 2, 0))


class TfdsSource:
    """A split of a TensorFlow Datasets set, read without TensorFlow.

    Args:
        name: name of the set, with its config and version if need be.
        split: e.g. "train" or "train[:90%]".
        data_dir: folder of the prepared sets, tfds's own by default.
        image_key: the feature that is the image.
        label_key: the feature that is the label, or None.
    """

    @checked(
        name=given.text,
        split=given.text,
        data_dir=given.of(given.path_of, none=True),
    )
    def __init__(
        self,
        name: str,
        split: str,
        data_dir: PathLike | None = None,
        image_key: str = "image",
        label_key: str | None = "label",
    ) -> None:
        tfds = needed("tensorflow_datasets", "tensorflow-datasets")
        needed("array_record", "array_record")
        try:
            self.records = tfds.data_source(
                name,
                split=split,
                data_dir=None if data_dir is None else str(data_dir),
                builder_kwargs={"file_format": "array_record"},
            )
        except FileNotFoundError as error:
            raise ValueError(
                f"`name` {name!r} is no set of TensorFlow Datasets: "
                f"{str(error).splitlines()[0]}"
            ) from error
        except NotImplementedError as error:
            raise ValueError(
                f"`name` {name!r} was prepared in a format without random "
                f"access ({error}). Prepare it again with "
                f"`tfds build {name} --file_format=array_record`, or name "
                "another `data_dir`."
            ) from error
        features = self.records.dataset_info.features
        for argument, key in (
            ("image_key", image_key),
            ("label_key", label_key),
        ):
            if key is not None and key not in features:
                raise ValueError(
                    f"`{argument}` {key!r} is no feature of {name!r}, which "
                    f"has {sorted(features)}."
                )
        self.name = f"tfds:{name}:{split}"
        self.keys = image_key, label_key
        self.classes = None
        if label_key is not None:
            self.classes = features[label_key].num_classes

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        image_key, label_key = self.keys
        row = self.records[index]
        record = {"image": np.asarray(row[image_key])}
        if label_key is not None:
            record["label"] = int(row[label_key])
        return record


def _files(folder):
    """Image files below a folder, sorted, hidden ones left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


class FolderSource:
    """Image files, in a folder for each class or in one without labels.

    Labels are the positions of the folders' names in sorted order.

    Args:
        path: the folder.
        class_file: JSON file of the class list. It is written if it does not
            exist; if it does, labels follow it, so that a split without some
            class keeps the other labels.
    """

    @checked(path=given.path_of)
    def __init__(
        self, path: PathLike, class_file: PathLike | None = None
    ) -> None:
        self.path = pathlib.Path(path)
        self.name = f"folder:{self.path.name}"
        if not self.path.is_dir():
            raise ValueError(f"`path` {str(path)!r} is no folder.")
        folders = sorted(
            p
            for p in self.path.iterdir()
            if p.is_dir() and not p.name.startswith(".")
        )
        self.files = _files(self.path)
        if not self.files:
            raise ValueError(
                f"`path` {str(path)!r} holds no images "
                f"({', '.join(SUFFIXES)}), nor do its folders."
            )
        self.classes, self.labels = None, None
        if not folders:
            if class_file is not None:
                raise ValueError(
                    f"`class_file` is left over: `path` {str(path)!r} has "
                    "no folder for each class."
                )
            return
        self._label(folders, class_file)

    def _label(self, folders, class_file):
        names = [folder.name for folder in folders]
        owners = [p.relative_to(self.path).parts for p in self.files]
        loose = [p for p in owners if len(p) == 1]
        if loose:
            raise ValueError(
                f"`path` {str(self.path)!r} holds both images "
                f"({loose[0][0]!r}) and folders ({names[0]!r}): labels are "
                "ambiguous. Move the images into a folder for each class."
            )
        owners = [parts[0] for parts in owners]
        empty = sorted(set(names) - set(owners))
        if empty:
            raise ValueError(
                f"`path` {str(self.path)!r} has class folders without "
                f"images: {empty}. Fill or remove them."
            )
        self.classes = names
        if class_file is not None:
            self.classes = _kept_classes(names, pathlib.Path(class_file))
        numbers = {name: i for i, name in enumerate(self.classes)}
        self.labels = [numbers[owner] for owner in owners]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        path = self.files[index]
        record = {"image": decode(path.read_bytes(), str(path))}
        if self.labels is not None:
            record["label"] = self.labels[index]
        return record


def _kept_classes(names, file):
    if not file.exists():
        write_text(file, json.dumps(names, indent=1) + "\n")
        return names
    classes = json.loads(file.read_text())
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(
            f"Class folders {unknown} are not in `class_file` "
            f"{str(file)!r}. Remove the file to number the classes anew."
        )
    return classes


class EdmSource:
    """A zip or folder as EDM's `dataset_tool.py` writes it.

    Image files of one size, and `dataset.json` with {"labels": [[file name,
    label], ...]}; without the file, or with null labels, there are none.

    Args:
        path: zip file or folder.
    """

    @checked(path=given.path_of)
    def __init__(self, path: PathLike) -> None:
        self.path = pathlib.Path(path)
        self.name = f"edm:{self.path.name}"
        self._zip, self._lock = None, threading.Lock()
        if self.path.is_dir():
            names = {
                p.relative_to(self.path).as_posix()
                for p in self.path.rglob("*")
                if p.is_file()
            }
        elif self.path.is_file():
            try:
                self._zip = zipfile.ZipFile(self.path)
            except zipfile.BadZipFile as error:
                raise ValueError(
                    f"`path` {str(path)!r} is no zip file, or only part of "
                    f"one: {error}."
                ) from error
            names = set(self._zip.namelist())
        else:
            raise ValueError(f"`path` {str(path)!r} does not exist.")
        self.files = sorted(n for n in names if n.lower().endswith(SUFFIXES))
        if not self.files:
            raise ValueError(
                f"`path` {str(path)!r} holds no images ({', '.join(SUFFIXES)})."
            )
        self.labels = None
        if "dataset.json" in names:
            self.labels = self._labels()
        self.classes = None if self.labels is None else max(self.labels) + 1

    def _labels(self):
        labels = json.loads(self._read("dataset.json")).get("labels")
        if labels is None:
            return None
        labels = dict(labels)
        missing = [name for name in self.files if name not in labels]
        if missing:
            raise ValueError(
                f"dataset.json of {str(self.path)!r} has no label for "
                f"{len(missing)} of {len(self.files)} images, "
                f"{missing[0]!r} first. Add them, or set 'labels' to null."
            )
        labels = [labels[name] for name in self.files]
        for name, label in zip(self.files, labels, strict=True):
            if type(label) is not int or label < 0:
                raise ValueError(
                    f"dataset.json of {str(self.path)!r} must give each "
                    f"image an int of at least 0. Received: {label!r} for "
                    f"{name!r}."
                )
        return labels

    def _read(self, name):
        if self._zip is None:
            return (self.path / name).read_bytes()
        with self._lock:
            return self._zip.read(name)

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        name = self.files[index]
        try:
            data = self._read(name)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(
                f"Image file {name!r} of {str(self.path)!r} cannot be read: "
                f"{error}."
            ) from error
        record = {"image": decode(data, name)}
        if self.labels is not None:
            record["label"] = self.labels[index]
        return record
