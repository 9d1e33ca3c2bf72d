"""The HTTP transport against a real server on the loopback."""

import asyncio
import contextlib
import gzip
import random
import socket
import sys

import pytest
from aiohttp import web

from avtomatika_worker.errors import AnswerTooLongError, CallTimedOutError, ConnectionFailedError
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

    async def elsewhere(_):
        return web.Response(status=307, headers={"Location": "/"})

    app = web.Application()
    app.router.add_get("/", answer)
    app.router.add_get("/broken", broken)
    app.router.add_get("/endless", endless)
    app.router.add_get("/elsewhere", elsewhere)
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


async def test_a_redirect_is_not_followed_so_that_the_token_goes_nowhere_else(transport):
    response = await transport.send(Request("GET", "/elsewhere", None), {"X-Worker-Token": "s3cr3t"}, 5)
    assert (response.status, response.body) == (307, b"")


async def test_no_answer_in_time_is_a_timeout(transport):
    with pytest.raises(CallTimedOutError, match=r"no answer within 0\.2 s"):
        await transport.send(Request("GET", "/endless", None), {}, 0.2)


# ------------------------------------------------------------------------------------------- bounds

LIMIT = 100_000


@pytest.fixture
async def bounded():
    """A transport that takes 100,000 bytes, and a server that sends as many as asked for, in the way asked for."""
    sent = []

    async def answer(request):
        size, form = int(request.query["size"]), request.query["form"]
        if form == "plain":
            return web.Response(body=b"x" * size)
        response = web.StreamResponse()
        if form in {"gzip", "zstd"}:
            body = {"gzip": gzip.compress, "zstd": zstd}[form](b"\0" * size)
            response.headers["Content-Encoding"] = form
        else:
            body = b"x" * size
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(body), 10_000):
                await response.write(body[start : start + 10_000])
                sent.append(1)
            await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    transport = HttpTransport(f"http://127.0.0.1:{runner.addresses[0][1]}", user_agent="test", max_answer=LIMIT)
    transport.open()
    transport.sent = sent
    yield transport
    await transport.close()
    await runner.cleanup()


def zstd(data):
    """Write equal bytes as a zstd frame, a block for each 128 KiB: not every Python has a library for it."""
    sizes = [min(1 << 17, len(data) - start) for start in range(0, len(data), 1 << 17)]
    blocks = [((size << 3) | (1 << 1)).to_bytes(3, "little") + data[:1] for size in sizes]
    last = (1).to_bytes(3, "little")  # an empty one
    return b"\x28\xb5\x2f\xfd\x80\x38" + len(data).to_bytes(4, "little") + b"".join(blocks) + last


FORMS = [
    "plain",
    "chunked",
    "gzip",
    pytest.param("zstd", marks=pytest.mark.skipif(sys.version_info < (3, 14), reason="Python has no zstd")),
]


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_within_the_limit_is_read_whole(bounded, form):
    for size in (0, 1, LIMIT - 1, LIMIT):
        response = await bounded.send(Request("GET", f"/?size={size}&form={form}"), {}, 5)
        assert len(response.body) == size


@pytest.mark.parametrize("form", FORMS)
async def test_an_answer_over_the_limit_is_refused_however_it_comes(bounded, form):
    for size in (LIMIT + 1, 300 * LIMIT):
        with pytest.raises(AnswerTooLongError, match="MAX_RESPONSE_BYTES=100000"):
            await bounded.send(Request("GET", f"/?size={size}&form={form}"), {}, 5)
    assert (await bounded.send(Request("GET", "/?size=3&form=plain"), {}, 5)).status == 200


async def test_bytes_over_the_limit_are_not_even_received(bounded):
    with pytest.raises(AnswerTooLongError):
        await bounded.send(Request("GET", f"/?size={3000 * LIMIT}&form=chunked"), {}, 20)
    assert len(bounded.sent) < 15_000  # of 30,000 pieces


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's queue of connections is filled")
@pytest.mark.parametrize("path", ["/", "/?timeout=30"])
async def test_a_host_that_does_not_accept_the_connection_is_reported_as_such(path):
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        transport = HttpTransport(url, user_agent="test", connect_timeout=0.3)
        transport.open()
        with pytest.raises(ConnectionFailedError, match=r"^no connection within 0\.3 s$"):
            await transport.send(Request("GET", path, None), {}, 20)
        await transport.close()
