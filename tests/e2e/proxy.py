"""A TCP proxy that can be cut: what is connected is reset, and what wants to connect is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from avtomatika_worker.devserver.listening import stop_accepting


class Proxy:
    """Passes bytes between a port of its own and the server at ``target``; lives in the loop that started it."""

    def __init__(self, target: str) -> None:
        split = urlsplit(target)
        assert split.hostname is not None
        assert split.port is not None
        self._target = (split.hostname, split.port)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    async def restore(self) -> None:
        """Listen; after a `cut` at the same port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Close every connection, and refuse new ones."""
        assert self._server is not None
        await stop_accepting(*self._server.sockets)
        self._server.close()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def close(self) -> None:
        """End everything."""
        if self._server is not None:
            await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [writer]
        try:
            there, back = await asyncio.open_connection(*self._target)
            writers.append(back)
            # Whichever side ends, both do.
            async with asyncio.TaskGroup() as group:
                group.create_task(_pass(reader, back))
                group.create_task(_pass(there, writer))
        except (asyncio.CancelledError, *_BROKEN):
            pass  # the server's own callback would log a cancellation
        except BaseExceptionGroup as broken:
            if broken.split(_BROKEN)[1] is not None:
                raise
        finally:
            self._connections.discard(task)
            for each in writers:
                each.transport.abort()


class _EndedError(Exception):
    """One side has nothing more to say."""


_BROKEN = (OSError, _EndedError)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise _EndedError


@asynccontextmanager
async def proxy_to(target: str) -> AsyncIterator[Proxy]:
    """Provide a proxy to the server at ``target``."""
    proxy = Proxy(target)
    await proxy.restore()
    try:
        yield proxy
    finally:
        await proxy.close()
