"""Where a preset's handle leads: a folder on this machine.

huggingface_hub and kagglehub download, resume, lock and cache; they are
imported only for their handles.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import warnings

from keras_flows.ops.types import PathLike
from keras_flows.presets import download
from keras_flows.presets.files import CONFIG
from keras_flows.presets.files import FILES
from keras_flows.presets.registry import BUILTIN
from keras_flows.presets.registry import BUILTIN_FOLDER
from keras_flows.presets.registry import names
from keras_flows.presets.registry import near

_HF = re.compile(r"hf://([\w.-]+/[\w.-]+)((?:/[^/@]+)*)(?:@(.+))?")
_KAGGLE = re.compile(r"kaggle://([\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+)(?:/(\d+))?")


def preset_folder(handle: PathLike) -> pathlib.Path:
    """The folder of a preset, downloaded where it has to be.

    Args:
        handle: a built-in name (`names()`), a folder,
            "hf://org/repository[/folder][@revision]",
            "kaggle://owner/model/framework/variation[/version]" or
            "https://host/archive.tar.gz#sha256=<64 hex digits>".

    Raises:
        ValueError: if there is no such preset.
        ImportError: if huggingface_hub or kagglehub is needed and missing.
        ConnectionError: if it cannot be downloaded and is not in the cache.
        OSError: if the cache cannot be written.
    """
    if not isinstance(handle, (str, os.PathLike)):
        raise ValueError(
            "`preset` must be a name, a folder or a handle. No preset at: "
            f"{handle!r}."
        )
    text = os.fspath(handle)
    if text in BUILTIN:
        entry = BUILTIN[text]
        if entry.handle is None:
            return BUILTIN_FOLDER / text
        text = entry.handle
    scheme, separator, _ = text.partition("://")
    if not separator:
        return _local(text)
    if scheme not in _FETCH:
        raise ValueError(
            f"No preset at {text!r}: a handle begins with "
            f"{', '.join(f'{s}://' for s in _FETCH)}, or is a folder or one "
            f"of {', '.join(names())}."
        )
    folder = _FETCH[scheme](text)
    if not (folder / CONFIG).is_file():
        raise ValueError(f"No preset at {text!r}: it has no {CONFIG}.")
    return folder


def _local(path):
    folder = pathlib.Path(path).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    if folder.is_dir():
        raise ValueError(
            f"No preset at {path!r}: the folder has no {CONFIG}. "
            "`save_to_preset` writes one."
        )
    meant = near(path)
    hint = (
        f" Perhaps {' or '.join(map(repr, meant))} is meant." if meant else ""
    )
    raise ValueError(
        f"No preset at {path!r}: it is neither a folder nor one of the "
        f"built-in presets {', '.join(names())}.{hint}"
    )


def optional(package, handle):
    """The module of an optional dependency.

    Raises:
        ImportError: if it is missing; the message names the pip command.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"{handle!r} needs {package}: pip install 'keras_flows[hub]'"
        ) from error


def parse_hf(handle):
    """(repository, folder in it or "", revision or None)."""
    found = _HF.fullmatch(handle)
    folder = found[2].strip("/") if found else ".."
    if ".." in folder.split("/"):
        raise ValueError(
            f"No preset at {handle!r}: a handle of Hugging Face is "
            "hf://org/repository[/folder][@revision]."
        )
    return found[1], folder, found[3]


def parse_kaggle(handle):
    """(owner/model/framework/variation, version or None)."""
    found = _KAGGLE.fullmatch(handle)
    if not found:
        raise ValueError(
            f"No preset at {handle!r}: a handle of Kaggle is "
            "kaggle://owner/model/framework/variation[/version]."
        )
    return found[1], found[2]


def _hugging_face(handle):
    repository, folder, revision = parse_hf(handle)
    hub = optional("huggingface_hub", handle)
    errors = importlib.import_module("huggingface_hub.errors")
    try:
        # Nothing but a preset's own files is downloaded.
        snapshot = hub.snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[f"{folder}/{name}".lstrip("/") for name in FILES],
        )
    except (
        errors.RepositoryNotFoundError,
        errors.RevisionNotFoundError,
    ) as error:
        raise ValueError(
            f"No preset at {handle!r}: no such repository or revision, or it "
            "is private and you are not logged in (`hf auth login`)."
        ) from error
    except OSError as error:
        raise _failed(handle, error, "HF_HOME") from error
    return pathlib.Path(snapshot, folder)


def _kaggle(handle):
    name, version = parse_kaggle(handle)
    hub = optional("kagglehub", handle)
    try:
        full = name if version is None else f"{name}/{version}"
        return pathlib.Path(hub.model_download(full))
    except OSError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            raise ValueError(
                f"No preset at {handle!r}: no such model or version, or it is "
                "private and you are not logged in (`kagglehub.login()`)."
            ) from error
        # kagglehub asks for the newest version even where one is cached.
        cached = _newest_cached(name)
        if status is None and version is None and cached is not None:
            warnings.warn(
                f"Kaggle cannot be reached: {handle!r} is version "
                f"{cached.name}, the newest in the cache.",
                stacklevel=2,
            )
            return cached
        raise _failed(handle, error, "KAGGLEHUB_CACHE") from error


def _newest_cached(name):
    """The newest version of a Kaggle model in the cache, or None."""
    config = importlib.import_module("kagglehub.config")
    folder = pathlib.Path(config.get_cache_folder(), "models", name)
    versions = [
        int(marker.stem)
        for marker in folder.glob("*.complete")
        if marker.stem.isdigit()
    ]
    return folder / str(max(versions)) if versions else None


def _failed(handle, error, variable):
    """What to raise where a hub's client fails."""
    if isinstance(
        error, (PermissionError, NotADirectoryError, FileExistsError)
    ):
        return OSError(
            f"The cache for {handle!r} cannot be written ({error}). Set "
            f"{variable} to a folder that can."
        )
    return ConnectionError(
        f"{handle!r} could not be downloaded ({error}). Without a network only "
        "cached presets load."
    )


_FETCH = {
    "hf": _hugging_face,
    "kaggle": _kaggle,
    "https": download.fetch,
    "http": download.fetch,
}
