"""The health server: ``/live``, ``/ready``, ``/health`` and ``/metrics``.

It has its own thread and event loop: no skill can take it down, and unlike a web framework it costs a worker neither
13 MiB nor 0.1 s of startup (bench/README.md). Waiting connections need no thread each, so that idle ones never keep
probes out.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import ConfigError
from avtomatika_worker.monitoring.probe_server import MOST_CONNECTIONS, PATHS, Answer, Serving, health_answer
from avtomatika_worker.observability.host import listener_at

_log: Final = logging.getLogger("avtomatika_worker.health")

UNIX_PREFIX: Final = "unix:"
"""The prefix of a host that is the path of a Unix socket."""


class Health(msgspec.Struct, frozen=True):
    """The worker's own view of its health. A reason is None if all is well."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, Any]


class HealthServer:
    """Answers 200 or 503 with a reason; ``probe`` is called for every request, in a thread of the server.

    ``scrape``, if set, returns the answer of ``/metrics`` and its content type.
    """

    def __init__(
        self, host: str, port: int, probe: Callable[[], Health], scrape: Callable[[], tuple[bytes, str]] | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._probe = probe
        self._scrape = scrape
        self.bound_port: int | None = None
        self._serving: Serving | None = None

    def open(self) -> None:
        """Listen and answer from now on. Raises `ConfigError` if the port is not available."""
        if self._serving is not None:
            return
        try:
            listener = _listener(self._host, self._port)
        except OSError as error:
            raise ConfigError([_explained(error, self._host, self._port)]) from error
        serving = Serving(listener, self.answer)
        serving.start()
        self._serving = serving
        if not self._host.startswith(UNIX_PREFIX):
            self.bound_port = listener.getsockname()[1]
            _log.info("health server on port %d", self.bound_port, extra={"action": "health_server_started"})

    def close(self) -> None:
        """Stop answering."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()
            _remove_socket(self._host)

    async def run(self) -> None:
        """Serve until cancelled. Raises `ConfigError` if the port is not available."""
        self.open()
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    @property
    def descriptor(self) -> int | None:
        """The port of the listening socket, or None."""
        return None if self._serving is None else self._serving.descriptor

    def answer(self, path: str) -> Answer:
        """Return the answer to a request for ``path``. May be called from any thread."""
        if path == "/metrics" and self._scrape is not None:
            body, content_type = self._scrape()
            return Answer(HTTPStatus.OK, body, content_type)
        if path not in PATHS:
            return Answer(HTTPStatus.NOT_FOUND, b'{"error":"not found"}')
        health = self._probe()
        return health_answer(
            path,
            not_live=health.not_live,
            not_ready=health.not_ready,
            details=health.details,
            encode=msgspec.json.encode,
        )


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError."""
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


def _explained(error: OSError, host: str, port: int) -> str:
    """Return why the port is not available; the address may be the problem."""
    at = f"the health server cannot listen at {host}:{port}: {(error.strerror or str(error)).lower()}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"WORKER_HEALTH_HOST={host}: {at}; use an address of this machine, or 0.0.0.0 for all of them"
    holder = listener_at(port) if error.errno == errno.EADDRINUSE else None
    held = f" by {holder}" if holder is not None else ""
    return f"WORKER_PORT={port}: {at}{held}; choose another port, 0 for any, or --no-health-check"
