"""Listening sockets, and how to stop them."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Protocol

_TURNS: Final = 4
"""Turns of the loop until an accepted socket is a connection known to its server."""


class _HasDescriptor(Protocol):
    """A socket, or asyncio's view of one."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


def listening_socket(host: str, port: int) -> socket.socket:
    """Listen at an address or host name; port 0 is any. Raises OSError if the port is taken."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server((str(address[0]), int(address[1])), family=family)


async def stop_accepting(*sockets: _HasDescriptor) -> None:
    """Stop accepting connections, before their server is closed.

    asyncio's own loops lose a connection accepted in the same turn in which its server is closed: it stays open, owned
    by no one (observed with Python 3.11). uvloop has no such turn, and nothing to remove.
    """
    loop = asyncio.get_running_loop()
    for each in sockets:
        loop.remove_reader(each.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
