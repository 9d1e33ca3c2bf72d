"""The health server: ``/live``, ``/ready``, ``/health`` and ``/metrics``.

In a thread and an event loop of its own: nothing that a skill does is an outage of it, and unlike a web framework it
costs a worker neither 13 MiB nor 0.1 s of its start (bench/README.md). Connections wait without a thread each, so that
any number of idle ones keeps no probe out.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker._forks import close_in_forked_children
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.host import listener_at

_log: Final = logging.getLogger("avtomatika_worker.health")

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request and take the answer, all together."""

MOST_CONNECTIONS: Final = 128
"""Connections at the same time, or an eighth of the limit of open files; the oldest makes room for another."""

MOST_REQUESTS: Final = 32
"""Requests that are answered at the same time; further clients are hung up on."""

_LONGEST_HEAD: Final = 16 * 1024
_JOIN_TIMEOUT: Final = 2.0
_METHODS: Final = frozenset({"GET", "HEAD"})

UNIX_PREFIX: Final = "unix:"
"""What a host begins with that is the path of a Unix socket."""

_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Health:
    """What the worker knows of its own health. A reason is None when all is well."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with."""

    status: HTTPStatus
    body: bytes
    content_type: str = _JSON


class HealthServer:
    """Answers 200 or 503 with a reason; ``probe`` is asked for every request, in a thread of the server's.

    ``scrape``, if there is one, returns what ``/metrics`` answers, and its content type.
    """

    def __init__(
        self, host: str, port: int, probe: Callable[[], Health], scrape: Callable[[], tuple[bytes, str]] | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._probe = probe
        self._scrape = scrape
        self.bound_port: int | None = None
        self._serving: _Serving | None = None

    def open(self) -> None:
        """Listen and answer from now on. Raises `ConfigError` when the port cannot be had."""
        if self._serving is not None:
            return
        try:
            listener = _listener(self._host, self._port)
        except OSError as error:
            raise ConfigError([_explained(error, self._host, self._port)]) from error
        serving = _Serving(listener, self.answer)
        serving.start()
        self._serving = serving
        if not self._host.startswith(UNIX_PREFIX):
            self.bound_port = listener.getsockname()[1]
            _log.info("health server on port %d", self.bound_port, extra={"action": "health_server_started"})

    def close(self) -> None:
        """Answer no more."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()
            _remove_socket(self._host)

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConfigError` when the port cannot be had."""
        self.open()
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    def answer(self, path: str) -> Answer:
        """Return what a request for ``path`` is answered with. Called in any thread."""
        if path == "/metrics" and self._scrape is not None:
            body, content_type = self._scrape()
            return Answer(HTTPStatus.OK, body, content_type)
        if path not in {"/live", "/ready", "/health"}:
            return Answer(HTTPStatus.NOT_FOUND, b'{"error":"not found"}')
        health = self._probe()
        if path == "/health":
            return Answer(HTTPStatus.OK, msgspec.json.encode(_in_full(health)))
        problem = health.not_live if path == "/live" else health.not_ready
        if problem is None:
            return Answer(HTTPStatus.OK, b'{"status":"ok"}')
        body = msgspec.json.encode({"status": "failing", "reason": problem})
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, body)


def _in_full(health: Health) -> dict[str, Any]:
    return {
        "live": health.not_live is None,
        "ready": health.not_ready is None,
        "not_live": health.not_live,
        "not_ready": health.not_ready,
        **health.details,
    }


