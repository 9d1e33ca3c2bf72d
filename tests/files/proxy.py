"""A proxy of ours in front of an S3 server, that does to chosen requests what networks and stores do."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker.devserver.listening import stop_accepting

_END: Final = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """The head of a request."""

    method: str
    path: str
    head: bytes
    length: int


@dataclass(frozen=True)
class Truncate:
    """Send this many bytes of the answer's body, and close the connection."""

    after: int


@dataclass(frozen=True)
class Reset:
    """Read this many bytes of the request's body, and reset the connection."""

    after: int


@dataclass(frozen=True)
class Answer:
    """Answer without asking the server."""

    status: str
    body: bytes = b""


@dataclass(frozen=True)
class Etag:
    """Pass the answer on with another etag."""

    value: str


@dataclass(frozen=True)
class Stall:
    """Do not pass the request on before this is set; never, if nobody sets it."""

    until: asyncio.Event = field(default_factory=asyncio.Event)


Fault = Truncate | Reset | Answer | Etag | Stall


@dataclass
class FaultProxy:
    """``choose`` is asked for each request what is to happen to it; what was asked for is in ``requests``."""

    url: str = ""
    choose: Callable[[Request], Fault | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    faults: int = 0

    def some(self, fault: Fault, times: int, when: Callable[[Request], bool]) -> None:
        """Do this to the first ``times`` requests for which ``when`` holds."""
        left = times

        def choose(request: Request) -> Fault | None:
            nonlocal left
            if left and when(request):
                left -= 1
                return fault
            return None

        self.choose = choose

    def count(self, method: str) -> int:
        """Return how many requests of a method came."""
        return sum(request.method == method for request in self.requests)


@asynccontextmanager
async def fault_proxy(target: str) -> AsyncIterator[FaultProxy]:
    """Provide a proxy in front of the server at ``target``."""
    proxy = FaultProxy()
    host, port = urlsplit(target).hostname, urlsplit(target).port
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        handlers.add(task)
        try:
            with suppress(asyncio.CancelledError):  # the proxy ends
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    while await _exchange(proxy, reader, writer, host or "", port or 0):
                        pass
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()  # what was sent arrives before the end
        finally:
            handlers.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        await stop_accepting(*server.sockets)
        server.close()
        for handler in list(handlers):
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        for _ in range(3):  # aborted transports close their sockets in one of the loop's next turns
            await asyncio.sleep(0)


async def _exchange(
    proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> bool:
    """Pass one request and its answer on; return whether the connection can be used again."""
    head = await reader.readuntil(_END)
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    request = Request(method, path, head, _length(head))
    proxy.requests.append(request)
    fault = proxy.choose(request)
    proxy.faults += fault is not None
    if isinstance(fault, Reset):
        await reader.readexactly(min(fault.after, request.length))
        # A linger time of nothing makes the close a reset.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False
    body = await reader.readexactly(request.length)
    if isinstance(fault, Stall):
        await fault.until.wait()
    if isinstance(fault, Answer):
        writer.write(f"HTTP/1.1 {fault.status}\r\nContent-Length: {len(fault.body)}\r\n\r\n".encode() + fault.body)
        await writer.drain()
        return True
    return await _pass_on(head + body, method, fault, writer, host, port)


async def _pass_on(
    message: bytes, method: str, fault: Fault | None, writer: asyncio.StreamWriter, host: str, port: int
) -> bool:
    upstream, upstream_writer = await asyncio.open_connection(host, port, limit=2**20)
    try:
        upstream_writer.write(message)
        await upstream_writer.drain()
        head = await upstream.readuntil(_END)
        if isinstance(fault, Etag):
            head = re.sub(rb"(?i)(\r\netag: ).*?\r\n", lambda m: m[1] + fault.value.encode() + b"\r\n", head)
        writer.write(head)
        left = 0 if method == "HEAD" else _length(head)
        most = min(left, fault.after) if isinstance(fault, Truncate) else left
        while most:
            chunk = await upstream.read(min(most, 2**18))
            most -= len(chunk)
            writer.write(chunk)
            await writer.drain()
        return not isinstance(fault, Truncate)
    finally:
        upstream_writer.close()


def _length(head: bytes) -> int:
    match = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(match[1]) if match else 0
