"""Nothing that carries a token or credentials follows a redirect, and nothing reads credentials nobody named."""

import asyncio
import base64
import contextlib
from contextlib import aclosing

import pytest
from aiohttp import web

from avtomatika_worker.errors import ConnectionFailedError, RejectedError, TransportError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.transport.websocket import listen
from certificates import Authority

HEADERS = {"X-Worker-Token": "s3cr3t", "X-Worker-ID": "w1"}
STATUSES = [301, 302, 303, 307, 308]
OURS = Authority()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("no_proxy", "all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.asynccontextmanager
async def serving(handle, context=None, host="127.0.0.1"):
    """Serve every path; yield the port."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def redirecting(status, target, *, secure=False):
    """A server that redirects to another one, which takes whatever comes; yield the port and what came to the other."""
    stolen = []

    async def steal(request):
        stolen.append(dict(request.headers))
        socket = web.WebSocketResponse()
        if not socket.can_prepare(request):
            return web.Response(text="{}")
        await socket.prepare(request)
        await socket.send_str('{"command":"cancel_task","task_id":"t"}')
        await socket.close()
        return socket

    async with serving(steal) as other:

        async def redirect(_):
            return web.Response(status=status, headers={"Location": target.format(other)})

        async with serving(redirect, OURS.server() if secure else None) as port:
            yield port, stolen


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{}/x", "http://localhost:{}/x", "//127.0.0.1:{}/x", "ws://127.0.0.1:{}/"]
)
async def test_the_websocket_follows_no_redirect_and_takes_no_command_from_there(status, target):
    async with redirecting(status, target) as (port, stolen):
        with pytest.raises(RejectedError, match="a redirect") as caught:
            async with aclosing(listen(f"ws://127.0.0.1:{port}/ws", HEADERS)) as messages:
                await anext(messages)
    assert caught.value.status == status
    assert stolen == []


async def test_the_websocket_is_not_led_from_tls_to_plain_text(tmp_path):
    files = TlsFiles(ca=OURS.write_ca(tmp_path / "ca.pem"))
    async with redirecting(302, "http://127.0.0.1:{}/x", secure=True) as (port, stolen):
        with pytest.raises(RejectedError, match="a redirect"):
            async with aclosing(listen(f"wss://127.0.0.1:{port}/ws", HEADERS, tls=files)) as messages:
                await anext(messages)
    assert stolen == []


@pytest.mark.parametrize("status", STATUSES)
async def test_calls_follow_no_redirect(status):
    async with redirecting(status, "http://127.0.0.1:{}/x") as (port, stolen):
        transport = HttpTransport(f"http://127.0.0.1:{port}", user_agent="test")
        transport.open()
        try:
            assert (await transport.send(Request("POST", "/a", b"{}"), HEADERS, 5)).status == status
        finally:
            await transport.close()
    assert stolen == []


async def test_credentials_of_netrc_are_never_sent(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password NETRC\ndefault login u password NETRC\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen = []

    async def note(request):
        seen.append(dict(request.headers))
        return web.Response(status=404)

    async with serving(note) as port:
        with pytest.raises(RejectedError):
            await anext(listen(f"ws://127.0.0.1:{port}/ws", HEADERS))
        transport = HttpTransport(f"http://127.0.0.1:{port}", user_agent="test")
        transport.open()
        await transport.send(Request("GET", "/"), HEADERS, 5)
        await transport.close()
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        with pytest.raises(RejectedError):
            await anext(listen("ws://orchestrator.invalid/ws", HEADERS))
    assert len(seen) == 3
    assert [each for headers in seen for each in headers if "authorization" in each.lower()] == []


@contextlib.asynccontextmanager
async def proxying(status):
    """A proxy that refuses everything; yield its port and the heads of its requests."""
    heads = []

    async def refuse(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_the_proxys_credentials_are_those_of_its_url_and_stay_out_of_errors(scheme, monkeypatch):
    async with proxying(407) as (port, heads):
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://user:pr%40xypass@127.0.0.1:{port}")
        with pytest.raises(TransportError) as caught:
            await anext(listen(f"{scheme}://orchestrator.invalid/ws", HEADERS))
    (head,) = heads
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'user:pr@xypass').decode()}" in head
    assert ("s3cr3t" in head) is (scheme == "ws")  # inside of the tunnel, the token is the orchestrator's alone
    for secret in ("pr%40xypass", "pr@xypass", "s3cr3t"):
        assert secret not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


async def test_no_proxy_is_asked_for_the_hosts_that_no_proxy_names(monkeypatch):
    async with proxying(502) as (port, heads), redirecting(302, "http://127.0.0.1:{}/x") as (own, _):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        for named in ("127.0.0.1", f"127.0.0.1:{own}", "*"):
            monkeypatch.setenv("NO_PROXY", named)
            with pytest.raises(RejectedError, match="a redirect"):
                await anext(listen(f"ws://127.0.0.1:{own}/ws", HEADERS))
    assert heads == []


async def test_a_proxy_for_another_protocol_is_named_and_not_bypassed(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://u:pass@127.0.0.1:1")
    with pytest.raises(ConnectionFailedError, match="socks5:// proxy") as caught:
        await anext(listen("ws://orchestrator.invalid/ws", HEADERS))
    assert "pass" not in str(caught.value)
