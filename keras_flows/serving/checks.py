"""What a request asks for, checked: rows, condition, steps, guidance."""

import typing

import fastapi
import numpy as np
import pydantic
from fastapi.exceptions import RequestValidationError

from keras_flows.networks import Labels
from keras_flows.ops.scalars import GUIDANCE

# Requests of a preset may choose their steps; each choice is a graph of its
# own on the device.
MAX_STEPS = 64


class Request(pydantic.BaseModel):
    """The body of POST /sample."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    num_samples: int | None = pydantic.Field(None, ge=1)
    seed: int | None = pydantic.Field(None, ge=0, lt=2**63)
    condition: typing.Any = None
    num_steps: int | None = pydantic.Field(None, ge=1, le=MAX_STEPS)
    guidance_scale: pydantic.FiniteFloat | None = pydantic.Field(
        None, ge=GUIDANCE.low, le=GUIDANCE.high
    )
    encoding: typing.Literal["json", "png"] = "json"


def wrong(field, message):
    """The 422 that names a field."""
    return RequestValidationError(
        [{"loc": ("body", *field.split(".")), "msg": message, "type": "value"}]
    )


def checked_settings(source, request):
    """((num_steps, guidance_scale), whether its steps draw noise)."""
    settings = []
    for field in ("num_steps", "guidance_scale"):
        own, asked = getattr(source, field), getattr(request, field)
        if asked is not None and asked != own and source.fixed:
            raise wrong(field, f"It is {own} in the exported file.")
        settings.append(own if asked is None else asked)
    if settings[1] != 1.0 and source.null_label is None:
        raise wrong("guidance_scale", "The model has no null label; use 1.0.")
    try:
        draws = source.draws(settings[0])
    except ValueError as error:
        raise wrong("num_steps", str(error)) from None
    return tuple(settings), draws


def checked_rows(source, request, max_samples):
    """(number of samples, {name: array with as many rows})."""
    given = request.condition
    if not source.inputs and given is not None:
        raise wrong("condition", "The model takes none.")
    if source.inputs and given is None:
        raise wrong("condition", f"The model needs {describe(source.inputs)}.")
    fields = dict.fromkeys(source.inputs, ("condition", given))
    if len(fields) > 1:
        if not isinstance(given, dict) or set(given) != set(fields):
            raise wrong("condition", f"Must be {describe(source.inputs)}.")
        fields = {name: (f"condition.{name}", given[name]) for name in fields}
    inputs = {
        name: checked_array(name, *field, *source.inputs[name], source)
        for name, field in fields.items()
    }
    # One row without the batch axis is for all samples.
    counts = {
        len(array)
        for name, array in inputs.items()
        if array.ndim > len(source.inputs[name][0])
    }
    rows = request.num_samples or max(counts, default=1)
    if rows > max_samples:
        raise fastapi.HTTPException(
            413, f"num_samples is {rows}; at most {max_samples} are sampled."
        )
    if counts - {rows}:
        raise wrong(
            "condition" if request.num_samples is None else "num_samples",
            f"{rows} samples, but the condition has {sorted(counts)} rows.",
        )
    return rows, {
        name: np.broadcast_to(array, (rows, *source.inputs[name][0]))
        for name, array in inputs.items()
    }


def describe(inputs):
    """What a condition is, in words."""
    parts = [
        f"{name!r}: {dtype} of shape ({', '.join(map(str, ('rows', *shape)))})"
        for name, (shape, dtype) in inputs.items()
    ]
    if len(parts) > 1:
        return "an object of " + "; ".join(parts)
    return parts[0].split(": ", 1)[1]


def checked_array(name, field, value, shape, dtype, source):
    """A value of JSON as an array, of one row or of many."""
    try:
        array = np.asarray(value)
    except ValueError:
        raise wrong(field, "Its rows have different lengths.") from None
    whole = "int" in dtype
    if array.dtype.kind not in ("iu" if whole else "iuf"):
        raise wrong(field, f"Must hold numbers of type {dtype}.")
    if array.shape != shape and array.shape[1:] != shape or array.size == 0:
        raise wrong(
            field,
            f"Must have shape {('rows', *shape)}, or {shape} for all samples. "
            f"Received: {array.shape}.",
        )
    if whole:
        highest, null = (
            label.get(name) if isinstance(label, dict) else label
            for label in (source.highest_label, source.null_label)
        )
        null = null if isinstance(null, int) else None
        highest = null if highest is None else highest
        labels = Labels(source.name, highest, null, None)
        try:
            labels.check(array)
        except ValueError:
            raise wrong(field, f"Labels go from {labels.span()}.") from None
    with np.errstate(over="ignore"):
        array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise wrong(field, "Must be finite.")
    return array
