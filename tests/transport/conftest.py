"""Servers of raw bytes, and both kinds of event loop."""

import asyncio
import contextlib
import os
import socket

import pytest
import uvloop

from avtomatika_worker.transport.http import HttpTransport


class RawServer:
    """Reads requests, one at a time, and has ``answer`` decide what each connection gets.

    ``heads`` are those of all requests, ``connections`` counts; ``ended`` holds an event for each, set when its client
    is gone.
    """

    def __init__(self, answer):
        self._answer = answer
        self._server = None
        self._writers = []
        self.heads = []
        self.readers = []
        self.ended = []

    @property
    def connections(self):
        return len(self.ended)

    @property
    def port(self):
        return self._server.sockets[0].getsockname()[1]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self, **options):
        self._server = await asyncio.start_server(self._serve, **({"host": "127.0.0.1", "port": 0} | options))

    async def _serve(self, reader, writer):
        self.ended.append(ended := asyncio.Event())
        self._writers.append(writer)
        self.readers.append(reader)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                await reader.readexactly(length(head))
                if await self._answer(self, writer, head) is False:
                    break
                await writer.drain()
        writer.close()
        ended.set()

    def shut_down(self):
        """End all connections at once, without the event loop."""
        for writer in self._writers:
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)

    async def stop(self):
        self._server.close()
        for writer in self._writers:
            writer.close()
        for ended in self.ended:
            async with asyncio.timeout(10):
                await ended.wait()


def length(head):
    (text,) = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length")] or [
        "0"
    ]
    return int(text)


def ok(body=b"{}", *lines):
    """Return an answer."""
    fields = b"".join(line + b"\r\n" for line in lines)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), fields, body)


@contextlib.asynccontextmanager
async def serving(answer, **options):
    """Run a `RawServer`; ``answer`` is bytes, or an asynchronous function of the server, a writer and a head."""
    if isinstance(answer, bytes):
        sent = answer

        async def answer(server, writer, head):
            writer.write(sent)

    server = RawServer(answer)
    await server.start(**options)
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def calling(url, **options):
    """Open a transport."""
    transport = HttpTransport(url, user_agent="test", **options)
    transport.open()
    try:
        yield transport
    finally:
        await transport.close()


@pytest.fixture
def no_proxies(monkeypatch):
    """No variable of the environment names a proxy."""
    for name in ("no_proxy", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine function's coroutine on one kind of loop, to its end and the loop's."""

    def run(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return run
