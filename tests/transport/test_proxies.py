"""What goes out goes through the proxy that the environment names: calls and the WebSocket alike."""

import asyncio
import base64
import contextlib
import ssl

import pytest

from avtomatika_worker.errors import ConfigError, ConnectionFailedError, TransportError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.transport.websocket import listen
from certificates import Authority
from transport.conftest import calling, ok, serving

OURS = Authority()
CREDENTIALS = f"Basic {base64.b64encode(b'user:pr@xypass').decode()}"


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


# ------------------------------------------------------------------------------------------- one that works


class Proxy:
    """Opens tunnels to this machine, whatever the name; ``heads`` are those of the requests that it was sent."""

    def __init__(self):
        self.heads = []
        self.certificates = []

    async def serve(self, reader, writer):
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        self.certificates.append(writer.get_extra_info("peercert"))
        port = int(self.heads[-1].split(" ")[1].rpartition(":")[2])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")
        await asyncio.gather(self.copy(reader, there_writer), self.copy(there_reader, writer))

    @staticmethod
    async def copy(reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()


@contextlib.asynccontextmanager
async def tunnelling(monkeypatch, context=None, credentials=""):
    proxy = Proxy()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
    scheme = "http" if context is None else "https"
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"{scheme}://{credentials}localhost:{server.sockets[0].getsockname()[1]}")
    try:
        yield proxy
    finally:
        server.close()
        while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - the server knows none of its tasks
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("over_tls", [False, True], ids=["http proxy", "https proxy"])
def test_https_goes_through_a_tunnel_whose_proxy_sees_nothing_of_it(run, over_tls, no_proxies, monkeypatch, tmp_path):
    files = OURS.client_files(tmp_path, "w1")

    async def main():
        context = OURS.server(clients=OURS) if over_tls else None
        if context is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
        async with (
            serving(ok(b"hello"), ssl=OURS.server("orchestrator.test", clients=OURS)) as server,
            tunnelling(monkeypatch, context, "user:pr%40xypass@") as proxy,
        ):
            async with calling(f"https://orchestrator.test:{server.port}", tls=files) as transport:
                for _ in range(2):
                    found = await transport.send(Request("POST", "/", b"{}"), {"X-Worker-Token": "s3cr3t"}, 9)
                    assert found.body == b"hello"
            (head,) = proxy.heads  # and one tunnel for both calls
            assert head.startswith("CONNECT orchestrator.test:")
            assert f"Proxy-Authorization: {CREDENTIALS}\r\n" in head
            assert "s3cr3t" not in head
            assert not proxy.certificates[0]  # the worker's is for the orchestrator alone
            assert server.connections == 1
            assert "X-Worker-Token: s3cr3t" in server.heads[0]
            assert "Proxy-" not in server.heads[0]

    run(main)


def test_a_tunnel_leads_only_to_a_server_with_the_right_certificate(run, no_proxies, monkeypatch, tmp_path):
    files = TlsFiles(ca=OURS.write_ca(tmp_path / "ca.pem"))

    async def main():
        async with serving(ok(), ssl=OURS.server("another.test")) as server, tunnelling(monkeypatch):
            async with calling(f"https://orchestrator.test:{server.port}", tls=files) as transport:
                with pytest.raises(ConnectionFailedError, match="certificate verify failed"):
                    await transport.send(Request("GET", "/"), {}, 9)
            assert server.heads == []

    run(main)


def test_http_is_asked_for_at_the_proxy_with_its_credentials(run, no_proxies, monkeypatch):
    async def main():
        async with serving(ok(b"hello")) as proxy:
            monkeypatch.setenv("ALL_PROXY", f"http://user:pr%40xypass@127.0.0.1:{proxy.port}")
            async with calling("http://orchestrator.test/prefix") as transport:
                for _ in range(2):
                    assert (await transport.send(Request("GET", "/a?b"), {}, 9)).body == b"hello"
            assert proxy.connections == 1
        head = proxy.heads[0]
        assert head.startswith("GET http://orchestrator.test/prefix/a?b HTTP/1.1\r\nHost: orchestrator.test\r\n")
        assert f"Proxy-Authorization: {CREDENTIALS}\r\n" in head

    run(main)


