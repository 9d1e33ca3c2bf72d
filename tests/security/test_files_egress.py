"""A store that leads its clients elsewhere, or answers without end, over plain HTTP and over TLS."""

from __future__ import annotations

import asyncio
import base64
import gzip
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from avtomatika_worker import TaskFiles
from avtomatika_worker.errors import DependencyError, TaskError, TransientError
from avtomatika_worker.files.egress import EgressProxy
from avtomatika_worker.files.egress_route import Allowed, Route
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.files.strangers import MOST_STRANGERS, SHOWN_WITHIN, surplus
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.transport.proxies import proxy_for

FACTS = 'ETag: "e"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n'
REDIRECTS = (
    "301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect",
)  # fmt: skip
PIECE = b"A" * 65536
ENDLESS = 10**12
MOST = 48 * 1024 * 1024
"""Bytes that may have left an endless store before it was cut off, those in the buffers of sockets included."""

Answer = Callable[[str], tuple[str, bytes, int]]
"""Takes a request's head, returns the head of the answer, a piece of its body and how often that is sent."""


@dataclass
class Server:
    """A running server: the requests that came, and the bytes of all bodies that were sent."""

    url: str = ""
    requests: list[str] = field(default_factory=list[str])
    sent: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])


@asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Serve HTTP; requests' bodies are taken and dropped."""
    kept = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            while request := (await reader.readuntil(b"\r\n\r\n")).decode():
                kept.requests.append(request)
                await reader.readexactly(length(request))
                head, piece, times = answer(request)
                writer.write(head.encode() + b"\r\n")
                for _ in range(times):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)  # with TLS, the end of a connection is seen in another turn of the loop
                    if reader.at_eof() or writer.is_closing():
                        return
                    kept.sent += len(piece)
        writer.close()

    server = await asyncio.start_server(serve, host, ssl=tls)
    kept.url = f"{'https' if tls else 'http'}://{host}:{server.sockets[0].getsockname()[1]}"
    try:
        yield kept
    finally:
        server.close()
        for writer in kept.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def length(request: str) -> int:
    lines = [line.lower() for line in request.split("\r\n")]
    return next((int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")), 0)


def no_answer(_request: str) -> tuple[str, bytes, int]:
    return f"HTTP/1.1 200 OK\r\n{FACTS}Content-Length: 4\r\n", b"evil", 1


@dataclass(frozen=True)
class Certificates:
    """A CA, and a server's context for it."""

    path: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "127.0.0.2", "localhost").configure_cert(context)
    return Certificates(path, context)


@pytest.fixture
async def task_of(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[str | None], TaskFiles]]:
    """Make the files of a task, with temporary credentials of the environment."""
    made: list[tuple[Files, FileOperations]] = []
    for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "s", "SESSION_TOKEN": "TEMPORARY"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)

    def make(url: str | None) -> TaskFiles:
        settings = StoreSettings(
            endpoint_url=url, default_bucket="b", attempts=1, backoff=BackoffPolicy(0.01, 0.02),
            ca_path=certificates.path, proxy_for=proxy_for,
        )  # fmt: skip
        files = Files(tmp_path / "files", settings)
        made.append((files, files.for_task("j", "t", lambda _: None, asyncio.get_running_loop())))
        return TaskFiles(made[-1][1])

    yield make
    for files, task in made:
        await task.remove()
        files.close()


async def attempt(task: TaskFiles, call: str) -> None:
    """Make one kind of call."""
    if call == "put":
        await task.write("a.txt", "content")
        await task.upload_file("a.txt")
    elif call == "multipart":
        await task.write("a.bin", b"x" * (9 * 1024 * 1024))
        await task.upload_file("a.bin")
    else:
        await task.download_file("s3://b/in/" if call == "list" else "s3://b/k")


def leading_to(url: str, status: str, method: str | None = None) -> Answer:
    """Redirect requests of one method, or all."""

    def answer(request: str) -> tuple[str, bytes, int]:
        if method is not None and not request.startswith(method):
            return f"HTTP/1.1 200 OK\r\n{FACTS}Content-Length: 4\r\n", b"", 0
        path = request.split(" ", 2)[1]
        return f"HTTP/1.1 {status}\r\nLocation: {url}{path}\r\nContent-Length: 0\r\n", b"", 0

    return answer


