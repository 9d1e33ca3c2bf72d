"""Server-sent events: a client may leave at any moment, and that is no error."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import pytest
from aiohttp import web

from avtomatika_worker.devserver.listening import listening_socket
from avtomatika_worker.devserver.sse import EventStream


@pytest.mark.parametrize("sent", [0, 1])
async def test_a_client_that_leaves_is_not_an_error(
    sent: int, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    ended = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        if not sent:
            request.transport.close()

        async def write(stream: EventStream) -> None:
            await stream.send("first", {})
            assert request.transport is not None
            request.transport.close()
            while True:
                await stream.send("more", {})

        try:
            return await EventStream.serve(request, write)
        finally:
            ended.set()

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = listening_socket("127.0.0.1", 0)
    try:
        await web.SockSite(runner, listening).start()
        with pytest.raises(aiohttp.ClientError):
            async with session.get(f"http://127.0.0.1:{listening.getsockname()[1]}/") as response:
                await response.read()
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        await runner.cleanup()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
