"""The manifest of prepared latents, and whether its shards are whole."""

import hashlib
import json
import pathlib

MANIFEST = "manifest.json"
PROGRESS = "progress.json"
FORMAT = 1


def sha256_of(path):
    """The sha256 of a file, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder):
    """The manifest of a folder of latents, a dict.

    Raises:
        ValueError: if there is none, or one of another format.
    """
    folder = pathlib.Path(folder)
    file = folder / MANIFEST
    if not file.is_file():
        if (folder / PROGRESS).is_file() or any(folder.glob("latents-*")):
            raise ValueError(
                f"`path` {str(folder)!r} holds shards but no {MANIFEST}: "
                "they were not finished. Run tools/prepare_latents.py again "
                "with the same flags; it keeps what is whole."
            )
        raise ValueError(
            f"`path` {str(folder)!r} has no {MANIFEST}: it is no folder of "
            "prepared latents. Make one by tools/prepare_latents.py."
        )
    try:
        manifest = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(file)!r} cannot be read: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{str(file)!r} is of format {manifest.get('format')!r}; this "
            f"version reads {FORMAT}. Prepare the latents again."
        )
    return manifest


def check_shards(folder, manifest, checksums=True):
    """Every shard is there, of its size, count and checksum.

    Raises:
        ValueError: naming the first shard that is not.
    """
    counts = sum(entry["records"] for entry in manifest["shards"])
    if counts != manifest["num_records"]:
        raise ValueError(
            f"The manifest of {str(folder)!r} lists {counts} records in its "
            f"shards and {manifest['num_records']} in all. Prepare again."
        )
    for entry in manifest["shards"]:
        check_shard(pathlib.Path(folder), entry, checksums)


def check_shard(folder, entry, checksums=True):
    """A shard is there, of its size and checksum, or a ValueError."""
    path = folder / entry["file"]
    again = (
        "Remove it and its manifest and run tools/prepare_latents.py again, "
        "or copy the folder again."
    )
    if not path.is_file():
        raise ValueError(f"Shard {str(path)!r} is missing. {again}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise ValueError(
            f"Shard {str(path)!r} has {size} bytes and should have "
            f"{entry['bytes']}: it is half-written or changed. {again}"
        )
    if checksums and sha256_of(path) != entry["sha256"]:
        raise ValueError(
            f"Shard {str(path)!r} has another sha256 than its manifest says: "
            f"it is damaged. {again}"
        )
