"""The health server: ``/live``, ``/ready``, ``/health`` and ``/metrics``.

The standard library's, in threads of its own: nothing that a skill does is an outage of it, and unlike a web framework
it costs a worker neither 13 MiB nor 0.1 s of its start (bench/README.md).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.host import listener_on

_log: Final = logging.getLogger("avtomatika_worker.health")

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request and take the answer."""

MOST_REQUESTS: Final = 32
"""Requests that are answered at the same time; further clients are hung up on."""

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
        self._opened: tuple[_Server, socket.socket, threading.Thread] | None = None

    def open(self) -> None:
        """Listen and answer from now on. Raises `ConfigError` when the port cannot be had."""
        if self._opened is not None:
            return
        try:
            server = _server(self._host, self._port, self.answer)
        except OSError as error:
            raise ConfigError([_explained(error, self._host, self._port)]) from error
        stop, told_to_stop = socket.socketpair()
        thread = threading.Thread(target=server.serve_until, args=(told_to_stop,), name="health", daemon=True)
        thread.start()
        self._opened = server, stop, thread
        if not isinstance(server, _UnixServer):
            self.bound_port = server.server_address[1]
            _log.info("health server on port %d", self.bound_port, extra={"action": "health_server_started"})

    def close(self) -> None:
        """Answer no more."""
        opened, self._opened = self._opened, None
        if opened is not None:
            server, stop, thread = opened
            stop.close()
            thread.join()
            server.server_close()

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


def _server(host: str, port: int, answer: Callable[[str], Answer]) -> _Server:
    if host.startswith(UNIX_PREFIX):
        return _UnixServer(host.removeprefix(UNIX_PREFIX), answer)
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return _Server(family, (host, port), answer)


class _Server(ThreadingHTTPServer):
    """Listens on any of the host's addresses; requests never outlive the process."""

    daemon_threads = True
    timeout = 0.0  # `handle_request` does not wait for who has gone before being let in

    def __init__(self, family: int, address: Any, answer: Callable[[str], Answer]) -> None:
        self._room = threading.BoundedSemaphore(MOST_REQUESTS)
        self.answer = answer
        self.address_family = family
        super().__init__(address, _Handler)

    def serve_until(self, stop: socket.socket) -> None:
        """Serve until the other end of ``stop`` is closed. The base class would look ten times a second for its end."""
        with stop, selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            selector.register(stop, selectors.EVENT_READ)
            while all(key.fileobj is not stop for key, _ in selector.select()):
                self.handle_request()

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which the base class does and which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; hang up when there are too many already."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the base class calls it
        """Say nothing where a client went away in the middle."""
        _log.debug("a request to the health server failed", exc_info=True)


class _UnixServer(_Server):
    """Listens on a Unix socket; the file is there as long as it listens."""

    def __init__(self, path: str, answer: Callable[[str], Answer]) -> None:
        self._path = Path(path)
        super().__init__(socket.AF_UNIX, path, answer)

    def server_close(self) -> None:
        """Close the socket and remove its file."""
        super().server_close()
        self._path.unlink(missing_ok=True)


class _Handler(BaseHTTPRequestHandler):
    """One request. HTTP/1.0: the connection ends with the answer."""

    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride] - set by the base class, once
    timeout = REQUEST_TIMEOUT
    server_version = "avtomatika-worker"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without the body."""
        self._respond(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing: a record for each probe tells nobody anything."""

    def _respond(self, *, with_body: bool) -> None:
        answer = self.server.answer(self.path.partition("?")[0])
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)


def _explained(error: OSError, host: str, port: int) -> str:
    """Say why the port cannot be had; what is wrong may be the address."""
    at = f"the health server cannot listen at {host}:{port}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"WORKER_HEALTH_HOST={host}: {at}; name an address of this machine, 0.0.0.0 for all of them"
    owner = listener_on(port) if error.errno == errno.EADDRINUSE else None
    by = f" by {owner}" if owner else ""
    return f"WORKER_PORT={port}: {at}{by}; choose another port, 0 for any, or --no-health-check"
