"""An aiohttp connector whose connections can be awaited until they are closed. Imports aiohttp."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

_CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the peer to answer the end of a TLS connection; then the connection is aborted."""


class Connector(aiohttp.TCPConnector):
    """Tracks its connections until they are closed.

    aiohttp forgets a connection as soon as it starts to close it. But TLS ends with an exchange: an event loop that is
    closed meanwhile leaks the socket, and uvloop cannot even close it (OSError: "Device or resource busy").
    """

    def __init__(self) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - of an argument that is not given
        self._transports: dict[asyncio.Future[None], asyncio.Transport] = {}

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        """Connect as the base class does, and track the connection."""
        connection = await super().connect(req, traces, timeout)
        protocol, transport = connection.protocol, connection.transport
        if protocol is not None and transport is not None and (closed := protocol.closed) is not None:
            self._transports[closed] = transport
        return connection

    async def wait_closed(self) -> None:
        """Close all connections and wait for that; abort those that take too long."""
        for cut in (False, True):
            left = [closed for closed in self._transports if not closed.done()]
            if not left:
                break
            for closed in left:
                transport = self._transports[closed]
                transport.abort() if cut else transport.close()
            await asyncio.wait(left, timeout=_CLOSE_TIMEOUT)
        for closed in self._transports:
            if closed.done() and not closed.cancelled():
                closed.exception()  # whoever used it knows that it broke
        self._transports.clear()
