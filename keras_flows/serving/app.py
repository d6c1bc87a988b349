"""The HTTP service: POST /sample, a page, and what it tells of itself."""

import asyncio
import contextlib
import functools
import math
import secrets
import time

import fastapi
import numpy as np
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.responses import JSONResponse
from fastapi.responses import PlainTextResponse
from fastapi.responses import Response

from keras_flows.ops import given
from keras_flows.ops.scalars import NOT_NEGATIVE
from keras_flows.ops.scalars import POSITIVE
from keras_flows.ops.scalars import SIZE
from keras_flows.ops.scalars import checked
from keras_flows.serving import page
from keras_flows.serving.answers import NotFinite
from keras_flows.serving.answers import check_encoding
from keras_flows.serving.answers import encoded
from keras_flows.serving.batching import Batcher
from keras_flows.serving.batching import Overloaded
from keras_flows.serving.checks import MAX_STEPS
from keras_flows.serving.checks import Request
from keras_flows.serving.checks import checked_rows
from keras_flows.serving.checks import checked_settings
from keras_flows.serving.checks import wrong
from keras_flows.serving.gate import Gate
from keras_flows.serving.gate import Refused
from keras_flows.serving.metrics import Metrics
from keras_flows.serving.sources import Source
from keras_flows.serving.sources import rows_for_warming

PATHS = "/", "/model", "/stats", "/sample", "/metrics", "/healthz", "/readyz"
# Requests that may be in work, as multiples of the largest one's values.
LARGEST_AT_ONCE = 4
# Bodies that are not complete may hold so many bytes together.
MAX_HELD = 1 << 24
# Numbers that are JSON sooner than a thread starts.
FEW = 1 << 12
RETRY = {"retry-after": "1"}


