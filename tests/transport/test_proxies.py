"""What goes out goes through the proxy that the environment names: calls and the WebSocket alike."""

import asyncio
import contextlib

import pytest

from avtomatika_worker.errors import TransportError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.websocket import listen


@pytest.fixture
async def proxy(monkeypatch):
    """A proxy that refuses everything, and what it was asked for."""
    asked = []

    async def refuse(reader, writer):
        asked.append((await reader.readline()).decode().split()[:2])
        while (await reader.readline()).strip():
            pass
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("HTTPS_PROXY", url)
    yield asked
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("scheme", "asked_for"),
    [("http", ["POST", "http://orchestrator.invalid/path"]), ("https", ["CONNECT", "orchestrator.invalid:443"])],
)
async def test_calls_go_through_the_proxy(proxy, scheme, asked_for):
    transport = HttpTransport(f"{scheme}://orchestrator.invalid", user_agent="test")
    transport.open()
    try:
        with contextlib.suppress(TransportError):
            await transport.send(Request("POST", "/path", b"{}"), {}, 10.0)
    finally:
        await transport.close()
    assert proxy == [asked_for]


@pytest.mark.parametrize(
    ("scheme", "asked_for"),
    [("ws", ["GET", "http://orchestrator.invalid/path"]), ("wss", ["CONNECT", "orchestrator.invalid:443"])],
)
async def test_the_websocket_goes_through_the_same_proxy(proxy, scheme, asked_for):
    with pytest.raises(TransportError):
        await anext(listen(f"{scheme}://orchestrator.invalid/path", {}))
    assert proxy == [asked_for]
