"""Asks a running worker's health server."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from avtomatika_worker.cli.worker_app import UsageProblem
from avtomatika_worker.monitoring.health import UNIX_PREFIX
from avtomatika_worker.protocol.coerce import as_object

TIMEOUT: Final = 5.0
"""Seconds to wait for a response."""

_LONGEST: Final = 32 * 2**20
"""Bytes that a response may have: whoever has the port may send anything."""

_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - reading, not binding


class NoAnswerError(Exception):
    """Nothing answers, or not as a health server would."""


class HealthPort:
    """The address of a worker's health server: a URL, or ``unix:`` and a path."""

    def __init__(self, url: str) -> None:
        """Raises `UsageProblem` if it is neither."""
        self.url = url
        self._socket = Path(url.removeprefix(UNIX_PREFIX)) if url.startswith(UNIX_PREFIX) else None
        parts = urlsplit(url)
        try:
            self._host, self._port = parts.hostname or "", parts.port or 80
        except ValueError as error:
            raise UsageProblem(f"--url {url!r}: {error}") from error
        if self._socket is None and (parts.scheme != "http" or not self._host):
            raise UsageProblem(f"--url {url!r}: write it as http://HOST:PORT, or as unix:PATH")

    def health(self) -> dict[str, Any]:
        """Return the response of ``/health``. Raises `NoAnswerError`."""
        connection = http.client.HTTPConnection(self._host or "localhost", self._port, timeout=TIMEOUT)
        try:
            if self._socket is not None:
                connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                connection.sock.settimeout(TIMEOUT)
                connection.sock.connect(str(self._socket))
            connection.request("GET", "/health")
            answer = connection.getresponse()
            content = answer.read(_LONGEST + 1)
            body = as_object(json.loads(content)) if len(content) <= _LONGEST else {}
        except OSError as error:
            raise NoAnswerError((error.strerror or str(error)).lower()) from error
        except (http.client.HTTPException, ValueError, RecursionError) as error:
            raise NoAnswerError("what answers there is not a health server") from error
        finally:
            connection.close()
        if "live" not in body:
            raise NoAnswerError("what answers there is not a health server")
        return body


def default_url(host: str, port: int) -> str:
    """Return the URL at which this machine can reach the health server of these settings."""
    if host.startswith(UNIX_PREFIX):
        return f"{UNIX_PREFIX}{os.path.abspath(host.removeprefix(UNIX_PREFIX))}"  # noqa: PTH100
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
