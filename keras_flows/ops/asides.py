"""Values that leave a computation beside its result, through JVPs too.

A network inside a JVP sees tracers or dual numbers, which must not be kept
by a side effect; `keras_flows.ops.jvp` hands what was noted inside it out as
auxiliary output instead.
"""

from __future__ import annotations

import contextlib
import typing

from keras import ops

from keras_flows.ops.tensors import float_dtype

if typing.TYPE_CHECKING:
    from typing import Any

    import keras

    from keras_flows.ops.types import ArrayLike

FEATURES, LOSSES = "features", "losses"

# (kind, notes) of those who take notes; the kind None takes all.
_open = []
_parts = [None]


@contextlib.contextmanager
def gather(kind: str = FEATURES) -> Any:
    """Yield a list that `note` fills with (part, value) of a kind meanwhile."""
    notes = []
    _open.append((kind, notes))
    try:
        yield notes
    finally:
        _open.pop()


@contextlib.contextmanager
def part(name):
    """Name the part of the batch that the notes inside belong to."""
    _parts.append(name)
    try:
        yield
    finally:
        _parts.pop()


def gathering(kind=None):
    """Whether anyone takes notes of a kind, or of any."""
    return any(kind in (None, taken) for taken, _ in _open)


def note(value: Any, kind: str = FEATURES, name: str | None = None) -> None:
    """Hand tensors to the innermost `gather` of their kind, if any.

    Args:
        value: a structure of tensors.
        kind: of the note.
        name: whose note it is, by default the `part` of the batch.
    """
    name = _parts[-1] if name is None else name
    for taken, notes in reversed(_open):
        if taken is None:
            notes.append((kind, name, value))
            return
        if taken == kind:
            notes.append((name, value))
            return


def carried(fun):
    """(`fun` with its notes' values as auxiliary output, whose they are).

    The list of (kind, name) is filled when the function runs.
    """
    owners = []

    def run(*args):
        with gather(None) as notes:
            output = fun(*args)
        owners[:] = [(kind, name) for kind, name, _ in notes]
        return output, [value for _, _, value in notes]

    return run, owners


def renote(owners, values):
    """Note the values that `carried` brought, as what they were."""
    for (kind, name), value in zip(owners, values, strict=True):
        note(value, kind, name)


def note_losses(network: keras.Model, x: ArrayLike) -> None:
    """Note what `add_loss` and activity regularisers gave in the last call.

    Args:
        network: the layer that was called; one that does not train, such as
            an average or a teacher, has nothing to note.
        x: (B, ...), of whose rows the call was.
    """
    if not gathering(LOSSES) or not network.trainable:
        return
    found = [
        loss
        for layer in network._flatten_layers()
        for loss in layer._get_own_losses()
    ]
    if found:
        loss = sum(ops.sum(ops.cast(part, float_dtype())) for part in found)
        rows = ops.cast(ops.shape(x)[0], float_dtype())
        note([loss, rows], LOSSES, id(network))


def mean_losses(notes: Any, networks: Any = None) -> Any:
    """The losses that `note_losses` noted, a scalar; None where none were.

    Of each network the mean over its calls, weighed by their rows: an
    objective may split its batch, and calls more than once.

    Args:
        notes: of `gather("losses")`.
        networks: whose, by default all.
    """
    calls = {}
    for owner, value in notes:
        if networks is None or owner in map(id, networks):
            calls.setdefault(owner, []).append(value)
    if not calls:
        return None
    return sum(map(_weighed, calls.values()))


def _weighed(calls):
    if len(calls) == 1:
        return calls[0][0]
    rows = sum(rows for _, rows in calls)
    return sum(loss * rows for loss, rows in calls) / ops.maximum(rows, 1.0)


def note_rows(rows: Any) -> None:
    """Note how a batch was split, under the name "rows"."""
    note(rows, name="rows")
