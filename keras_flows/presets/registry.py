"""The presets that have a name."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import typing

from keras_flows.ops import given
from keras_flows.ops.scalars import checked
from keras_flows.presets.files import read_config
from keras_flows.presets.files import read_metadata
from keras_flows.presets.files import weights_size

if typing.TYPE_CHECKING:
    from typing import Any

BUILTIN_FOLDER = pathlib.Path(__file__).parent / "builtin"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known of a named preset.

    Attributes:
        description: one line.
        recipe: the script that trained it, from the repository's root.
        results: the file that holds its figures, from the repository's root.
        metrics: dict of name -> number.
        handle: where it lies; None for a folder shipped with the package.
    """

    description: str
    recipe: str | None = None
    results: str | None = None
    metrics: dict = dataclasses.field(default_factory=dict)
    handle: str | None = None


BUILTIN = {
    "lsd_checkerboard": Entry(
        "LSD flow map of the 2-D checkerboard, MLP 4x256, one step or more",
        "recipes/checkerboard.py",
        "docs/results/presets.json",
        {"KL, 1 step": 0.0422, "KL, 4 steps": 0.0352, "KL, 16 steps": 0.0254},
    ),
    "psd_checkerboard": Entry(
        "PSD (midpoint) flow map of the 2-D checkerboard, MLP 4x256",
        "recipes/checkerboard.py",
        "docs/results/presets.json",
        {"KL, 1 step": 0.0664, "KL, 4 steps": 0.0332, "KL, 16 steps": 0.0207},
    ),
    "flow_shelf_place": Entry(
        "flow-matching policy of Meta-World's shelf-place-v3, ChunkMLP 2x128",
        "recipes/metaworld.py",
        "docs/results/metaworld.json",
        {"success, 1 step": 0.58, "success, 2 steps": 0.91,
         "success, 9 steps": 0.84},
    ),
    "mip_shelf_place": Entry(
        "MIP policy of Meta-World's shelf-place-v3, ChunkMLP 2x128",
        "recipes/metaworld.py",
        "docs/results/metaworld.json",
        {"success, 1 step": 0.88, "success, 2 steps": 0.91},
    ),
    "sit_digits": Entry(
        "class-conditional SiT of scikit-learn's digits, DiT 4x128",
        "recipes/digits.py",
        "docs/results/digits.json",
        {"FD, 4 steps": 10.15,
         "FD, 32 steps": 9.74,
         "accuracy, 32 steps": 0.9912},
    ),
    "edm_digits": Entry(
        "class-conditional EDM of scikit-learn's digits, DiT 4x128",
        "recipes/digits.py",
        "docs/results/digits.json",
        {"FD, 4 steps": 30.16,
         "FD, 32 steps": 9.81,
         "accuracy, 32 steps": 0.9845},
    ),
    "mean_flow_digits": Entry(
        "class-conditional MeanFlow of scikit-learn's digits, DiT 4x128",
        "recipes/digits.py",
        "docs/results/digits.json",
        {"FD, 1 step": 14.59,
         "FD, 2 steps": 14.2,
         "FD, 4 steps": 13.13,
         "FD, 32 steps": 12.18,
         "accuracy, 1 step": 0.9915},
    ),
    "repa_digits": Entry(
        "class-conditional SiT with REPA of scikit-learn's digits, DiT 4x128",
        "recipes/digits.py",
        "docs/results/digits.json",
        {"FD, 4 steps": 11.15,
         "FD, 32 steps": 10.56,
         "accuracy, 32 steps": 0.9935},
    ),
    "scenes_sit": Entry(
        "SiT of rendered scenes (32 x 32) by six labels, DiT 4x128",
        "recipes/images.py",
        "docs/results/scenes.json",
        {"FD, 4 calls": 17.5,
         "FD, 32 calls": 17.05,
         "lowest accuracy, 32 calls": 0.9875},
    ),
    "scenes_lsd": Entry(
        "LSD flow map of rendered scenes (32 x 32) by six labels, DiT 4x128",
        "recipes/images.py",
        "docs/results/scenes.json",
        {"FD, 1 call": 17.55,
         "FD, 2 calls": 16.98,
         "FD, 4 calls": 16.65,
         "FD, 32 calls": 16.55,
         "lowest accuracy, 1 call": 0.9947},
    ),
    "mnist_sit": Entry(
        "class-conditional SiT of MNIST, DiT 4x128 (guidance scale 1.5)",
        "recipes/images.py",
        "docs/results/mnist.json",
        {"FD, 4 calls": 19.48,
         "FD, 32 calls": 12.99,
         "lowest accuracy, 32 calls": 0.9875},
    ),
    "mnist_lsd": Entry(
        "class-conditional LSD flow map of MNIST, DiT 4x128 (guidance scale "
        "1.5)",
        "recipes/images.py",
        "docs/results/mnist.json",
        {"FD, 1 call": 14.72,
         "FD, 2 calls": 15.92,
         "FD, 4 calls": 16.6,
         "FD, 32 calls": 16.36,
         "lowest accuracy, 1 call": 0.965},
    ),
}  # fmt: skip


@checked(name=given.text)
def register(name: str, entry: Entry) -> Any:
    """Give a preset a name that `from_preset` takes, in this process.

    Args:
        name: without "/" or "://".
        entry: an `Entry` with a `handle`.

    Raises:
        ValueError: if the name is taken or no name, or there is no handle.
    """
    if name in BUILTIN:
        raise ValueError(f"`name` {name!r} is taken: the preset exists.")
    if "/" in name or not getattr(entry, "handle", None):
        raise ValueError(
            "`name` must be a word without '/' and `entry` must have a "
            f"`handle`. Received: {name!r}, {entry}."
        )
    BUILTIN[name] = entry


def names() -> list[str]:
    """The names of all presets, sorted."""
    return sorted(BUILTIN)


def near(name):
    """Names that `name` may be meant for."""
    return difflib.get_close_matches(name, names(), n=3, cutoff=0.6)


def describe(name: str | None = None) -> str:
    """What is known of a preset, or of all: a text to print.

    One line for what it is; then class, size, metrics and recipe.

    Args:
        name: a name of `names()`; None for all.

    Raises:
        ValueError: if there is no such name.
    """
    if name is None:
        return "\n".join(describe(each) for each in names())
    if not isinstance(name, str):
        raise ValueError(
            f"`name` must be one of {', '.join(names())}. Received: {name!r}."
        )
    if name not in BUILTIN:
        hint = ", ".join(near(name)) or ", ".join(names())
        raise ValueError(
            f"`name`: no preset is named {name!r}. Perhaps: {hint}."
        )
    entry = BUILTIN[name]
    lines = [f"{name}: {entry.description}"]
    if entry.handle is None:
        folder = BUILTIN_FOLDER / name
        count = read_metadata(folder)["parameter_count"]
        lines.append(
            f"{read_config(folder)['class_name']}, {count:,} parameters, "
            f"{weights_size(folder) / 1e6:.1f} MB"
        )
    else:
        lines.append(f"from {entry.handle}")
    if entry.metrics:
        lines.append(
            "; ".join(f"{key}: {value}" for key, value in entry.metrics.items())
        )
    if entry.recipe:
        found = f", figures in {entry.results}" if entry.results else ""
        lines.append(f"trained by {entry.recipe}{found}")
    return "\n    ".join(lines)
