"""The HTTP service: POST /sample, a page, and what it tells of itself."""

import asyncio
import base64
import contextlib
import io
import pathlib
import secrets
import time
import typing

import fastapi
import numpy as np
import pydantic
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.responses import JSONResponse

from keras_flows.networks import Labels
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.serving.batching import Batcher
from keras_flows.serving.batching import Overloaded
from keras_flows.serving.sources import Source
from keras_flows.serving.sources import rows_for_warming

PAGE = pathlib.Path(__file__).parent / "page.html"
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
    guidance_scale: pydantic.FiniteFloat | None = None
    encoding: typing.Literal["json", "png"] = "json"


class BodyLimit:
    """Answers 413 to bodies above a number of bytes, without reading on."""

    def __init__(self, app, max_bytes):
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        body, more = b"", True
        too_long = length.isdigit() and int(length) > self.max_bytes
        # A chunked body does not tell its length.
        while more and not too_long:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            too_long = len(body) > self.max_bytes
        if too_long:
            answer = JSONResponse(
                {"detail": f"The body is above {self.max_bytes} bytes."}, 413
            )
            await answer(scope, receive, send)
            return
        sent = iter([{"type": "http.request", "body": body}])

        async def replay():
            # After the body: until the client goes.
            return next(sent, None) or await receive()

        await self.app(scope, replay, send)


@checked(
    wait_ms=NOT_NEGATIVE,
    max_samples=SIZE,
    max_bytes=SIZE,
    max_waiting=SIZE,
)
def create_app(
    source,
    *,
    sizes=(1, 4, 16, 64),
    wait_ms=5.0,
    max_samples=256,
    max_bytes=1 << 20,
    max_waiting=4096,
):
    """The application that serves a `sources.Source`.

    Args:
        source: what to sample from.
        sizes: static batch sizes; all are run once before the first request.
        wait_ms: how long a request waits for others to be sampled with.
        max_samples: most samples of one request; more are answered by 413.
        max_bytes: most bytes of a request's body; more are answered by 413.
        max_waiting: most samples that wait; more are answered by 503.
    """
    if not isinstance(source, Source):
        raise ValueError(
            "`source` must be of kf.serving.from_export or from_preset. "
            f"Received: {type(source).__name__}."
        )
    if not isinstance(sizes, (list, tuple)) or not sizes:
        raise ValueError(
            f"`sizes` must be a tuple of batch sizes. Received: {sizes!r}."
        )
    sizes = [SIZE("sizes", size) for size in sizes]
    batcher = Batcher(source.run, sizes, wait_ms, max_waiting)
    answered = {"requests": 0}

    @contextlib.asynccontextmanager
    async def lifespan(app):
        key = source.num_steps, source.guidance_scale
        for size in batcher.sizes:
            await asyncio.to_thread(
                source.run, rows_for_warming(source, size), *key
            )
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()

    app = fastapi.FastAPI(title="keras_flows", lifespan=lifespan)
    app.add_middleware(BodyLimit, max_bytes=max_bytes)

    @app.get("/", response_class=HTMLResponse)
    def page():
        return PAGE.read_text()

    @app.get("/model")
    def model():
        return {
            "name": source.name,
            "sample_shape": source.noise,
            "inputs": source.inputs,
            "num_steps": source.num_steps,
            "guidance_scale": source.guidance_scale,
            "fixed": source.fixed,
            "null_label": source.null_label,
            "highest_label": source.highest_label,
            "max_samples": max_samples,
            "max_steps": MAX_STEPS,
        }

    @app.get("/stats")
    def stats():
        return {
            "requests": answered["requests"],
            "batches": batcher.batches,
            "rows": batcher.rows,
            "padded_rows": batcher.padded,
            "waiting_rows": sum(job.rows for job in batcher.waiting),
        }

    @app.post("/sample")
    async def sample(request: Request):
        start = time.perf_counter()
        rows, inputs = checked_rows(source, request, max_samples)
        settings = checked_settings(source, request)
        seed = secrets.randbits(53) if request.seed is None else request.seed
        # The noise of `generate(seed=...)`.
        rng = np.random.Generator(np.random.Philox(seed))
        shape = (rows, *source.noise)
        inputs["noise"] = rng.standard_normal(shape, dtype="float32")
        try:
            samples = await batcher.submit(settings, inputs)
        except Overloaded:
            raise fastapi.HTTPException(
                503,
                "Too many samples wait; try again.",
                headers={"Retry-After": "1"},
            ) from None
        answer = {
            "samples": as_png(samples, source.value_range)
            if request.encoding == "png"
            else samples.tolist(),
            "shape": samples.shape,
            "seed": seed,
            "num_steps": settings[0],
            "guidance_scale": settings[1],
            "milliseconds": 1e3 * (time.perf_counter() - start),
        }
        answered["requests"] += 1
        return JSONResponse(answer)

    return app


def wrong(field, message):
    """The 422 that names a field."""
    return RequestValidationError(
        [{"loc": ("body", *field.split(".")), "msg": message, "type": "value"}]
    )


def checked_settings(source, request):
    """(num_steps, guidance_scale) of a request."""
    settings = []
    for field in ("num_steps", "guidance_scale"):
        own, asked = getattr(source, field), getattr(request, field)
        if asked is not None and asked != own and source.fixed:
            raise wrong(field, f"It is {own} in the exported file.")
        settings.append(own if asked is None else asked)
    if settings[1] != 1.0 and source.null_label is None:
        raise wrong("guidance_scale", "The model has no null label; use 1.0.")
    return tuple(settings)


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
        name: checked_array(*field, *source.inputs[name], source)
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


def checked_array(field, value, shape, dtype, source):
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
        highest, null = source.highest_label, source.null_label
        null = null if isinstance(null, int) else None
        highest = null if highest is None else highest
        labels = Labels(source.name, highest, null, None)
        try:
            labels.check(array)
        except ValueError:
            raise wrong(field, f"Labels go from {labels.span()}.") from None
    array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise wrong(field, "Must be finite.")
    return array


def as_png(samples, value_range):
    """Images (B, H, W, 1 or 3) as base64 PNG files."""
    from PIL import Image

    if samples.ndim != 4 or samples.shape[-1] not in (1, 3):
        raise wrong("encoding", "Only images of 1 or 3 channels have PNG.")
    low, high = value_range
    pixels = np.clip((samples - low) / (high - low), 0.0, 1.0) * 255.0
    files = []
    for image in np.rint(pixels).astype("uint8"):
        file = io.BytesIO()
        image = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(image).save(file, "PNG")
        files.append(base64.b64encode(file.getvalue()).decode())
    return files
