"""The HTTP transport against a real server on the loopback."""

import asyncio
import random

import pytest
from aiohttp import web

from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport


@pytest.fixture
async def transport():
    async def answer(_):
        return web.Response(body=b"x" * 100)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
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