@checked(
    wait_ms=NOT_NEGATIVE,
    max_samples=SIZE,
    max_bytes=SIZE,
    max_waiting=SIZE,
    max_requests=SIZE,
    max_values=SIZE,
    body_seconds=POSITIVE,
)
def create_app(
    source,
    *,
    sizes=(1, 4, 16, 64),
    wait_ms=5.0,
    max_samples=256,
    max_bytes=1 << 20,
    max_waiting=4096,
    max_requests=512,
    max_values=1 << 22,
    body_seconds=10.0,
    allowed_hosts=(),
):
    """The application that serves a `sources.Source`.

    Args:
        source: what to sample from.
        sizes: static batch sizes; all are run once before the first request.
        wait_ms: how long a request waits for others to be sampled with.
        max_samples: most samples of one request; more are answered by 413.
        max_bytes: most bytes of a request's body; more are answered by 413.
        max_waiting: most samples that wait; more are answered by 503.
        max_requests: most requests for samples in work; 503 above.
        max_values: most numbers in the samples of one request (4 bytes each;
            some 20 as JSON); more are answered by 413, and by 503 what would
            make four times as many in all requests in work.
        body_seconds: how long a body may take until it is answered by 408.
        allowed_hosts: names that the service is reached by, "*.example.com"
            for all below one, "*" for any. localhost and the address that a
            request came to always are. Others are answered by 400: a page
            whose name leads to this machine would reach the service.
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
    if not isinstance(allowed_hosts, (list, tuple)):
        raise ValueError(
            "`allowed_hosts` must be a tuple of names. "
            f"Received: {allowed_hosts!r}."
        )
    for host in allowed_hosts:
        given.text("allowed_hosts", host)
    metrics = Metrics(sizes)
    batcher = Batcher(source.run, sizes, wait_ms, max_waiting, metrics.batch)
    house = House(max_requests, LARGEST_AT_ONCE * max_values)
    encoding = asyncio.Semaphore(1)
    default = source.num_steps, source.guidance_scale

    @contextlib.asynccontextmanager
    async def lifespan(app):
        # A model that draws in its steps has a batch for each seed.
        seed = (0,) if source.draws(source.num_steps) else ()
        loop = asyncio.get_running_loop()
        for size in batcher.sizes:
            rows = rows_for_warming(source, size)
            warm = functools.partial(source.run, rows, *default, *seed)
            samples = await loop.run_in_executor(batcher.thread, warm)
        house.sample_shape = np.shape(samples)[1:]
        house.worker = asyncio.create_task(batcher.work())
        yield
        house.worker.cancel()
        batcher.close()

    app = fastapi.FastAPI(
        title="keras_flows", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.house = house
    app.add_middleware(
        Gate,
        metrics=metrics,
        paths=PATHS,
        hosts=allowed_hosts,
        max_bytes=max_bytes,
        max_held=max(MAX_HELD, max_bytes),
        body_seconds=body_seconds,
    )

    @app.exception_handler(RequestValidationError)
    async def malformed(request, error):
        # Without what came: it may be long, or NaN.
        kept = "loc", "msg", "type"
        told = [{name: e[name] for name in kept} for e in error.errors()]
        return JSONResponse({"detail": told}, 422)

    @app.get("/", response_class=HTMLResponse)
    async def show():
        text, policy = page.served()
        return HTMLResponse(text, headers={"content-security-policy": policy})

    @app.get("/model")
    async def model():
        return {
            "name": source.name,
            "sample_shape": source.noise,
            "output_shape": house.sample_shape,
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
    async def stats():
        return {
            "requests": metrics.requests["/sample", 200],
            "batches": sum(metrics.batch_rows.counts),
            "rows": int(metrics.batch_rows.sum),
            "padded_rows": metrics.padded_rows,
            "waiting_rows": batcher.waiting_rows,
        }

    @app.get("/metrics")
    async def numbers():
        gauges = {
            "waiting_rows": ("Samples that wait.", batcher.waiting_rows),
            "requests_in_work": ("Requests for samples.", house.requests),
        }
        return PlainTextResponse(
            metrics.text(gauges), media_type="text/plain; version=0.0.4"
        )

    @app.get("/healthz")
    async def healthy():
        if house.worker is None or house.worker.done():
            raise fastapi.HTTPException(500, "No batch is answered any more.")
        return {"status": "ok"}

    @app.get("/readyz")
    async def ready():
        await healthy()
        if house.stopping or house.requests >= house.max_requests:
            raise fastapi.HTTPException(503, "It takes no requests now.", RETRY)
        return {"status": "ready"}

    @app.post("/sample")
    async def sample(request: Request, http: fastapi.Request):
        start = time.perf_counter()
        rows, inputs = checked_rows(source, request, max_samples)
        settings, draws = checked_settings(source, request)
        check_encoding(request.encoding, house.sample_shape)
        values = rows * max(map(math.prod, (source.noise, house.sample_shape)))
        if values > max_values:
            raise fastapi.HTTPException(
                413,
                f"{rows} samples are {values} numbers; at most {max_values} "
                "are sampled at once.",
            )
        house.admit(values, http.scope["keras_flows.after"])
        seed = secrets.randbits(53) if request.seed is None else request.seed
        # The noise of `generate(seed=...)`.
        rng = np.random.Generator(np.random.Philox(seed))
        shape = (rows, *source.noise)
        inputs["noise"] = rng.standard_normal(shape, dtype="float32")
        key = (*settings, seed) if draws else settings
        try:
            samples = await batcher.submit(key, inputs, whole=draws)
        except Overloaded:
            raise fastapi.HTTPException(
                503, "Too many samples wait; try again.", RETRY
            ) from None
        except ValueError as error:
            if settings == default:
                raise
            field = "num_steps"
            if settings[0] == default[0]:
                field = "guidance_scale"
            raise wrong(field, str(error)) from None
        del inputs
        told = {
            "seed": seed,
            "num_steps": settings[0],
            "guidance_scale": settings[1],
            "milliseconds": 1e3 * (time.perf_counter() - start),
        }
        encode = functools.partial(
            encoded, samples, request.encoding, source.value_range, told
        )
        try:
            if values <= FEW:
                body = encode()
            else:
                # One at a time: JSON takes several times their memory.
                async with encoding:
                    body = await asyncio.to_thread(encode)
        except NotFinite as error:
            content = {"detail": str(error), "not_finite": error.rows}
            return JSONResponse(content | told, 500)
        return Response(body, media_type="application/json")

    return app


class House:
    """How much is in work, and whether more may come.

    Attributes:
        requests: how many requests for samples are in work.
        values: how many numbers their samples hold.
        stopping: whether the server ends.
        worker: the task that answers batches.
        sample_shape: of one sample that is served.
    """

    def __init__(self, max_requests, max_values):
        self.max_requests, self.max_values = max_requests, max_values
        self.requests = self.values = 0
        self.stopping = False
        self.worker = self.sample_shape = None

    def admit(self, values, after):
        """Count a request until its answer is read.

        Args:
            values: how many numbers its samples hold.
            after: `contextlib.ExitStack` that ends then.

        Raises:
            Refused: with 503, if there are too many.
        """
        if (
            self.requests >= self.max_requests
            or self.values + values > self.max_values
        ):
            raise Refused(
                503, "Too many requests are in work; try again.", RETRY
            )
        self.requests += 1
        self.values += values
        after.callback(self._leave, values)

    def _leave(self, values):
        self.requests -= 1
        self.values -= values
