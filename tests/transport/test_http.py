"""The HTTP transport against a real server on the loopback."""

import asyncio
import random

import pytest
from aiohttp import web

from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport


@pytest.fixture
async def transport():
    async def answer(_):
        return web.Response(body=b"x" * 100)

    async def broken(request):
        request.transport.abort()
        return web.Response()

    async def endless(_):
        await asyncio.sleep(60)

    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/broken", broken)
    app.router.add_get("/endless", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    transport = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}", user_agent="test")
    transport.open()
    yield transport
    await transport.close()
    await runner.cleanup()


async def test_a_cancelled_call_is_cancelled_even_when_its_answer_comes_at_that_moment(transport):
    rng = random.Random(1)
    cancelled = 0
    for _ in range(1_500):
        call = asyncio.create_task(transport.send(Request("GET", "/", None), {}, 5))
        await asyncio.sleep(rng.random() * 0.0015)
        if call.cancel():
            cancelled += 1
            with pytest.raises(asyncio.CancelledError):
                await call
    assert cancelled > 50


async def test_a_broken_connection_is_not_called_a_timeout_although_the_url_has_that_word(transport):
    with pytest.raises(ConnectionFailedError, match="connection closed"):
        await transport.send(Request("GET", "/broken?timeout=30", None), {}, 5)


async def test_no_answer_in_time_is_a_timeout(transport):
    with pytest.raises(CallTimedOutError, match=r"no answer within 0\.2 s"):
        await transport.send(Request("GET", "/endless", None), {}, 0.2)