def _listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises OSError."""
    address: str | tuple[str, int] = (host, port)
    if host.startswith(UNIX_PREFIX):
        family, address = socket.AF_UNIX, host.removeprefix(UNIX_PREFIX)
    else:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(MOST_CONNECTIONS)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_socket(host: str) -> None:
    if host.startswith(UNIX_PREFIX):
        Path(host.removeprefix(UNIX_PREFIX)).unlink(missing_ok=True)


def _most_connections() -> int:
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(MOST_CONNECTIONS, files // 8))


def _nothing() -> None:
    """Take nothing back."""


class _Serving:
    """Serves ``listener`` in a thread, until `stop`."""

    def __init__(self, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._listener = listener
        self._answer = answer
        self._most = _most_connections()
        self._connections: dict[_Connection, None] = {}  # the oldest first
        self._answering = 0
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        self._take_back: Callable[[], None] = _nothing
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="health", daemon=True)

    def start(self) -> None:
        """Start the thread; on return it serves."""
        # A child that a skill has forked would hold the port long after this worker.
        self._take_back = close_in_forked_children(self._listener.fileno())
        try:
            self._thread.start()
            self._loop.result()
        except BaseException:
            self._take_back()
            self._listener.close()
            raise

    def stop(self) -> None:
        """Serve no more; connections are closed."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.result().call_soon_threadsafe(self._end.set)
        self._thread.join(_JOIN_TIMEOUT)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: _Connection(self), sock=self._listener, backlog=MOST_CONNECTIONS)
        except BaseException as error:
            self._loop.set_exception(error)
            raise
        self._loop.set_result(loop)
        try:
            await self._end.wait()
        finally:
            self._take_back()
            server.close()
            for connection in list(self._connections):
                connection.hang_up()
            await asyncio.sleep(0)

    # ------------------------------------------------------------------------------------ called by connections

    def opened(self, connection: _Connection) -> None:
        """Take note of a connection; when there are too many, the oldest goes."""
        self._connections[connection] = None
        if len(self._connections) > self._most:
            next(iter(self._connections)).hang_up()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._connections.pop(connection, None)

    def answer(self, connection: _Connection, path: str, *, with_body: bool) -> None:
        """Answer in a thread: a probe may have to ask other processes. Hang up when there are too many already."""
        if self._answering >= MOST_REQUESTS:
            connection.hang_up()
            return
        self._answering += 1
        loop = asyncio.get_running_loop()

        def done(answer: Answer) -> None:
            self._answering -= 1
            connection.send(answer, with_body=with_body)

        def work() -> None:
            try:
                answer = self._answer(path)
            except Exception:  # noqa: BLE001 - whatever the probe raises, the server goes on
                _log.debug("a request to the health server failed", exc_info=True)
                answer = Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error":"internal error"}')
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done, answer)

        threading.Thread(target=work, name="health-request", daemon=True).start()


class _Connection(asyncio.Protocol):
    """One request. HTTP/1.0: the connection ends with the answer."""

    def __init__(self, serving: _Serving) -> None:
        self._serving = serving
        self._head = b""
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._take_back: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the time that the client has."""
        self._transport = transport if isinstance(transport, asyncio.Transport) else None
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, self.hang_up)
        # A forked child that has the connection as well would keep it open: the client waits for its end.
        self._take_back = close_in_forked_children(transport.get_extra_info("socket").fileno())
        self._serving.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as it is called
        """Make room for another."""
        self._take_back()
        if self._deadline is not None:
            self._deadline.cancel()
        self._serving.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read the request's head; what follows it is of no interest."""
        if self._asked:
            return
        self._head += data
        if b"\r\n\r\n" in self._head or b"\n\n" in self._head:
            self._asked = True
            self._ask(self._head.split(b"\n", 1)[0].decode("latin-1").split())
        elif len(self._head) > _LONGEST_HEAD:
            self._asked = True
            self.send(Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b'{"error":"too long"}'), with_body=True)

    def _ask(self, words: list[str]) -> None:
        if len(words) != 3 or not words[2].startswith("HTTP/"):
            self.send(Answer(HTTPStatus.BAD_REQUEST, b'{"error":"not HTTP"}'), with_body=True)
        elif words[0] not in _METHODS:
            self.send(Answer(HTTPStatus.NOT_IMPLEMENTED, b'{"error":"GET and HEAD only"}'), with_body=True)
        else:
            self._serving.answer(self, words[1].partition("?")[0], with_body=words[0] == "GET")

    def send(self, answer: Answer, *, with_body: bool) -> None:
        """Send the answer, and close behind it."""
        if self._transport is None or self._transport.is_closing():
            return
        head = (
            f"HTTP/1.0 {answer.status.value} {answer.status.phrase}\r\nServer: avtomatika-worker\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + (answer.body if with_body else b""))
        self._transport.close()

    def hang_up(self) -> None:
        """Close at once."""
        self._serving.closed(self)
        if self._transport is not None:
            self._transport.abort()


def _explained(error: OSError, host: str, port: int) -> str:
    """Say why the port cannot be had; what is wrong may be the address."""
    at = f"the health server cannot listen at {host}:{port}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"WORKER_HEALTH_HOST={host}: {at}; name an address of this machine, 0.0.0.0 for all of them"
    holder = listener_at(port) if error.errno == errno.EADDRINUSE else None
    held = f" by {holder}" if holder is not None else ""
    return f"WORKER_PORT={port}: {at}{held}; choose another port, 0 for any, or --no-health-check"
