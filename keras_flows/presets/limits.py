"""How much a preset may ask of the machine that loads it."""

import dataclasses

from keras_flows.ops.scalars import BYTES
from keras_flows.ops.scalars import POSITIVE

_GIB = 1 << 30


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a preset may take; beyond it, loading ends in an error.

    Attributes:
        download_bytes: of one archive.
        download_seconds: that one download may take.
        unpacked_bytes: of all files of an archive.
        expansion: times the archive's own size that its files may have; up
            to 64 MiB are unpacked whatever it is.
        archive_files: members of an archive, folders included.
        json_bytes: of one JSON file.
        json_depth: brackets within brackets in one.
        array_bytes: of one array in the weights.
        shape_elements: a number, or product of the numbers of a shape, in
            config.json, where the weights have fewer elements in all. Seeds
            and numbers of steps may be larger.
        unsaved_variables, unsaved_elements: what a model may build beyond
            four times the arrays, and the elements, of its weights.
    """

    download_bytes: int = 64 * _GIB
    download_seconds: float = 24 * 3600.0
    unpacked_bytes: int = 64 * _GIB
    expansion: float = 20.0
    archive_files: int = 1000
    json_bytes: int = 4 << 20
    json_depth: int = 100
    array_bytes: int = 16 * _GIB
    shape_elements: int = 1 << 18
    unsaved_variables: int = 300
    unsaved_elements: int = 1 << 24

    def __post_init__(self):
        for field in dataclasses.fields(self):
            kind = BYTES if field.type is int else POSITIVE
            kind(field.name, getattr(self, field.name))


_current = [Limits()]


def limits() -> Limits:
    """The `Limits` in force."""
    return _current[0]


def set_limits(**changes: float) -> Limits:
    """Change limits for this process.

    Args:
        changes: attributes of `Limits`, such as `unpacked_bytes=200 << 30`.

    Returns:
        The `Limits` before, for `set_limits(**dataclasses.asdict(before))`.

    Raises:
        ValueError: if there is no such limit, or its value is no number above
            0.
    """
    known = [field.name for field in dataclasses.fields(Limits)]
    for name in changes:
        if name not in known:
            raise ValueError(
                f"`{name}` is no limit. There are: {', '.join(known)}."
            )
    before = limits()
    _current[0] = dataclasses.replace(before, **changes)
    return before


def beyond(name):
    """How to raise a limit: the end of its error."""
    return (
        f"The limit is {getattr(limits(), name):,}; for a preset that you "
        f"trust raise it by kf.presets.set_limits({name}=...)."
    )
