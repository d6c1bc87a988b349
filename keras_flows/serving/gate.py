"""What every request passes: its host, its body, its client, the log.

An ASGI middleware around the whole application. The head of a request, and
the number of connections, are the server's business (`serving.server`).
"""

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import re
import time
import uuid

from fastapi.responses import JSONResponse

log = logging.getLogger(__name__)

# Of every answer. A route that shows a page sends a policy of its own.
HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]/@\s]+)(:\d*)?")
LOCAL = ("localhost", "127.0.0.1", "::1")
# Answers go out in pieces, so that one that is not read does not pile up.
PIECE = 1 << 16
# The slowest that an answer may be read, bytes a second, after SLACK seconds.
SLOWEST = 1 << 20
SLACK = 10.0
# A client that left before its answer, in the log and the metrics.
GONE = 499


CLOSE = {"connection": "close"}
LATER = {"retry-after": "1"}


class Refused(Exception):
    """An answer without the application."""

    def __init__(self, status, reason, headers=None, drain=0.0):
        super().__init__(reason)
        self.status, self.headers, self.drain = status, headers, drain


class Gone(Exception):
    """The client left, or does not read."""


@dataclasses.dataclass
class Exchange:
    """One request and its answer."""

    scope: dict
    receive: object
    send: object
    id: str
    start: float
    status: int | None = None
    complete: bool = False
    left: bool = False

    async def departure(self):
        """Wait until the client leaves, or has its answer."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.left = True

    async def answer(self, message):
        """Send a message, with the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {name.lower() for name, _ in message["headers"]}
            added = HEADERS | {"x-request-id": self.id}
            message["headers"] = [
                *message["headers"],
                *(
                    (name.encode(), value.encode())
                    for name, value in added.items()
                    if name.encode() not in given
                ),
            ]
            await self.send(message)
            return
        body = memoryview(message.get("body", b""))
        more = message.get("more_body", False)
        try:
            async with asyncio.timeout(SLACK + len(body) / SLOWEST):
                for first in range(0, max(len(body), 1), PIECE):
                    if first:
                        # Sending to a client that left is no error.
                        await asyncio.sleep(0)
                        if self.left:
                            raise Gone
                    last = first + PIECE >= len(body)
                    await self.send(
                        {
                            "type": "http.response.body",
                            "body": bytes(body[first : first + PIECE]),
                            "more_body": more or not last,
                        }
                    )
        except TimeoutError:
            raise Gone from None
        self.complete = not more

    async def refuse(self, refusal):
        """Answer by a refusal, unless an answer has begun.

        With `refusal.drain` seconds, what still comes of a body is thrown
        away for so long: a connection that is closed on a client that sends
        is reset, and the answer lost.
        """
        if self.status is not None:
            return

        async def unfinished(message):
            await self.answer(message | {"more_body": True})

        content = {"detail": str(refusal), "request_id": self.id}
        response = JSONResponse(content, refusal.status, refusal.headers)
        await response(self.scope, self.receive, unfinished)
        if refusal.drain:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(refusal.drain):
                    while (await self.receive()).get("more_body", False):
                        pass
        await self.answer({"type": "http.response.body"})