def test_hosts_that_no_proxy_names_are_called_directly(run, no_proxies, monkeypatch):
    async def main():
        async with serving(ok()) as server, calling(server.url) as transport:
            monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            transport.open()
            assert (await transport.send(Request("GET", "/"), {}, 9)).status == 200
        assert server.heads[0].startswith("GET / ")

    run(main)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "to open a tunnel: HTTP 407"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\n", "to open a tunnel: HTTP 403"),
        (b"HTTP/1.1 200 OK\r\n\r\nsomething", "not valid HTTP"),
        (b"\x15\x03\x01 no proxy at all\r\n\r\n", "not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "not valid HTTP"),
        (b"", "the proxy closed the connection"),
    ],
    ids=["credentials", "forbidden", "more", "garbage", "endless", "nothing"],
)
def test_a_proxy_that_refuses_a_tunnel_is_named_without_its_credentials(run, reply, said, no_proxies, monkeypatch):
    async def main():
        async def answer(server, writer, head):
            writer.write(reply)
            return False

        async with serving(answer) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:pr%40xypass@127.0.0.1:{proxy.port}")
            async with calling("https://orchestrator.test") as transport:
                with pytest.raises(ConnectionFailedError, match=said) as caught:
                    await transport.send(Request("POST", "/", b"{}"), {"X-Worker-Token": "s3cr3t"}, 9)
            assert not caught.value.maybe_processed
            assert "s3cr3t" not in proxy.heads[0]
        for secret in ("pr%40xypass", "pr@xypass", CREDENTIALS):
            assert secret not in f"{caught.value!r} {caught.value.__cause__!r} {transport!r}"

    run(main)


@pytest.mark.parametrize("url", ["http://orchestrator.test", "https://orchestrator.test"])
def test_a_proxy_of_another_kind_is_a_problem_of_the_configuration(url, no_proxies, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://user:pr%40xypass@127.0.0.1:1")
    with pytest.raises(ConfigError, match="socks5:// proxy") as caught:
        HttpTransport(url, user_agent="test").open()
    assert "xypass" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["http://[::1", "http://", "http://host:99999", "http://u:s3cr3t@a..b", "http://u:s3cr3t@a b:1", "\udcff:1"]
)
@pytest.mark.parametrize(("url", "variable"), [("http://h.test", "HTTP_PROXY"), ("https://h.test", "HTTPS_PROXY")])
def test_a_variable_that_names_no_proxy_is_named_without_its_value(url, variable, text, no_proxies, monkeypatch):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError, match=f"^{variable} is no URL of a proxy") as caught:
        HttpTransport(url, user_agent="test").open()
    assert "s3cr3t" not in str(caught.value)


def test_a_proxy_that_is_out_of_reach_is_named_in_the_error(run, unused_tcp_port, no_proxies, monkeypatch):
    async def main():
        monkeypatch.setenv("HTTP_PROXY", f"user:pr%40xypass@127.0.0.1:{unused_tcp_port}")
        async with calling("http://orchestrator.test") as transport:
            with pytest.raises(ConnectionFailedError) as caught:
                await transport.send(Request("POST", "/", b"{}"), {}, 9)
        assert f"(through the proxy 127.0.0.1:{unused_tcp_port}, from the environment)" in str(caught.value)
        assert "xypass" not in str(caught.value)

    run(main)


def test_a_tunnel_is_asked_for_by_the_ascii_form_of_a_name(run, no_proxies, monkeypatch):
    async def main():
        async def refuse(_server, writer, _head):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return False

        async with serving(refuse) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            async with calling("https://b\u00fccher.test") as transport:
                with pytest.raises(ConnectionFailedError, match="refused to open a tunnel"):
                    await transport.send(Request("POST", "/", b"{}"), {}, 9)
            assert proxy.heads[0].startswith("CONNECT xn--bcher-kva.test:443 ")

    run(main)
