"""Weights of other people's checkpoints, read without running any code.

safetensors, NumPy's archives and flax's msgpack are plain data; a PyTorch file
is a pickle and is read with `weights_only=True`, which builds tensors and
containers and refuses all else. Pickles of any other kind are never opened.
"""

import argparse
import dataclasses
import importlib
import json
import math
import pathlib
import pickle
import struct
import urllib.parse
import zipfile

import ml_dtypes
import numpy as np

from keras_flows.presets import download
from keras_flows.presets.handles import optional
from keras_flows.presets.handles import parse_hf

TORCH = (".pt", ".pth", ".ckpt", ".bin")
PICKLES = (".pkl", ".pickle", ".joblib")
READABLE = (".safetensors", ".npz", ".msgpack", *TORCH)
# What training scripts call the averaged weights, and the others.
PAIRS = (
    ("ema", "model"),
    ("flow_map_ema", "flow_map"),
    ("ema_params", "params"),
)
# Wrappers: PyTorch's, MeanFlow's and the policies', EDM's preconditioning.
WRAPPERS = ("module.", "_orig_mod.", "net.", "model.")
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "BF16": ml_dtypes.bfloat16, "I64": np.int64, "I32": np.int32,
    "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
EXPORT_PICKLE = (
    "It is a pickle, which runs any code that its author put in. Where you "
    "trust it, load it with its own code, in a sandbox, and save the weights "
    "alone: torch.save(network.state_dict(), 'weights.pt'), or for NVIDIA's "
    "files torch.save(pickle.load(file)['ema'].state_dict(), 'weights.pt')."
)
EXPORT_FLAX = (
    "Save its weights as an archive with its own code: "
    "numpy.savez('weights.npz', **flax.traverse_util.flatten_dict("
    "state.ema_params, sep='/'))."
)


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
        tree |= _read(file)
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
    _check_pickle(folder)
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
    url, checksum = download._parsed(handle)
    name = pathlib.PurePosixPath(urllib.parse.urlsplit(url).path).name
    _check_pickle(name)
    folder = download.cache_folder() / "checkpoints" / checksum
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / name, folder / "part"
    with open(folder / "lock", "a") as lock, download._locked(lock):
        if not path.is_file():
            download._download(url, part)
            try:
                download._check(part, checksum, url)
                part.rename(path)
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


def _check_pickle(name):
    if name.endswith(PICKLES):
        raise ValueError(f"`source`: {name!r} is refused. {EXPORT_PICKLE}")


def _read(path):
    """The nested dict that a file holds."""
    _check_pickle(path.name)
    # flax's files have no ending: checkpoint_40000.
    if path.suffix not in ("", *READABLE):
        raise ValueError(
            f"`source`: {path.name!r} has none of the known endings "
            f"{', '.join(READABLE)}."
        )
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        if path.suffix in TORCH:
            return _read_torch(path)
        return Msgpack(path.read_bytes()).value()
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        struct.error,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(
            f"`source`: {str(path)!r} cannot be read: {error}"
        ) from error


def read_safetensors(path):
    """{name: array} of a file: a length, a header in JSON, the numbers.

    Source: https://huggingface.co/docs/safetensors.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    end = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:end].tobytes())
    header.pop("__metadata__", None)
    state = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
        if not 0 <= first <= last <= len(data) - end or (
            last - first != math.prod(shape) * dtype.itemsize
        ):
            raise ValueError(f"{name!r} does not lie in the file.")
        # A copy, which is aligned and outlives the file.
        piece = np.array(data[end + first : end + last])
        state[name] = piece.view(dtype).reshape(shape)
    return state


def _read_torch(path):
    # By name: presets import no backend.
    torch = importlib.import_module("torch")
    # DiT's and SiT's training saves its arguments beside the weights; they
    # are read as a plain list of values.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with allowed:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            "it holds more than tensors, or is damaged, and nothing of it was "
            f"run ({reason}). {EXPORT_PICKLE}"
        ) from error

    def array(value):
        if isinstance(value, torch.Tensor):
            value = value.detach()
            if value.dtype == torch.bfloat16:
                value = value.float()
            return value.numpy()
        if isinstance(value, dict):
            return {k: array(v) for k, v in value.items()}
        return None

    return array(tree)


class Msgpack:
    """The few types of msgpack that flax's checkpoints use.

    Source: https://github.com/msgpack/msgpack/blob/master/spec.md; arrays are
    flax's extension 1, (shape, dtype, bytes).
    """

    _NUMBERS = {
        0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I",
        0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
    }  # fmt: skip

    def __init__(self, data):
        self.data = data
        self.place = 0

    def _take(self, count):
        piece = self.data[self.place : self.place + count]
        if len(piece) < count:
            raise ValueError("it is cut off.")
        self.place += count
        return piece

    def _number(self, kind):
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _size(self, exponent):
        return self._number((">B", ">H", ">I")[exponent])

    def _map(self, count):
        tree = {self.value(): self.value() for _ in range(count)}
        if "__msgpack_chunked_array__" in tree:
            # What is above a gigabyte comes in pieces.
            shape, chunks = tree["shape"], tree["chunks"]
            pieces = [chunks[str(i)] for i in range(len(chunks))]
            shape = [shape[str(i)] for i in range(len(shape))]
            return np.concatenate(pieces).reshape(shape)
        return tree

    def _extension(self, count):
        code, data = self._number(">b"), self._take(count)
        if code not in (1, 3):
            raise ValueError(f"it has the unknown extension {code}.")
        shape, name, content = Msgpack(data).value()
        name = name if isinstance(name, str) else name.decode()
        dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
        return np.frombuffer(content, dtype).reshape(shape)

    def value(self):
        """The next value."""
        tag = self._number(">B")
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 0x100
        if tag < 0x90:
            return self._map(tag & 0x0F)
        if tag < 0xA0:
            return [self.value() for _ in range(tag & 0x0F)]
        if tag < 0xC0:
            return str(self._take(tag & 0x1F), "utf-8")
        if tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[tag]
        if tag in self._NUMBERS:
            return self._number(self._NUMBERS[tag])
        if 0xC4 <= tag <= 0xC6:
            return self._take(self._size(tag - 0xC4))
        if 0xC7 <= tag <= 0xC9:
            return self._extension(self._size(tag - 0xC7))
        if 0xD4 <= tag <= 0xD8:
            return self._extension(1 << (tag - 0xD4))
        if 0xD9 <= tag <= 0xDB:
            return str(self._take(self._size(tag - 0xD9)), "utf-8")
        if tag in (0xDC, 0xDD):
            count = self._size(tag - 0xDB)
            return [self.value() for _ in range(count)]
        if tag in (0xDE, 0xDF):
            return self._map(self._size(tag - 0xDD))
        raise ValueError(f"it has the unknown type {tag:#x}.")


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
