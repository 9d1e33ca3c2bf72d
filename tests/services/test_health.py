"""The health server speaks HTTP well enough for every probe, and nothing that a client does hurts it."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
import time
from collections.abc import AsyncGenerator

import aiohttp
import pytest

from avtomatika_worker.errors import ConfigError
from avtomatika_worker.monitoring.health import Health, HealthServer
from avtomatika_worker.monitoring.probe_server import MOST_REQUESTS, REQUEST_TIMEOUT


@contextlib.asynccontextmanager
async def serving(health: Health) -> AsyncGenerator[int]:
    server = HealthServer("127.0.0.1", 0, lambda: health)
    running = asyncio.ensure_future(server.run())
    while server.bound_port is None:  # noqa: ASYNC110 - known a moment later
        await asyncio.sleep(0.001)
    try:
        yield server.bound_port
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def raw(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


WELL = Health(None, None, {"version": "1"})


async def test_all_paths_answer_and_a_query_changes_nothing() -> None:
    async with serving(WELL) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:
        for path in ("/live", "/ready?verbose=1"):
            async with client.get(path) as answer:
                assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        async with client.get("/health") as answer:
            found = await answer.json()
            assert (found["live"], found["ready"], found["version"]) == (True, True, "1")


async def test_a_failing_probe_is_503_with_its_reason() -> None:
    async with (
        serving(Health("blocked", "draining", {})) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        for path, reason in (("/live", "blocked"), ("/ready", "draining")):
            async with client.get(path) as answer:
                assert (answer.status, await answer.json()) == (503, {"status": "failing", "reason": reason})


async def test_head_has_no_body_and_other_methods_and_paths_are_refused() -> None:
    async with serving(WELL) as port:
        answer = await raw(port, b"HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert (await raw(port, b"POST /live HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 501 ")
        assert (await raw(port, b"GET /else HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 404 ")
        assert (await raw(port, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.0 404 ")


@pytest.mark.parametrize(
    "garbage", [b"\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"GET /live SMTP\r\n\r\n", b"GET " + b"x" * 100_000 + b"\r\n\r\n"]
)
async def test_bytes_that_are_not_http_do_no_harm(garbage: bytes) -> None:
    async with serving(WELL) as port:
        with contextlib.suppress(ConnectionError):
            assert b" 200 " not in await raw(port, garbage)
        assert b'{"status":"ok"}' in await raw(port, b"GET /live HTTP/1.1\r\n\r\n")


async def test_silent_clients_do_not_keep_probes_out() -> None:
    async with serving(WELL) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_REQUESTS - 1)]
        assert b'{"status":"ok"}' in await raw(port, b"GET /live HTTP/1.1\r\n\r\n")
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /live HTTP/1.0\r\nX: "])
async def test_a_probe_is_answered_within_a_second_beside_hundreds_of_idle_connections(sent: bytes) -> None:
    async with serving(WELL) as port:
        idle = []
        for _ in range(400):
            idle.append(await asyncio.open_connection("127.0.0.1", port))
            idle[-1][1].write(sent)
        for _ in range(3):
            async with asyncio.timeout(1):
                assert b'{"status":"ok"}' in await raw(port, b"GET /live HTTP/1.1\r\n\r\n")
        assert await idle[0][0].read() == b""  # the oldest made room
        for _, writer in idle:
            writer.close()


async def test_a_client_that_sends_byte_by_byte_gets_no_more_time_than_others() -> None:
    async with serving(WELL) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and asyncio.get_running_loop().time() - began < 3 * REQUEST_TIMEOUT:
                writer.write(b"G")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.2)
        assert asyncio.get_running_loop().time() - began < 2 * REQUEST_TIMEOUT
        writer.close()


async def test_a_head_may_come_in_pieces() -> None:
    async with serving(WELL) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in (b"GET /li", b"ve HTTP/1.1\r", b"\n\r", b"\n"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.005)
        assert b'{"status":"ok"}' in await reader.read()
        writer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no fork there")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads, which users' code does, too
async def test_a_child_that_is_forked_meanwhile_holds_neither_the_connection_nor_the_port() -> None:
    async with serving(WELL) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /live HTTP/1.1\r\n")
        await raw(port, b"GET /live HTTP/1.1\r\n\r\n")  # so the connection before it has been accepted, too
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        child.start()
        try:
            writer.write(b"\r\n")
            async with asyncio.timeout(REQUEST_TIMEOUT):
                assert (await reader.read()).startswith(b"HTTP/1.0 200 ")
            writer.close()
        except BaseException:
            child.kill()
            raise
    try:
        with pytest.raises(ConnectionRefusedError):
            await raw(port, b"GET /live HTTP/1.1\r\n\r\n")
    finally:
        child.kill()
        child.join()


async def test_a_taken_port_is_a_configuration_error() -> None:
    async with serving(WELL) as port:
        with pytest.raises(ConfigError, match=f"WORKER_PORT={port}"):
            await HealthServer("127.0.0.1", port, lambda: WELL).run()