# ---------------------------------------------------------------------------------------------------- elsewhere


@pytest.mark.parametrize("call", ["head", "get", "put", "multipart", "list"])
@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_store_leads_no_call_to_another_host(task_of: Callable[[str], TaskFiles], call: str, status: str):
    async with serving(no_answer, host="127.0.0.2") as other:
        redirects = leading_to(other.url, status, "GET" if call == "get" else None)
        async with serving(redirects) as store:
            task = task_of(store.url)
            with pytest.raises(DependencyError, match="redirects"):
                await attempt(task, call)
            assert any("TEMPORARY" in request for request in store.requests)
            assert other.requests == []


@pytest.mark.parametrize("call", ["head", "get", "put", "list"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
async def test_a_store_with_tls_leads_no_call_to_another_host_port_or_to_plain_text(
    task_of: Callable[[str], TaskFiles], certificates: Certificates, call: str, scheme: str, host: str
):
    async with serving(no_answer, certificates.server if scheme == "https" else None, "127.0.0.1") as other:
        url = f"{scheme}://{host}:{urlsplit(other.url).port}"
        redirects = leading_to(url, "307 Temporary Redirect", "GET" if call == "get" else None)
        async with serving(redirects, certificates.server) as store:
            with pytest.raises(TaskError):
                await attempt(task_of(store.url), call)
            assert store.requests
            assert other.requests == []


@pytest.mark.parametrize("tls", [False, True])
async def test_a_store_does_not_lead_to_the_hosts_that_give_credentials(
    task_of: Callable[[str], TaskFiles], certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tls: bool
):
    async with serving(no_answer) as metadata:
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", metadata.url)
        redirects = leading_to(metadata.url, "307 Temporary Redirect")
        async with serving(redirects, certificates.server if tls else None) as store:
            with pytest.raises(TaskError):
                await attempt(task_of(store.url), "get")
            assert store.requests
            assert metadata.requests == []


async def test_credentials_of_the_machine_are_still_found(
    task_of: Callable[[str], TaskFiles], monkeypatch: pytest.MonkeyPatch
):
    def metadata_answer(request: str) -> tuple[str, bytes, int]:
        path = request.split(" ", 2)[1]
        keys = (
            b'{"AccessKeyId": "FROMMACHINE", "SecretAccessKey": "s", "Token": "t", "Code": "Success",'
            b' "Expiration": "2099-01-01T00:00:00Z", "Type": "AWS-HMAC", "LastUpdated": "2020-01-01T00:00:00Z"}'
        )
        body = b"token" if "token" in path else keys if path.endswith("/role") else b"role"
        return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n", body, 1

    def store_answer(request: str) -> tuple[str, bytes, int]:
        head = f"HTTP/1.1 206 Partial\r\n{FACTS}Content-Range: bytes 0-3/4\r\nContent-Length: 4\r\n"
        return (head.replace("206 Partial", "200 OK"), b"", 0) if request.startswith("HEAD") else (head, b"good", 1)

    async with serving(metadata_answer) as metadata, serving(store_answer) as store:
        task = task_of(store.url)
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
            monkeypatch.delenv(f"AWS_{name}")
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", metadata.url)
        assert await task.read(await task.download_file("s3://b/k")) == "good"
        assert all("Credential=FROMMACHINE/" in request for request in store.requests)


# ---------------------------------------------------------------------------------------------------- without end


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("call", "status"), [
    ("get", "400 Bad Request"), ("get", "500 Internal Server Error"), ("put", "403 Forbidden"),
    ("multipart", "400 Bad Request"), ("list", "400 Bad Request"), ("list", "200 OK"), ("get", "206 Partial Content"),
])  # fmt: skip
async def test_an_answer_without_end_is_cut_off_whatever_it_answers(
    task_of: Callable[[str], TaskFiles], certificates: Certificates, call: str, status: str, chunked: bool, tls: bool
):
    piece = b"10000\r\n" + PIECE + b"\r\n" if chunked else PIECE
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {ENDLESS}"

    def answer(request: str) -> tuple[str, bytes, int]:
        if request.startswith("HEAD"):
            return f"HTTP/1.1 200 OK\r\n{FACTS}Content-Length: 4000\r\n", b"", 0
        head = f"HTTP/1.1 {status}\r\n{FACTS}Content-Range: bytes 0-3999/4000\r\n{framing}\r\n"
        return head, piece, ENDLESS // len(piece)

    async with serving(answer, certificates.server if tls else None) as store:
        task = task_of(store.url)
        with pytest.raises(TransientError):
            await attempt(task, call)
        assert store.requests
        assert store.sent < MOST


async def test_an_answer_that_is_compressed_is_not_unpacked(task_of: Callable[[str], TaskFiles]):
    bomb = gzip.compress(bytes(100_000_000))

    def answer(request: str) -> tuple[str, bytes, int]:
        head = f"HTTP/1.1 200 OK\r\n{FACTS}Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n"
        return (head, b"", 0) if request.startswith("HEAD") else (head, bomb, 1)

    async with serving(answer) as store:
        task = task_of(store.url)
        with suppress(TaskError):
            path = await task.download_file("s3://b/k")
            assert path.stat().st_size == len(bomb)


LENGTH = "Content-Length: 4"
OBJECT = "Content-Range: bytes 0-3/4"


HEADS = {
    "interim, then a redirect": f"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:9/\r\n{LENGTH}",
    "interim, then an answer": f"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 OK\r\n{OBJECT}\r\n{LENGTH}",
    "two lengths": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\n{LENGTH}\r\nContent-Length: {ENDLESS}",
    "length and encoding": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\n{LENGTH}\r\nTransfer-Encoding: chunked",
    "two encodings": "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "negative": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\nContent-Length: -4",
    "not a number": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\nContent-Length: 4e0",
    "list of numbers": f"HTTP/1.1 400 Bad\r\n{OBJECT}\r\nContent-Length: {ENDLESS}, {ENDLESS}",
    "overflow": f"HTTP/1.1 400 Bad\r\nContent-Length: {2**64 - 1}",
    "empty length": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\nContent-Length: ",
    "too short": f"HTTP/1.1 206 OK\r\n{OBJECT}\r\nContent-Length: 3",
    "space before the colon": f"HTTP/1.1 400 Bad\r\nContent-Length : {ENDLESS}",
    "folded": f"HTTP/1.1 400 Bad\r\nA: b\r\n Content-Length: {ENDLESS}",
    "bare line feeds": f"HTTP/1.1 400 Bad\nContent-Length: {ENDLESS}\n",
    "a bare line feed": f"HTTP/1.1 400 Bad\r\nA: b\nContent-Length: {ENDLESS}",
    "an end of bare line feeds": f"HTTP/1.1 400 Bad\nContent-Length: {ENDLESS}\n\nHTTP/1.1 206 OK",
    "bare carriage returns": f"HTTP/1.1 400 Bad\rContent-Length: {ENDLESS}\r\nA: b",
    "leading empty lines": f"\r\n\r\nHTTP/1.1 400 Bad\r\nContent-Length: {ENDLESS}",
    "leading line feeds": f"\n\nHTTP/1.1 400 Bad\r\nContent-Length: {ENDLESS}",
    "long": "HTTP/1.1 206 OK\r\nA: " + "a" * 100_000,
    "many": "HTTP/1.1 206 OK" + "\r\nA: b" * 5_000,
    "other version": "HTTP/2 206",
    "no status": "HTTP/1.1",
    "nothing": "",
    "no text": "\x00\x01\x02",
    "short status": "HTTP/1.1 20 OK",
    "a request": "GET / HTTP/1.1",
    "unknown status": f"HTTP/1.1 999 X\r\n{LENGTH}",
    "switching": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x",
    "none": f"HTTP/1.1 204 No Content\r\n{LENGTH}",
    "a chunk without end": f"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n{'f' * 15}\r\nx",
    "no chunk": "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
async def test_any_answer_of_a_store_ends_in_a_documented_error(task_of: Callable[[str], TaskFiles], head: str):
    def answer(request: str) -> tuple[str, bytes, int]:
        if request.startswith("HEAD"):
            return f"HTTP/1.1 200 OK\r\n{FACTS}{LENGTH}\r\n", b"", 0
        for writer in store.writers:  # nothing follows
            asyncio.get_running_loop().call_later(0.2, writer.close)
        return f"{head}\r\n{FACTS}", b"good", 1

    async with serving(answer) as store:
        task = task_of(store.url)
        with pytest.raises(TaskError):
            await task.download_file("s3://b/k")
        assert await task.list(recursive=True) == []


async def test_an_answer_that_comes_before_it_is_asked_for_answers_nothing(task_of: Callable[[str], TaskFiles]):
    evil = f"HTTP/1.1 400 Bad\r\nContent-Length: {ENDLESS}\r\n\r\n".encode()

    def answer(request: str) -> tuple[str, bytes, int]:
        head = f"HTTP/1.1 200 OK\r\n{FACTS}{LENGTH}\r\n"
        return (head, evil, 1) if request.startswith("HEAD") else (head + OBJECT + "\r\n", b"good", 1)

    async with serving(answer) as store:
        task = task_of(store.url)
        with suppress(TransientError):
            assert await task.read(await task.download_file("s3://b/k")) == "good"
        assert store.requests


async def test_a_store_with_a_wrong_certificate_is_asked_nothing(task_of: Callable[[str], TaskFiles]):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with serving(no_answer, context) as store:
        with pytest.raises(TransientError, match="certificate is not trusted"):
            await attempt(task_of(store.url), "get")
        assert store.requests == []


# ---------------------------------------------------------------------------------------------------- the proxies


async def ask(url: str, *, key: str | None, target: str = "http://127.0.0.1:9/") -> bytes:
    """Ask the proxy itself."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    proof = f"Proxy-Authorization: Basic {key}\r\n" if key is not None else ""
    writer.write(f"GET {target} HTTP/1.1\r\n{proof}\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def write_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(PIECE)
        await writer.drain()


async def test_a_store_that_stops_reading_holds_no_connection_of_a_client_that_gave_up():
    ended = asyncio.Event()

    async def read_no_more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await given_up.wait()
        with suppress(ConnectionError):
            while await reader.read(65536):
                pass
        ended.set()
        writer.close()

    given_up = asyncio.Event()
    server = await asyncio.start_server(read_no_more, "127.0.0.1", limit=1024)
    place = server.sockets[0].getsockname()
    proxy, route = EgressProxy(stall_timeout=0.5), Route(Allowed(place, place))
    parts = urlsplit(await asyncio.to_thread(proxy.url, route))
    proof = base64.b64encode(f"route:{route.key}".encode()).decode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"PUT http://{place[0]}:{place[1]}/b/k HTTP/1.1\r\nProxy-Authorization: Basic {proof}\r\n"
    writer.write(f"{head}Content-Length: {ENDLESS}\r\n\r\n".encode())
    with pytest.raises(ConnectionError):  # what it is sent has no place to go to
        await write_on(writer)
    with suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    given_up.set()
    await ended.wait()  # the proxy's other end is closed, too
    proxy.close()
    server.close()


@pytest.mark.parametrize("key", [None, "", "!!!", "cm91dGU6", "cm91dGU6eA==", "/////w=="])
async def test_nobody_is_reached_through_a_route_without_its_key(key: str | None):
    async with serving(no_answer) as anybody:
        proxy = EgressProxy()
        route = Route()
        answer = await ask(await asyncio.to_thread(proxy.url, route), key=key, target=anybody.url)
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert anybody.requests == []
        assert route.key not in repr(route)
        proxy.close()


async def end_of(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await reader.read()
    return b""


async def test_other_users_of_the_machine_cannot_hold_more_than_a_few_of_its_connections():
    proxy = EgressProxy()
    parts = urlsplit(await asyncio.to_thread(proxy.url, Route()))
    held = [await asyncio.open_connection(parts.hostname, parts.port) for _ in range(MOST_STRANGERS + 50)]
    ends = [asyncio.create_task(end_of(reader)) for reader, _ in held[:50]]
    async with asyncio.timeout(20):
        while True:
            assert (await ask(parts.geturl(), key=None)).startswith(b"HTTP/1.1 407 ")
            _, held_still = await asyncio.wait(ends, timeout=0.05)
            if not held_still:
                break
    assert {each.result() for each in ends} == {b""}
    for _, writer in held:
        writer.close()
    proxy.close()


@pytest.mark.parametrize(("old", "new", "cut"), [
    (MOST_STRANGERS, 0, 0), (MOST_STRANGERS + 3, 0, 3), (MOST_STRANGERS, 4, 4), (2, 300, 2), (0, 500, 0), (0, 520, 8),
    (100, 500, 100), (10, 700, 198),
])  # fmt: skip
def test_connections_without_a_key_make_room_once_they_had_time_to_show_one(old: int, new: int, cut: int):
    assert surplus([SHOWN_WITHIN] * old + [0.0] * new) == cut


async def test_many_connections_of_the_worker_at_once_are_not_taken_for_those_of_others():
    proxy, route = EgressProxy(), Route()
    url = await asyncio.to_thread(proxy.url, route)
    key = base64.b64encode(f"route:{route.key}".encode()).decode()
    answers = await asyncio.gather(*(ask(url, key=key) for _ in range(2 * MOST_STRANGERS)))
    assert {each[:13] for each in answers} == {b"HTTP/1.1 403 "}
    proxy.close()


@pytest.mark.parametrize("raw", [
    b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x00\xff" * 20 + b"\r\n\r\n", b"A" * 100_000, b"GET / HTTP/1.1\r\n\r\n",
    b"CONNECT :0 HTTP/1.1\r\n\r\n", b"CONNECT [::1 HTTP/1.1\r\n\r\n", b"GET http://h:99999/ HTTP/1.1\r\n\r\n",
])  # fmt: skip
async def test_any_bytes_to_the_proxy_end_that_connection_and_no_other(raw: bytes):
    proxy = EgressProxy()
    parts = urlsplit(await asyncio.to_thread(proxy.url, Route()))
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(raw)
    with suppress(ConnectionError):
        assert (await reader.read())[:10] in {b"", b"HTTP/1.1 4"}
    writer.close()
    assert (await ask(parts.geturl(), key=None)).startswith(b"HTTP/1.1 407 ")
    proxy.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_the_proxy_of_the_environment_is_still_used_with_its_own_credentials(
    task_of: Callable[[str], TaskFiles], certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tls: bool
):
    def refuse(_request: str) -> tuple[str, bytes, int]:
        return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n", b"", 0

    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(refuse) as proxy, serving(no_answer, certificates.server if tls else None) as store:
        variable = "https_proxy" if tls else "http_proxy"
        monkeypatch.setenv(variable, proxy.url.replace("http://", "http://user:word@"))
        task = task_of(store.url)
        with pytest.raises(TaskError):
            await attempt(task, "head")
        start = f"CONNECT {urlsplit(store.url).netloc} " if tls else f"HEAD {store.url}/b/k "
        assert [request.startswith(start) for request in proxy.requests] == [True]
        assert "proxy-authorization: basic dXNlcjp3b3Jk\r\n".lower() in proxy.requests[0].lower()
        assert store.requests == []
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with suppress(TaskError):
            await attempt(task_of(store.url), "head")
        assert store.requests
        assert len(proxy.requests) == 1


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("https://store.example", "store.example:443"),
        ("https://store.example:443/below", "store.example:443"),
        ("https://store.example:80", "store.example:80"),
        ("https://store.example:9000", "store.example:9000"),
        ("https://[2001:db8::1]", "[2001:db8::1]:443"),
        (None, "s3.us-east-1.amazonaws.com:443"),
    ],
)
async def test_a_store_is_reached_at_the_port_of_its_own_scheme(
    task_of: Callable[[str | None], TaskFiles], monkeypatch: pytest.MonkeyPatch, endpoint: str | None, place: str
):
    def refuse(_request: str) -> tuple[str, bytes, int]:
        return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n", b"", 0

    async with serving(refuse) as proxy:
        for variable in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("https_proxy", proxy.url)
        with pytest.raises(TaskError):
            await attempt(task_of(endpoint), "head")
        assert [request.split(" ")[:2] for request in proxy.requests] == [["CONNECT", place]]
