"""A server that answers with any bytes: status line, headers, framing and encodings are the input's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import re
from contextlib import aclosing
from typing import Final

from avtomatika_worker.errors import TransportError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.websocket import listen
from fuzz.loop_thread import LoopThread

_MOST: Final = 100_000
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"(?i)\r\nsec-websocket-key: *(\S+)")


class RawServer:
    """Runs in a thread, as do its clients, for as long as the process."""

    def __init__(self) -> None:
        self._thread = LoopThread()
        self._answer = b""
        self._upgrades = False
        self._thread.run(self._start())

    @classmethod
    @functools.cache
    def shared(cls) -> RawServer:
        """Return the only one, started."""
        return cls()

    def call(self, answer: bytes) -> Response | TransportError:
        """Answer an HTTP request with exactly these bytes; return what the transport makes of them."""
        self._answer, self._upgrades = answer, False
        return self._thread.run(self._call())

    def messages(self, sent: bytes, *, upgrade: bool) -> list[str | bytes] | TransportError:
        """Send the bytes to a WebSocket client, after a good handshake or (not ``upgrade``) in place of one."""
        self._answer, self._upgrades = sent, upgrade
        return self._thread.run(self._listen())

    async def _start(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        self._transport = HttpTransport(f"http://127.0.0.1:{self.port}", user_agent="fuzz", max_answer=_MOST)
        self._transport.open()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if self._upgrades and (key := _KEY.search(head)):
                accept = base64.b64encode(hashlib.sha1(key[1] + _GUID, usedforsecurity=False).digest())
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
                writer.write(b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept)
            writer.write(self._answer)
            await writer.drain()
        writer.close()

    async def _call(self) -> Response | TransportError:
        try:
            return await self._transport.send(Request("GET", "/"), {}, 5.0)
        except TransportError as error:
            return error

    async def _listen(self) -> list[str | bytes] | TransportError:
        found: list[str | bytes] = []
        try:
            async with aclosing(listen(f"ws://127.0.0.1:{self.port}/", {}, max_message=_MOST)) as messages:
                async for each in messages:
                    found.append(each)  # noqa: PERF401 - what came before an error counts
        except TransportError as error:
            return error
        return found
