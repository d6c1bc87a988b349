"""Share a preset on Hugging Face or Kaggle."""

from __future__ import annotations

import pathlib
import tempfile
import typing

import keras

from keras_flows.ops import given
from keras_flows.presets.files import check_files
from keras_flows.presets.files import read_metadata
from keras_flows.presets.handles import optional
from keras_flows.presets.handles import parse_hf
from keras_flows.presets.handles import parse_kaggle
from keras_flows.presets.preset import save_to_preset

if typing.TYPE_CHECKING:
    from keras_flows.ops.types import PathLike
    from keras_flows.presets.card import Card


def upload_preset(
    preset: PathLike,
    handle: str,
    *,
    card: Card | None = None,
    private: bool = False,
    message: str = "Preset",
) -> None:
    """Upload a model or a preset's folder.

    You must be logged in: `hf auth login` or `kagglehub.login()`.

    Args:
        preset: a `keras.Model`, or a folder that `save_to_preset` wrote.
        handle: "hf://org/repository[/folder][@branch]" or
            "kaggle://owner/model/framework/variation". What does not exist is
            made, a branch excepted.
        card: `presets.Card` of a model; a folder has its own.
        private: whether a new repository is private; Kaggle's models always
            begin private.
        message: of the commit or the version.

    Raises:
        ValueError: if the handle or the folder is none, or `card` comes with
            a folder.
        ImportError: if huggingface_hub or kagglehub is missing.
    """
    given.text("handle", handle)
    scheme = handle.partition("://")[0]
    if scheme not in _UPLOAD:
        raise ValueError(
            "`handle` must begin with hf:// or kaggle://. Received: "
            f"{handle!r}."
        )
    if isinstance(preset, keras.Model):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder, _title(handle))
            save_to_preset(preset, folder, card=card)
            _UPLOAD[scheme](folder, handle, private, message)
        return
    if card is not None:
        raise ValueError(
            "`card` is for a model; the folder has the card that "
            "`save_to_preset` wrote."
        )
    folder = given.path_of("preset", preset)
    check_files(folder)
    _UPLOAD[scheme](folder, handle, private, message)


def _title(handle):
    """The last name in a handle."""
    return handle.partition("@")[0].rstrip("/").rpartition("/")[2]


def _hugging_face(folder, handle, private, message):
    repository, inside, revision = parse_hf(handle)
    hub = optional("huggingface_hub", handle)
    api = hub.HfApi()
    api.create_repo(repository, private=private, exist_ok=True)
    api.upload_folder(
        repo_id=repository,
        folder_path=folder,
        path_in_repo=inside or None,
        revision=revision,
        commit_message=message,
    )


def _kaggle(folder, handle, private, message):
    name, version = parse_kaggle(handle)
    if version is not None:
        raise ValueError(
            "`handle` must not name a version: Kaggle counts them. Received: "
            f"{handle!r}."
        )
    hub = optional("kagglehub", handle)
    card = read_metadata(folder).get("card", {})
    hub.model_upload(
        name,
        str(folder),
        license_name=card.get("license"),
        version_notes=message,
    )


_UPLOAD = {"hf": _hugging_face, "kaggle": _kaggle}
