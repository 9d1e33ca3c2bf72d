"""Establishes connections: TCP, a proxy's tunnel, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

from avtomatika_worker.errors import ConnectionFailedError
from avtomatika_worker.transport.failures import describe
from avtomatika_worker.transport.route import Hop, Route
from avtomatika_worker.transport.tcp import connect

_P = TypeVar("_P", bound=asyncio.Protocol)
_LONGEST_REPLY: Final = 16 * 2**10  # a proxy's reply to CONNECT, in bytes
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


async def dial(route: Route, make: Callable[[], _P], timeout: float) -> _P:
    """Connect, and return the connection's protocol. Raises `ConnectionFailedError`, with nothing sent yet."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await _dial(route, make)
    except ConnectionFailedError:
        raise
    except (OSError, UnicodeError, asyncio.IncompleteReadError) as error:
        text = f"no connection within {timeout:g} s" if limit.expired() else describe(error)
        raise ConnectionFailedError(text + _through(route), maybe_processed=False) from error


def _through(route: Route) -> str:
    """Return which proxy was used: its name may be the wrong one, and no setting of the worker's shows it."""
    return f" (through the proxy {route.first.host}:{route.first.port}, from the environment)" if route.proxied else ""


async def _dial(route: Route, make: Callable[[], _P]) -> _P:
    loop = asyncio.get_running_loop()
    sock = await connect(route.first.host, route.first.port)
    try:
        if route.beyond is None:
            _, protocol = await loop.create_connection(make, sock=sock, **_tls(route.first))
            return protocol
        transport, tunnel = await loop.create_connection(_Tunnel, sock=sock, **_tls(route.first))
    except BaseException:
        with contextlib.suppress(OSError):  # the event loop closes it, and may still watch its descriptor
            sock.shutdown(socket.SHUT_RDWR)
        raise
    try:
        await tunnel.open(route.connect)
        protocol = make()
        beyond = route.beyond
        assert beyond.tls is not None  # noqa: S101 - what needs no TLS needs no tunnel
        inner = await loop.start_tls(transport, protocol, beyond.tls, server_hostname=_server_name(beyond))
        if inner is None:
            raise ConnectionResetError("connection closed")
        protocol.connection_made(inner)
        return protocol
    except BaseException:
        transport.abort()
        raise


def _tls(hop: Hop) -> dict[str, Any]:
    return {} if hop.tls is None else {"ssl": hop.tls, "server_hostname": _server_name(hop)}


def _server_name(hop: Hop) -> str:
    return hop.host.partition("%")[0]  # a link-local address may include its interface


class _Tunnel(asyncio.Protocol):
    """Requests a tunnel from a proxy."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reply: asyncio.Future[bytes] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment] # uvloop's is no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if (b"\r\n\r\n" in self._received or len(self._received) > _LONGEST_REPLY) and not self._reply.done():
            self._reply.set_result(self._received)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # the reason does not matter
        if not self._reply.done():
            self._reply.set_exception(ConnectionFailedError("the proxy closed the connection", maybe_processed=False))
            self._reply.exception()  # retrieved, as nobody may be waiting for it

    async def open(self, request: bytes) -> None:
        """Send the request. Raises `ConnectionFailedError` unless the proxy opens a tunnel and sends nothing else."""
        if self._transport is not None:
            self._transport.write(request)
        reply = await self._reply
        head, end, rest = reply.partition(b"\r\n\r\n")
        status = _STATUS.match(head + b"\r")
        if status is None or not end or (rest and status[1].startswith(b"2")):
            raise ConnectionFailedError("the proxy's answer is not valid HTTP", maybe_processed=False)
        if not status[1].startswith(b"2"):
            text = f"the proxy refused to open a tunnel: HTTP {status[1].decode()}"
            raise ConnectionFailedError(text, maybe_processed=False)
