"""Where a preset's handle leads."""

import pathlib

_HERE = pathlib.Path(__file__).parent / "builtin"

BUILTIN = {
    "lsd_checkerboard": (
        "LSD flow map of the 2-D checkerboard, MLP 4x256, one step or more; "
        "recipes/checkerboard.py"
    ),
    "psd_checkerboard": (
        "PSD (midpoint) flow map of the 2-D checkerboard, MLP 4x256; "
        "recipes/checkerboard.py"
    ),
    "flow_shelf_place": (
        "flow-matching policy of Meta-World's shelf-place-v3, ChunkMLP 2x128; "
        "recipes/metaworld.py"
    ),
    "mip_shelf_place": (
        "MIP policy of Meta-World's shelf-place-v3, ChunkMLP 2x128; "
        "recipes/metaworld.py"
    ),
}


def preset_folder(handle):
    """The folder of a built-in name or of a local path.

    Raises:
        ValueError: if it is neither; the message lists the built-in names.
    """
    if handle in BUILTIN:
        folder = _HERE / handle
    else:
        folder = pathlib.Path(handle)
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"No preset at {str(handle)!r}: it is not a folder with a "
            "config.json, nor one of the built-in presets "
            f"{', '.join(sorted(BUILTIN))}."
        )
    return folder
