"""The process around the application: connections, signals, the address."""

import errno
import logging
import os
import socket
import sys
import threading

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)

# More are answered by 503; above some more they are cut.
MAX_CONNECTIONS = 768
MOST_CONNECTIONS = MAX_CONNECTIONS * 9 // 8
# How long a request's head may take, and an answer stay where it is.
HEAD_SECONDS = 10.0
STALLED_SECONDS = 10.0
STOP_SECONDS = 10
MAX_HEAD = 1 << 14


class Protocol(H11Protocol):
    """HTTP/1.1 on a connection that cannot be held for nothing."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self.unread, self.unread_since = 0, 0.0
        self.head_since = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        elif len(self.connections) > MAX_CONNECTIONS:
            # The application reads it, and answers 503.
            self.app_state = {**self.app_state, "crowded": True}

    def data_received(self, data):
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self.head_since = None
        elif self.head_since is None:
            self.head_since = self.loop.time()

    def check(self):
        """Cut a connection whose client neither asks nor reads."""
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if unread != self.unread:
            self.unread, self.unread_since = unread, now
        stalled = unread and now - self.unread_since > STALLED_SECONDS
        headless = (
            self.head_since is not None and now - self.head_since > HEAD_SECONDS
        )
        if stalled or headless:
            self.transport.abort()


class Server(uvicorn.Server):
    """Tells where it is, looks after its connections, and ends with 0."""

    def __init__(self, config, house, address):
        super().__init__(config)
        self.house, self.address = house, address

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started:
            print(f"Ready: {self.address}", flush=True)

    async def on_tick(self, counter):
        # Ten times a second.
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                connection.check()
        return await super().on_tick(counter)

    async def shutdown(self, sockets=None):
        self.house.stopping = True
        await super().shutdown(sockets)

    def handle_exit(self, sig, frame):
        # The base class would raise the signal again at its end, so that the
        # process died of it.
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class Unbound(Exception):
    """The address cannot be listened on; the message is a sentence."""

    def __init__(self, host, port, error):
        if error.errno == errno.EADDRINUSE:
            told = (
                f"Port {port} of {host} is in use: choose another by --port, "
                "or 0 for any that is free."
            )
        else:
            told = (
                f"{host}, port {port}, cannot be listened on "
                f"({error.strerror}): see --host and --port."
            )
        super().__init__(told)


def bind(host, port):
    """A socket that is bound to an address, and does not listen yet.

    Raises:
        Unbound: saying why not, and what to write instead.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise Unbound(host, port, error) from None
    return found


def serve(service, found, host):
    """Answer requests on a bound socket until SIGTERM or SIGINT.

    Requests that are in work by then are answered, within STOP_SECONDS; the
    process ends with 0.

    Args:
        service: of `create_app`.
        found: of `bind`.
        host: the name that was asked for, for the line that tells it is ready.

    Raises:
        Unbound: if another process has begun to listen there.
    """
    port = found.getsockname()[1]
    asked = host
    if host in ("0.0.0.0", "::", ""):
        host = "localhost"
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        service,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = Server(config, service.state.house, f"http://{shown}:{port}")
    try:
        server.run([found])
    except OSError as error:
        raise Unbound(asked, port, error) from None
    end()


def end():
    """End the process with 0, though a batch may still be sampled.

    Python would wait for its thread, however long it takes.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    running = [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and not thread.daemon
    ]
    for thread in running:
        thread.join(0.5)
    if any(thread.is_alive() for thread in running):
        log.warning("a batch is still sampled; it is not waited for")
        os._exit(0)
