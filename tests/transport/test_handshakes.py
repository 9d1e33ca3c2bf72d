"""Real handshakes: what HTTP and the WebSocket accept of a server, and show of themselves."""

import asyncio
import contextlib
import ssl
from contextlib import aclosing

import psutil
import pytest
from aiohttp import ClientSession, web

from avtomatika_worker.errors import ConfigError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.transport.websocket import listen
from certificates import Authority

HEADERS = {"X-Worker-Token": "s3cr3t"}
OURS, OTHERS = Authority(), Authority()


@contextlib.asynccontextmanager
async def serving(context):
    """Serve HTTPS on loopback; yield the port, and the headers of the requests that arrive."""
    arrived = []

    async def answer(request):
        arrived.append(request.headers)
        return web.Response(text="hello")

    async def socket(request):
        arrived.append(request.headers)
        response = web.WebSocketResponse()
        await response.prepare(request)
        await response.send_str("hello")
        await response.close()
        return response

    app = web.Application()
    app.add_routes([web.get("/", answer), web.get("/ws", socket)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    try:
        yield port, arrived
    finally:
        await runner.cleanup()
        # Nobody knows a connection whose handshake has not ended; it closes when asyncio learns that its client is
        # gone.
        async with asyncio.timeout(10):
            while _accepted(port):  # noqa: ASYNC110 - the kernel's table wakes nobody when it changes
                await asyncio.sleep(0.01)


def _accepted(port):
    ours = psutil.Process().net_connections("tcp")
    return [each for each in ours if each.laddr.port == port and each.status != psutil.CONN_LISTEN]


async def over_http(port, files):
    transport = HttpTransport(f"https://127.0.0.1:{port}", user_agent="test", tls=files)
    transport.open()
    try:
        return (await transport.send(Request("GET", "/"), HEADERS, 5)).body.decode()
    finally:
        await transport.close()


async def over_websocket(port, files):
    async with aclosing(listen(f"wss://127.0.0.1:{port}/ws", HEADERS, tls=files)) as messages:
        return await anext(messages)


async def test_an_unanswered_upgrade_ends_in_time_and_its_connection_is_closed():
    heads, gone = [], asyncio.Event()

    async def read_only(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    async with await asyncio.start_server(read_only, "127.0.0.1", 0) as server, asyncio.timeout(10):
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"
        with pytest.raises(ConnectionFailedError, match=r"no WebSocket within 0\.2 s"):
            async with aclosing(listen(url, {}, open_timeout=0.2)) as messages:
                await anext(messages)
        await gone.wait()
    assert heads[0].startswith(b"GET /ws HTTP/1.1")


@pytest.fixture(params=[over_http, over_websocket], ids=["http", "websocket"])
def reach(request):
    return request.param


@pytest.fixture
def trusting(tmp_path):
    """The TLS files of a worker that trusts our CA."""
    return TlsFiles(ca=OURS.write_ca(tmp_path / "ca.pem"))


async def test_a_server_of_a_trusted_ca_is_reached(reach, trusting):
    async with serving(OURS.server()) as (port, arrived):
        assert await reach(port, trusting) == "hello"
    assert arrived[0]["X-Worker-Token"] == "s3cr3t"


@pytest.mark.parametrize(
    "context",
    [OTHERS.server(), OURS.server("example.org"), OURS.server(expired=True)],
    ids=["of another ca", "for another host", "expired"],
)
async def test_a_server_with_a_wrong_certificate_gets_nothing(reach, trusting, context):
    async with serving(context) as (port, arrived):
        with pytest.raises(ConnectionFailedError, match=r"(?i)certificate"):
            await reach(port, trusting)
    assert not arrived


async def test_without_a_ca_file_only_the_systems_authorities_are_trusted(reach):
    async with serving(OURS.server()) as (port, arrived):
        with pytest.raises(ConnectionFailedError, match=r"(?i)certificate"):
            await reach(port, TlsFiles())
    assert not arrived


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_a_server_that_speaks_nothing_newer_than_tls_1_1_is_refused(reach, trusting):
    old = OURS.server()
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(old) as (port, arrived):
        with pytest.raises(ConnectionFailedError):
            await reach(port, trusting)
        assert not arrived
        lenient = ssl.create_default_context(cafile=trusting.ca)
        lenient.set_ciphers("DEFAULT@SECLEVEL=0")
        lenient.minimum_version = ssl.TLSVersion.TLSv1_1
        async with ClientSession() as session, session.get(f"https://127.0.0.1:{port}/", ssl=lenient) as answer:
            assert await answer.text() == "hello"  # it is the version that was refused


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(reach, trusting, version):
    context = OURS.server()
    context.minimum_version = context.maximum_version = version
    async with serving(context) as (port, _):
        assert await reach(port, trusting) == "hello"


async def test_the_workers_certificate_is_shown_where_it_is_asked_for(reach, tmp_path):
    async with serving(OURS.server(clients=OTHERS)) as (port, _):
        cert, key = OTHERS.write_client(tmp_path, "w1")
        assert await reach(port, TlsFiles(OURS.write_ca(tmp_path / "ca.pem"), cert, key)) == "hello"


async def test_a_worker_without_a_certificate_of_the_right_ca_does_not_get_in(reach, trusting, tmp_path):
    async with serving(OURS.server(clients=OTHERS)) as (port, arrived):
        cert, key = OURS.write_client(tmp_path, "w1")
        for files in (trusting, TlsFiles(trusting.ca, cert, key)):
            with pytest.raises(ConnectionFailedError):
                await reach(port, files)
    assert not arrived


async def test_a_ca_file_is_trusted_besides_the_systems_authorities(reach, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(OTHERS.write_ca(tmp_path / "system.pem")))
    for authority in (OURS, OTHERS):
        async with serving(authority.server()) as (port, _):
            assert await reach(port, TlsFiles(ca=OURS.write_ca(tmp_path / "ca.pem"))) == "hello"


def test_a_machine_that_trusts_no_authority_is_reported_as_such(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"TLS_CA_PATH"):
        HttpTransport("https://127.0.0.1", user_agent="test").open()
    HttpTransport("https://127.0.0.1", user_agent="test", tls=TlsFiles(ca=OURS.write_ca(tmp_path / "ca.pem"))).open()
    HttpTransport("http://127.0.0.1", user_agent="test").open()


async def test_new_files_are_taken_for_new_connections_and_calls_in_flight_end_well(tmp_path):
    go_on, arrived = asyncio.Event(), asyncio.Event()

    async def slow(_):
        arrived.set()
        await go_on.wait()
        return web.Response(text="late")

    async def quick(request):
        names = dict(part[0] for part in request.get_extra_info("peercert")["subject"])
        return web.Response(text=names["commonName"])

    app = web.Application()
    app.add_routes([web.get("/slow", slow), web.get("/", quick)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=OURS.server(clients=OURS)).start()
    files = OURS.client_files(tmp_path, "before")
    transport = HttpTransport(f"https://127.0.0.1:{runner.addresses[0][1]}", user_agent="test", tls=files)
    transport.open()
    call = asyncio.create_task(transport.send(Request("GET", "/slow"), {}, 5))
    await arrived.wait()
    OURS.client_files(tmp_path, "after")
    transport.open()
    assert (await transport.send(Request("GET", "/"), {}, 5)).body == b"after"
    go_on.set()
    assert (await call).body == b"late"
    await transport.close()
    await runner.cleanup()
