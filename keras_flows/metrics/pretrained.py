"""Files of trained weights: found, checked by sha256, read without pickle."""

import hashlib
import importlib
import importlib.util
import pathlib
import urllib.parse

import keras
import numpy as np

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

    Raises:
        ValueError: if the file is of another kind.
        ImportError: if the package that reads it is not installed.
    """
    path = pathlib.Path(path)
    if path.suffix == ".npz":
        with np.load(path) as file:
            return dict(file)
    if path.suffix == ".safetensors":
        try:
            from safetensors.numpy import load_file
        except ImportError as error:
            raise ImportError(
                "Reading .safetensors needs: pip install keras_flows[hub]"
            ) from error
        return load_file(path)
    if path.suffix in (".pth", ".pt"):
        if importlib.util.find_spec("torch") is None:
            raise ImportError(
                f"Reading {path.name!r} needs PyTorch (any backend may run): "
                "pip install torch. Or save its state where PyTorch is, by "
                "np.savez(path, **{k: v.numpy() for k, v in state.items()}), "
                "and give that .npz."
            )
        # A reader of files here, not the backend.
        torch = importlib.import_module("torch")
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value.numpy() for name, value in state.items()}
    raise ValueError(
        f"`weights` must end in one of {SUFFIXES}. Received: {path.name!r}."
    )
