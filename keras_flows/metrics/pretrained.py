"""Files of trained weights: found, checked by sha256, read without pickle."""

import hashlib
import pathlib
import urllib.parse

import keras

from keras_flows.presets import stored
from keras_flows.presets.weight_files import read_weights
from keras_flows.presets.weight_files import told

SUFFIXES = (".npz", ".safetensors", ".pth", ".pt")


def find_weights(weights, sha256=None, cache_dir=None):
    """The file that `weights` names and its sha256.

    Args:
        weights: a path, or an https URL, which is downloaded once.
        sha256: the file's hash; an URL needs it.
        cache_dir: folder of downloads; Keras's own by default.

    Returns:
        (pathlib.Path, sha256 as 64 hexadecimal digits).

    Raises:
        ValueError: if there is no such file, or its hash is another.
    """
    text = str(weights)
    if "://" in text:
        url = urllib.parse.urlparse(text)
        if url.scheme != "https":
            raise ValueError(
                f"`weights` must be a path or an https URL. Received: {text!r}."
            )
        if sha256 is None:
            raise ValueError(
                f"`weights` is the URL {text!r}: give its `sha256` too, so "
                "that a metric's network is the one it is taken for."
            )
        path = pathlib.Path(
            keras.utils.get_file(
                fname=pathlib.PurePosixPath(url.path).name,
                origin=text,
                file_hash=sha256,
                hash_algorithm="sha256",
                cache_dir=cache_dir,
                cache_subdir="models/keras_flows",
            )
        )
    else:
        path = pathlib.Path(weights)
    if not path.is_file():
        raise ValueError(
            f"`weights`: there is no file {text!r}. Give the path of a file "
            f"({', '.join(SUFFIXES)}) or an https URL."
        )
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and digest != sha256.lower():
        raise ValueError(
            f"`sha256` of {str(path)!r} must be {sha256}. Received: {digest}; "
            "the file is another one or not whole."
        )
    return path, digest


def read_state(path):
    """{name: NumPy array} of a .npz, .safetensors or PyTorch file.

    No code of the file is run, and no more is read than it may declare: see
    `presets.read_checkpoint`.

    Raises:
        ValueError: if the file is of another kind, damaged, or declares more
            than its size allows.
    """
    path = pathlib.Path(path)
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"`weights` must end in one of {SUFFIXES}. Received: {path.name!r}."
        )
    with told(path, "weights"):
        state = stored.flat(read_weights(path))
        limit = stored.limit_of(None, path.stat().st_size)
        return stored.read_all(state, limit)
