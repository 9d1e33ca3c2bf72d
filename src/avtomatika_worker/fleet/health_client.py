"""Queries the members' health servers over their Unix sockets. Blocks: only for threads of the health server."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Final

TIMEOUT: Final = 2.0
"""Seconds a member has to answer."""

_THREADS: Final = 16


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(str(self._path))


def ask(socket_path: Path, path: str) -> tuple[int, bytes] | None:
    """Return the status and the body of the answer, or None if there is none in time."""
    connection = _UnixConnection(socket_path)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ask_all(socket_paths: Sequence[Path], path: str) -> list[tuple[int, bytes] | None]:
    """Query the members concurrently."""
    if not socket_paths:
        return []
    with ThreadPoolExecutor(min(_THREADS, len(socket_paths)), thread_name_prefix="ask") as pool:
        return list(pool.map(ask, socket_paths, repeat(path)))
