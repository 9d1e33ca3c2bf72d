"""Serves the health server's answers: HTTP/1.0 with deadlines, in its own thread and event loop.

It imports only the standard library: the small heartbeat process uses it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from avtomatika_worker._boundaries import caught
from avtomatika_worker._forks import close_in_forked_children

_log: Final = logging.getLogger("avtomatika_worker.health")

REQUEST_TIMEOUT: Final = 5.0
"""Seconds in total for a client to send its request and read the answer."""

MOST_CONNECTIONS: Final = 128
"""The most connections, or an eighth of the open file limit; the oldest makes room for a new one."""

MOST_REQUESTS: Final = 32
"""The most requests answered at the same time; further clients are disconnected."""

PATHS: Final = frozenset({"/live", "/ready", "/health"})
"""The paths of health checks."""

_LONGEST_HEAD: Final = 16 * 1024
_JOIN_TIMEOUT: Final = 2.0
_METHODS: Final = frozenset({"GET", "HEAD"})

_JSON: Final = "application/json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: HTTPStatus
    body: bytes
    content_type: str = _JSON


def _most_connections() -> int:
    if sys.platform == "win32":
        return MOST_CONNECTIONS
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(8, min(MOST_CONNECTIONS, files // 8))


def _nothing() -> None:
    """Take nothing back."""


def health_answer(
    path: str,
    *,
    not_live: str | None,
    not_ready: str | None,
    details: Mapping[str, object],
    encode: Callable[[object], bytes],
) -> Answer:
    """Return the answer to a request for ``path``, one of `PATHS`. A reason is None if all is well."""
    if path == "/health":
        facts = {"live": not_live is None, "ready": not_ready is None, "not_live": not_live, "not_ready": not_ready}
        return Answer(HTTPStatus.OK, encode({**facts, **details}))
    problem = not_live if path == "/live" else not_ready
    if problem is None:
        return Answer(HTTPStatus.OK, b'{"status":"ok"}')
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, encode({"status": "failing", "reason": problem}))


class Connections:
    """The connections of one event loop. ``answer`` is called for every request, in its own thread."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self._most = _most_connections()
        self._open: dict[_Connection, None] = {}  # the oldest first
        self._answering = 0

    def make(self) -> asyncio.Protocol:
        """Make the protocol of an accepted connection."""
        return _Connection(self)

    def opened(self, connection: _Connection) -> None:
        """Add a connection; if there are too many, close the oldest."""
        self._open[connection] = None
        if len(self._open) > self._most:
            next(iter(self._open)).hang_up()

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._open.pop(connection, None)

    def hang_up(self) -> None:
        """Close all of them."""
        for connection in list(self._open):
            connection.hang_up()

    def answer(self, connection: _Connection, path: str, *, with_body: bool) -> None:
        """Answer in a thread, as a probe may query other processes. Disconnect if there are already too many."""
        if self._answering >= MOST_REQUESTS:
            connection.hang_up()
            return
        self._answering += 1
        loop = asyncio.get_running_loop()

        def done(answer: Answer) -> None:
            self._answering -= 1
            connection.send(answer, with_body=with_body)

        def work() -> None:
            with caught() as kept:  # whatever the probe raises, the server goes on
                answer = self._answer(path)
            if kept.error is not None:
                answer = _failed(kept.error)
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(done, answer)

        try:
            threading.Thread(target=work, name="health-request", daemon=True).start()
        except RuntimeError:  # the system gives no further thread
            self._answering -= 1
            connection.hang_up()


class Serving:
    """Serves ``listener`` in a thread, until `stop`."""

    def __init__(self, listener: socket.socket, answer: Callable[[str], Answer]) -> None:
        self._listener = listener
        self._connections = Connections(answer)
        self._loop: Future[asyncio.AbstractEventLoop] = Future()
        self._end = asyncio.Event()
        self._take_back: Callable[[], None] = _nothing
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="health", daemon=True)

    @property
    def descriptor(self) -> int:
        """The port of the listening socket."""
        return self._listener.fileno()

    def start(self) -> None:
        """Start the thread; on return it serves."""
        # A child forked by a skill would hold the port long after this worker.
        self._take_back = close_in_forked_children(self._listener.fileno())
        try:
            self._thread.start()
            self._loop.result()
        except BaseException:
            self._take_back()
            self._listener.close()
            raise

    def stop(self) -> None:
        """Stop serving, and close the connections."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.result().call_soon_threadsafe(self._end.set)
        self._thread.join(_JOIN_TIMEOUT)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._connections.make, sock=self._listener, backlog=MOST_CONNECTIONS)
        except BaseException as error:
            self._loop.set_exception(error)
            raise
        self._loop.set_result(loop)
        try:
            await self._end.wait()
        finally:
            self._take_back()
            server.close()
            self._connections.hang_up()
            await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One request. HTTP/1.0: the connection ends with the answer."""

    def __init__(self, among: Connections) -> None:
        self._among = among
        self._head = b""
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._take_back: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the client's time limit."""
        self._transport = transport if isinstance(transport, asyncio.Transport) else None
        self._deadline = asyncio.get_running_loop().call_later(REQUEST_TIMEOUT, self.hang_up)
        # A forked child with the connection would keep it open: the client waits for its end.
        self._take_back = close_in_forked_children(transport.get_extra_info("socket").fileno())
        self._among.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as it is called
        """Make room for another."""
        self._take_back()
        if self._deadline is not None:
            self._deadline.cancel()
        self._among.closed(self)

    def data_received(self, data: bytes) -> None:
        """Read the request's head; the rest is ignored."""
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
            self._among.answer(self, words[1].partition("?")[0], with_body=words[0] == "GET")

    def send(self, answer: Answer, *, with_body: bool) -> None:
        """Send the answer, then close."""
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
        self._among.closed(self)
        if self._transport is not None:
            self._transport.abort()


def _failed(error: BaseException) -> Answer:
    _log.debug("a request to the health server failed", exc_info=error)
    return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error":"internal error"}')
