"""A heartbeat that another process sends is the worker's own: what is signed, where it goes, what it may not need."""

import asyncio
import contextlib
import time

import msgspec
import orjson
import pytest

from avtomatika_worker.errors import CallTimedOutError, ConfigError, ConnectionFailedError
from avtomatika_worker.link.keepalive import Report, keepalive_of
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.monitoring.heartbeat_calls import Orchestrator, sealed
from avtomatika_worker.protocol.dialects import DIALECTS
from avtomatika_worker.protocol.messages import Heartbeat, WorkerStatus
from avtomatika_worker.protocol.signing import Signer, signed_bytes
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.worker.standby import orchestrator_plan
from avtomatika_worker.world import REAL

TLS = {"ca": None, "cert": None, "key": None}


def link_to(url, token="the-token"):
    return Link(LinkSettings(url=url, token=token), "w1", HttpTransport(url, user_agent="test"))


def heartbeat(**fields):
    return Heartbeat(
        worker_id="w1",
        status=WorkerStatus.IDLE,
        skills_hash="h",
        current_tasks=("job-1",),
        available_skills=("a",),
        hot_skills=(),
        hot_cache=(),
        skill_dependencies={"a": ["модель"]},
        **fields,
    )


def as_it_comes(form):
    return msgspec.json.decode(msgspec.json.encode(form))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda each: each.version)
def test_it_is_signed_like_the_workers_own_and_each_is_unique(dialect):
    link = link_to("http://127.0.0.1:1")
    link.dialect = dialect
    form = as_it_comes(keepalive_of(link, heartbeat(), 0.0))
    bodies = [sealed(form) for _ in range(3)]
    assert len(set(bodies)) == 3
    for body in bodies:
        message = orjson.loads(body)
        assert Signer("the-token").verify(signed_bytes(message, dialect), message["security"]["signature"])
        assert message["security"]["signer_id"] == "w1"
        assert abs(message["timestamp"] - time.time()) < 5
        assert message["current_tasks"] == ["job-1"]
    own = orjson.loads(link.codec.heartbeat(heartbeat(), dialect, link.now()).body)
    assert own.keys() == message.keys()
    assert {k: v for k, v in own.items() if k not in {"nonce", "timestamp", "security"}} == {
        k: v for k, v in message.items() if k not in {"nonce", "timestamp", "security"}
    }


def test_without_a_token_it_is_not_signed_and_has_no_security():
    form = as_it_comes(keepalive_of(link_to("http://127.0.0.1:1", token=None), heartbeat(), 0.0))
    assert "security" not in orjson.loads(sealed(form))
    assert "X-Worker-Token" not in form["headers"]


def test_nothing_that_is_printed_contains_a_secret():
    assert "the-token" not in repr(keepalive_of(link_to("http://127.0.0.1:1"), heartbeat(), 0.0))


def test_a_report_without_an_answer_is_the_error_that_the_worker_would_have_had():
    facts = {"orchestrator": 0, "asked": REAL.steady(), "at": time.monotonic(), "registrations": 1}
    with pytest.raises(CallTimedOutError, match="in the heartbeat process"):
        Report(**facts, problem="TimeoutError: timed out", timed_out=True).response()
    with pytest.raises(ConnectionFailedError, match="refused"):
        Report(**facts, problem="ConnectionRefusedError: refused").response()


@pytest.fixture
async def proxy(monkeypatch):
    """A proxy that refuses everything, and the heads of what it was asked for."""
    asked = []

    async def refuse(reader, writer):
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("HTTPS_PROXY", url)
    yield asked
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("scheme", "line"),
    [
        ("http", "PATCH http://orchestrator.invalid/prefix/_worker/workers/w1 HTTP/1.1"),
        ("https", "CONNECT orchestrator.invalid:443 HTTP/1"),
    ],
)
async def test_it_goes_through_the_proxy_and_the_token_through_no_tunnel_request(proxy, scheme, line):
    url = f"{scheme}://orchestrator.invalid/prefix"
    place = as_it_comes(orchestrator_plan(url))
    form = as_it_comes(keepalive_of(link_to(url), heartbeat(), 0.0))
    report = await asyncio.to_thread(Orchestrator(place, TLS, "test").beat, form)
    (head,) = proxy
    assert head.startswith(line)
    assert "Proxy-Authorization: Basic" in head
    assert ("the-token" in head) is (scheme == "http")
    assert "502" in str(report)
    assert "the-token" not in str(report)


async def test_credentials_in_the_url_are_sent_and_redirects_are_not_followed():
    heads = []

    async def redirect(reader, writer):
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(
            b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(redirect, "127.0.0.1", 0)
    url = f"http://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    form = as_it_comes(keepalive_of(link_to(url), heartbeat(), 0.0))
    calls = Orchestrator({"url": url, "proxy": None}, TLS, "test")
    report = await asyncio.to_thread(calls.beat, form)
    server.close()
    await server.wait_closed()
    assert "Authorization: Basic dXNlcjp3b3Jk" in heads[0]
    assert report["status"] == 307
    assert len(heads) == 1


@pytest.mark.parametrize(
    "answer", [b"", b"\x00\xff" * 50, b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2**21, b"HTTP/9 x\r\n\r\n"]
)
async def test_any_answer_of_an_orchestrator_is_reported(answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    form = as_it_comes(keepalive_of(link_to(url), heartbeat(), 0.0))
    report = await asyncio.to_thread(Orchestrator({"url": url, "proxy": None}, TLS, "test").beat, form)
    server.close()
    await server.wait_closed()
    assert report["problem"]


@pytest.mark.parametrize(
    "begin",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 OK\r\n\r\n"],
)
async def test_an_answer_that_comes_byte_by_byte_gets_no_more_time_than_others(begin):
    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x" if b" 200 " in begin else begin)
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    form = as_it_comes(keepalive_of(link_to(url), heartbeat(), 0.0))
    calls = Orchestrator({"url": url, "proxy": None}, TLS, "test", timeout=0.5)
    report = await asyncio.to_thread(calls.beat, form)
    await ended.wait()
    server.close()
    await server.wait_closed()
    assert report["timed_out"]


@pytest.mark.parametrize("proxy_url", ["https://proxy.invalid:3128", "socks5://proxy.invalid:1080"])
def test_an_unusable_proxy_is_reported_at_the_start(monkeypatch, proxy_url):
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy_url)
    with pytest.raises(ConfigError, match="WORKER_HEARTBEAT_PROCESS=true"):
        orchestrator_plan("https://orchestrator.invalid")
