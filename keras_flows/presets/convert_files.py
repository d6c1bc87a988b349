"""Weights of other people's checkpoints: where they lie, which of them."""

import dataclasses
import json
import pathlib
import urllib.parse

import numpy as np

from keras_flows.ops.files import move
from keras_flows.presets import download
from keras_flows.presets.handles import optional
from keras_flows.presets.handles import parse_hf
from keras_flows.presets.weight_files import EXPORT_FLAX
from keras_flows.presets.weight_files import READABLE
from keras_flows.presets.weight_files import check_pickle
from keras_flows.presets.weight_files import read_weights

# What training scripts call the averaged weights, and the others.
PAIRS = (
    ("ema", "model"),
    ("flow_map_ema", "flow_map"),
    ("ema_params", "params"),
)
# Wrappers: PyTorch's, MeanFlow's and the policies', EDM's preconditioning.
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        state: dict of name to array.
        config: the config.json beside it, or {}.
        weights: which of its weights these are: "ema", "model" (those of the
            last step), or "only" where it has one set.
    """

    state: dict
    config: dict
    weights: str


def read_checkpoint(source, ema=None):
    """Read the weights of a published checkpoint.

    Args:
        source: a file (.safetensors, .pt, .pth, .ckpt, .bin, .npz, or flax's
            .msgpack), a folder in diffusers' layout (config.json and
            *.safetensors, whole or in shards),
            "hf://org/repository[/folder or file][@revision]", or
            "https://host/file.pt#sha256=<64 hex digits>".
        ema: whether to read the averaged weights; None for those where the
            file has them.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: if there is no such file, it cannot be read without
            running code, or it lacks the weights asked for.
        ImportError: if torch or huggingface_hub is needed and missing.
        OSError: if it cannot be downloaded.
    """
    path = _local(source)
    config = {}
    if (path / "config.json").is_file():
        config = json.loads((path / "config.json").read_text())
    files = [path] if path.is_file() else _weights_files(path)
    tree = {}
    for file in files:
        tree |= read_weights(file)
    state, weights = _chosen(tree, ema, source)
    return Checkpoint(state, config, weights)


def _local(source):
    text = str(source)
    scheme, separator, _ = text.partition("://")
    if not separator:
        path = pathlib.Path(text).expanduser()
        if not path.exists():
            raise ValueError(f"`source`: there is no file {text!r}.")
        return path
    if scheme in ("https", "http"):
        return _downloaded(text)
    if scheme != "hf":
        raise ValueError(
            "`source` must be a file, a folder, or begin with hf:// or "
            f"https://. Received: {text!r}."
        )
    repository, folder, revision = parse_hf(text)
    check_pickle(folder)
    hub = optional("huggingface_hub", text)
    if folder.endswith(READABLE):
        return pathlib.Path(
            hub.hf_hub_download(repository, folder, revision=revision)
        )
    # Nothing but weights that are plain data, and what describes them.
    snapshot = hub.snapshot_download(
        repository,
        revision=revision,
        allow_patterns=[
            f"{folder}/{name}".lstrip("/")
            for name in ("config.json", "*.safetensors")
        ],
    )
    return pathlib.Path(snapshot, folder)


def _downloaded(handle):
    """The file of an https handle, downloaded once and checked."""
    url, checksum = download.parsed(handle)
    name = pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
    check_pickle(name)
    folder = download.cache_folder() / "checkpoints" / checksum
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / name, folder / "part"
    with open(folder / "lock", "a") as lock, download.locked(lock):
        if not path.is_file():
            download.resume(url, part)
            try:
                download.check(part, checksum, url)
                move(part, path)
            finally:
                part.unlink(missing_ok=True)
    return path


def _weights_files(folder):
    """The files of a folder's weights: one, or all shards of one."""
    files = sorted(folder.glob("*.safetensors"))
    shards = [f for f in files if "-of-" in f.name]
    # Beside the weights there may be copies in half precision (.fp16).
    files = shards or [f for f in files if len(f.suffixes) == 1]
    files = files or sorted(
        f for f in folder.glob("*") if f.name.endswith(READABLE)
    )
    if len(files) == 1 or shards:
        return files
    if (folder / "_METADATA").exists() or any(folder.glob("*ocdbt*")):
        raise ValueError(
            f"`source`: {str(folder)!r} is a checkpoint of Orbax, which is "
            f"not read here. {EXPORT_FLAX}"
        )
    raise ValueError(
        f"`source`: {str(folder)!r} must hold one file of weights. It has "
        f"{[f.name for f in files] or 'none'}; name the one."
    )


def _flat(tree, prefix=()):
    """{path: array} of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, (*prefix, str(key)))
        elif isinstance(value, np.ndarray):
            yield ".".join((*prefix, str(key))), value


def _chosen(tree, ema, source):
    """(state, which weights) of what a training script saved."""
    if not isinstance(tree, dict):
        raise ValueError(f"`source`: {str(source)!r} holds no dict of weights.")
    # PyTorch Lightning: all networks in one dict, by prefixes.
    tree = tree.get("state_dict") or tree
    for averaged, last in (*PAIRS, ("ema_denoiser", "denoiser")):
        sets = {
            name: _under(tree, key)
            for name, key in (("ema", averaged), ("model", last))
        }
        if not any(sets.values()):
            continue
        weights = "model" if ema is False or not sets["ema"] else "ema"
        if not sets[weights] or (ema and weights != "ema"):
            break
        return sets[weights], weights
    else:
        if ema is not True:
            return _unwrapped(dict(_flat(tree))), "only"
    raise ValueError(
        f"`ema`={ema}: {str(source)!r} has no such weights, but "
        f"{', '.join(map(repr, list(tree)[:6]))}. Leave `ema` out."
    )


def _under(tree, key):
    """What a dict has under a key, or under names that begin with it."""
    if isinstance(tree.get(key), dict):
        return _unwrapped(dict(_flat(tree[key])))
    if not key.endswith("denoiser"):
        return {}
    return _unwrapped(
        {
            name.removeprefix(f"{key}."): value
            for name, value in tree.items()
            if name.startswith(f"{key}.") and isinstance(value, np.ndarray)
        }
    )


def _unwrapped(state):
    """Names without the prefixes that wrappers of a network add."""
    state = {name.replace("/", "."): value for name, value in state.items()}
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state