class Gate:
    """The middleware.

    Args:
        app: the ASGI application.
        metrics: a `Metrics`.
        paths: those that are counted by their names.
        hosts: names of this service beside the local ones and the address
            that a request came to; "*.example.com" is every name below, "*"
            any.
        max_bytes: most bytes of a body.
        max_held: most bytes of all bodies that are not read to their end.
        body_seconds: how long a body may take.
    """

    def __init__(
        self, app, metrics, paths, hosts, max_bytes, max_held, body_seconds
    ):
        self.app, self.metrics, self.paths = app, metrics, paths
        self.hosts = tuple(host.lower() for host in hosts)
        self.max_bytes, self.max_held = max_bytes, max_held
        self.body_seconds = body_seconds
        self.held = 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin")
        name = given if ID.fullmatch(given) else uuid.uuid4().hex
        exchange = Exchange(scope, receive, send, name, time.perf_counter())
        # What the application gives back after its answer is read.
        scope["keras_flows.after"] = after = contextlib.ExitStack()
        failed = None
        try:
            with after:
                await self._handle(exchange)
        except Refused as refusal:
            await exchange.refuse(refusal)
        except Gone:
            exchange.status = GONE
        except asyncio.CancelledError:
            # The server ends and waits no longer.
            await exchange.refuse(
                Refused(503, "The service ends.", LATER | CLOSE)
            )
        except Exception as error:
            failed = error
            reason = "Sampling failed; the log tells more under request_id."
            await exchange.refuse(Refused(500, reason))
        self._record(exchange, failed)

    async def _handle(self, exchange):
        scope = exchange.scope
        headers = dict(scope["headers"])
        self._check_host(headers.get(b"host", b"").decode("latin"), scope)
        if scope.get("state", {}).get("crowded"):
            reason = "Too many connections; try again."
            raise Refused(503, reason, LATER | CLOSE)
        body = await self._body(exchange, headers)
        messages = iter([{"type": "http.request", "body": body}])

        async def replay():
            message = next(messages, None)
            # That the client leaves is seen to here.
            return message or await asyncio.Future()

        task = asyncio.create_task(self.app(scope, replay, exchange.answer))
        watch = asyncio.create_task(exchange.departure())
        try:
            await asyncio.wait(
                {task, watch}, return_when=asyncio.FIRST_COMPLETED
            )
            if not task.done() and not exchange.complete:
                raise Gone
            await task
        finally:
            for one in (task, watch):
                one.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    def _check_host(self, given, scope):
        host = host_of(given)
        reached = scope["server"][0] if scope.get("server") else None
        if "*" in self.hosts or host in (*LOCAL, reached):
            return
        if host and any(fits_host(host, pattern) for pattern in self.hosts):
            return
        raise Refused(
            400,
            f"This service is not {given[:100]!r}. Name the hosts that it is "
            "reached by in --allowed_hosts.",
        )

    async def _body(self, exchange, headers):
        """The whole body, within the limits."""
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.max_bytes:
            raise self._too_long()
        body = bytearray()
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await exchange.receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    piece = message.get("body", b"")
                    body += piece
                    self.held += len(piece)
                    if len(body) > self.max_bytes:
                        raise self._too_long()
                    if not message.get("more_body", False):
                        return bytes(body)
                    if self.held > self.max_held:
                        reason = "Too many unfinished bodies; try again."
                        raise Refused(503, reason, LATER | CLOSE)
        except TimeoutError:
            reason = f"The body took more than {self.body_seconds:g} seconds."
            raise Refused(408, reason, CLOSE) from None
        finally:
            self.held -= len(body)

    def _too_long(self):
        reason = f"The body is above {self.max_bytes} bytes."
        return Refused(413, reason, CLOSE, drain=self.body_seconds)

    def _record(self, exchange, failed):
        scope = exchange.scope
        seconds = time.perf_counter() - exchange.start
        path = scope["path"] if scope["path"] in self.paths else "other"
        status = GONE if exchange.status is None else exchange.status
        self.metrics.request(path, status, seconds)
        # As it was sent: without escapes it could hold lines of its own.
        raw = scope.get("raw_path") or b""
        log.log(
            logging.INFO if failed is None else logging.ERROR,
            "%s %s %s %s %.1f ms",
            exchange.id,
            scope["method"],
            raw[:200].decode("ascii", "replace"),
            status,
            1e3 * seconds,
            exc_info=failed,
        )


def host_of(header):
    """The name or address in a Host header, in lower case, without a port."""
    found = HOST.fullmatch(header.lower())
    if found is None:
        return None
    host = found[1].strip("[]").rstrip(".")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host


def fits_host(host, pattern):
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == host_of(pattern)
