"""Weights of other people's checkpoints: where they lie, which of them."""

import dataclasses
import pathlib
import re
import urllib.parse

from keras_flows.ops.files import move
from keras_flows.ops.scalars import BYTES
from keras_flows.ops.scalars import FLAG
from keras_flows.ops.scalars import Optional
from keras_flows.ops.scalars import checked
from keras_flows.presets import download
from keras_flows.presets.handles import optional
from keras_flows.presets.handles import parse_hf
from keras_flows.presets.stored import add
from keras_flows.presets.stored import flat
from keras_flows.presets.stored import limit_of
from keras_flows.presets.stored import plain_json
from keras_flows.presets.stored import quoted
from keras_flows.presets.stored import read_all
from keras_flows.presets.weight_files import EXPORT_FLAX
from keras_flows.presets.weight_files import READABLE
from keras_flows.presets.weight_files import check_pickle
from keras_flows.presets.weight_files import read_weights
from keras_flows.presets.weight_files import told

# What training scripts call the averaged weights, and the others.
PAIRS = (
    ("ema", "model"),
    ("flow_map_ema", "flow_map"),
    ("ema_params", "params"),
)
# Wrappers: PyTorch's, MeanFlow's and the policies', EDM's preconditioning.
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")
_LARGEST_CONFIG = 1 << 20


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


@checked(ema=Optional(FLAG), max_bytes=Optional(BYTES))
def read_checkpoint(source, ema=None, max_bytes=None):
    """Read the weights of a published checkpoint.

    Args:
        source: a file (.safetensors, .pt, .pth, .ckpt, .bin, .npz, or flax's
            .msgpack), a folder in diffusers' layout (config.json and
            *.safetensors, whole or in shards),
            "hf://org/repository[/folder or file][@revision]", or
            "https://host/file.pt#sha256=<64 hex digits>".
        ema: whether to read the averaged weights; None for those where the
            file has them.
        max_bytes: most bytes that the weights may take. None for 16 GiB, and
            at most 20 times the file (it may be compressed) or 64 MiB.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: if there is no such file, it cannot be read without
            running code, is damaged, declares more bytes than `max_bytes`
            (before they are read), or lacks the weights asked for.
        ImportError: if huggingface_hub is needed and missing.
        OSError: if it cannot be downloaded.
    """
    path = _local(source)
    config = {}
    if (path / "config.json").is_file():
        config = _read_config(path / "config.json")
    files = [path] if path.is_file() else _weights_files(path)
    tree = {}
    for file in files:
        for name, value in read_weights(file).items():
            with told(file):
                add(tree, name, value)
    with told(path):
        declared, weights = _chosen(tree, ema)
        if not declared:
            raise ValueError("it holds no weights.")
        limit = limit_of(max_bytes, sum(f.stat().st_size for f in files))
        return Checkpoint(read_all(declared, limit), config, weights)


def _read_config(path):
    """The dict of a config.json, whose sizes are whole numbers."""
    with told(path):
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError(f"it has more than {_LARGEST_CONFIG:,} bytes.")
        config = plain_json(path.read_bytes())
        if not isinstance(config, dict):
            raise ValueError("it is no JSON object.")
        return config


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
    shards = [f for f in files if re.search(r"-of-\d", f.name)]
    # Beside the weights there may be copies in half precision (.fp16).
    files = shards or [f for f in files if len(f.suffixes) == 1]
    files = files or sorted(
        f for f in folder.glob("*") if f.name.endswith(READABLE)
    )
    counts = {re.search(r"-of-(\d+)", f.name)[1] for f in shards}
    if shards and counts != {f"{len(shards):0{len(min(counts))}d}"}:
        raise ValueError(
            f"`source`: {str(folder)!r} has {len(shards)} shards of weights, "
            f"and by their names there are {' and '.join(sorted(counts))}."
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


def _chosen(tree, ema):
    """(state, which weights) of what a training script saved."""
    # PyTorch Lightning: all networks in one dict, by prefixes.
    if isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"] or tree
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
            return _unwrapped(flat(tree)), "only"
    names = ", ".join(quoted(name) for name in list(tree)[:6])
    raise ValueError(
        f"`ema`={ema}, and it has no such weights, but {names}. Leave `ema` "
        "out."
    )


def _under(tree, key):
    """What a dict has under a key, or under names that begin with it."""
    if isinstance(tree.get(key), dict):
        return _unwrapped(flat(tree[key]))
    if not key.endswith("denoiser"):
        return {}
    return _unwrapped(
        flat(
            {
                name.removeprefix(f"{key}."): value
                for name, value in tree.items()
                if isinstance(name, str) and name.startswith(f"{key}.")
            }
        )
    )


def _unwrapped(state):
    """Names without the prefixes that wrappers of a network add."""
    plain = {}
    for name, value in state.items():
        add(plain, name.replace("/", "."), value)
    state = plain
    for prefix in WRAPPERS:
        if state and all(name.startswith(prefix) for name in state):
            state = {k.removeprefix(prefix): v for k, v in state.items()}
    return state
