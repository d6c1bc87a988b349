"""Values that leave a computation beside its result, through JVPs too.

A network inside a JVP sees tracers or dual numbers, which must not be kept
by a side effect; `keras_flows.ops.jvp` hands what was noted inside it out as
auxiliary output instead.
"""

import contextlib

_open = []
_parts = [None]


@contextlib.contextmanager
def gather():
    """Yield a list that `note` fills with (part, value) meanwhile."""
    notes = []
    _open.append(notes)
    try:
        yield notes
    finally:
        _open.remove(notes)


@contextlib.contextmanager
def part(name):
    """Name the part of the batch that the notes inside belong to."""
    _parts.append(name)
    try:
        yield
    finally:
        _parts.pop()


def gathering():
    """Whether anyone takes notes."""
    return bool(_open)


def note(value):
    """Hand `value` to the innermost `gather`, if any."""
    if _open:
        _open[-1].append((_parts[-1], value))


def carried(fun):
    """(`fun` with its notes' values as auxiliary output, their parts).

    The list of parts is filled when the function runs.
    """
    parts = []

    def run(*args):
        with gather() as notes:
            output = fun(*args)
        parts[:] = [name for name, _ in notes]
        return output, [value for _, value in notes]

    return run, parts


def renote(parts, values):
    """Note the values that `carried` brought, under their parts."""
    for name, value in zip(parts, values, strict=True):
        with part(name):
            note(value)


def note_rows(rows):
    """Note how a batch was split, under the part "rows"."""
    with part("rows"):
        note(rows)
