"""The health server: ``/live``, ``/ready`` and ``/health``. In the link thread, so a blocked skill is no outage.

Three answers to GET and HEAD are all the HTTP it needs. Doing that here instead of importing a web framework saves
every worker 13 MiB and 0.1 s of its start (measured, bench/README.md).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec

from avtomatika_worker.errors import ConfigError

_log: Final = logging.getLogger("avtomatika_worker.health")

_HEAD_LIMIT: Final = 16 * 1024
"""Bytes that a request's head may have."""

_REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request and take the answer."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the worker knows of its own health. A reason is None when all is well."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, Any]


class HealthServer:
    """Answers 200 or 503 with a reason. ``probe`` is asked for every request."""

    def __init__(self, host: str, port: int, probe: Callable[[], Health]) -> None:
        self._host = host
        self._port = port
        self._probe = probe
        self.bound_port: int | None = None

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConfigError` when the port cannot be had."""
        connections: set[_Connection] = set()
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(lambda: _Connection(self.answer, connections), self._host, self._port)
        except OSError as error:
            problem = f"WORKER_PORT={self._port}: the health server cannot listen on {self._host}: {error.strerror}"
            raise ConfigError([f"{problem}; choose another port, 0 for any, or --no-health-check"]) from error
        try:
            self.bound_port = server.sockets[0].getsockname()[1]
            _log.info("health server on port %d", self.bound_port, extra={"action": "health_server_started"})
            await asyncio.Event().wait()
        finally:
            server.close()
            for connection in list(connections):
                connection.end()

    def answer(self, method: str, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        """Return the status and the body for a request."""
        if path not in {"/live", "/ready", "/health"}:
            return HTTPStatus.NOT_FOUND, {"error": "not found"}
        if method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, {"error": "method not allowed"}
        health = self._probe()
        if path == "/health":
            return HTTPStatus.OK, {
                "live": health.not_live is None,
                "ready": health.not_ready is None,
                "not_live": health.not_live,
                "not_ready": health.not_ready,
                **health.details,
            }
        problem = health.not_live if path == "/live" else health.not_ready
        if problem is None:
            return HTTPStatus.OK, {"status": "ok"}
        return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "failing", "reason": problem}


class _Connection(asyncio.Protocol):
    """One request and its answer; then the connection is closed."""

    def __init__(
        self, answer: Callable[[str, str], tuple[HTTPStatus, dict[str, Any]]], connections: set[_Connection]
    ) -> None:
        self._answer = answer
        self._connections = connections
        self._head = bytearray()
        self._answered = False
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._timer = asyncio.get_running_loop().call_later(_REQUEST_TIMEOUT, self.end)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer when the head is complete; a body is not read."""
        if self._answered:
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._respond(*_parsed(self._head))
        elif len(self._head) > _HEAD_LIMIT:
            self._write(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "the head is too long"})

    def end(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _respond(self, method: str, path: str) -> None:
        if not method:
            self._write(HTTPStatus.BAD_REQUEST, {"error": "not an HTTP request"})
            return
        self._write(*self._answer(method, path), head_only=method == "HEAD")

    def _write(self, status: HTTPStatus, body: dict[str, Any], *, head_only: bool = False) -> None:
        self._answered = True
        content = msgspec.json.encode(body)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        )
        if self._transport is not None:
            self._transport.write(head.encode() + (b"" if head_only else content))
            self._transport.close()


def _parsed(head: bytes | bytearray) -> tuple[str, str]:
    """Return the method and the path, without a query; empty texts when this is no HTTP request."""
    parts = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return "", ""
    return parts[0], parts[1].partition("?")[0]
