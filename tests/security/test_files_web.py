"""Files from web hosts: only from those that are listed, only at public addresses, whatever they answer."""

import ipaddress
import ssl
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker import TaskFiles, Worker
from avtomatika_worker.errors import IntegrityMismatchError, SourceRefusedError, UnsafeNameError
from avtomatika_worker.files.objects import ObjectInfo
from avtomatika_worker.files.offload import expectation, verification
from avtomatika_worker.files.web import WebHosts
from avtomatika_worker.files.web_resolver import PrivateAddressError, refuse_private
from avtomatika_worker.testing import WorkerHarness

CONTENT = b"\x00\x01hello" * 300_000


@pytest.fixture
def authority(tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


class Host:
    """A web host at localhost with TLS; what was asked is in ``asked``."""

    def __init__(self):
        self.port = 0
        self.asked = []

    async def answer(self, request):
        self.asked.append(request)
        headers = {"ETag": '"e1"'}
        match request.path:
            case "/redirect.bin":
                raise web.HTTPFound("/file.bin")
            case "/chunked.bin":
                answer = web.StreamResponse(headers=headers)
                await answer.prepare(request)
                await answer.write(CONTENT)
                return answer
            case "/gzip.bin":
                return web.Response(body=b"x", headers={"Content-Encoding": "gzip"})
            case "/busy.bin":
                return web.Response(status=503)
            case "/closed.bin":
                return web.Response(status=403)
            case "/file.bin":
                return web.Response(body=CONTENT, headers=headers)
        raise web.HTTPNotFound


@pytest.fixture
async def host(authority):
    async with serving(authority, "localhost") as host:
        yield host


@asynccontextmanager
async def serving(authority, name):
    host = Host()
    app = web.Application()
    app.router.add_get("/{name:.*}", host.answer)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(tls)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host.port = runner.addresses[0][1]
    try:
        yield host
    finally:
        await runner.cleanup()


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")

    @worker.skill
    def size(file: Path, note: str = ""):
        return {"size": file.stat().st_size, "name": file.name, "note": note}

    @worker.skill
    async def fetch(url: str, files: TaskFiles):
        return {"size": len(await files.read(await files.download_file(url), "rb"))}

    return worker


@pytest.fixture
def settings(host):
    return {"file_private_hosts": (f"localhost:{host.port}",)}


async def test_a_file_of_a_listed_host_is_fetched_where_the_types_ask_for_one(worker, host, settings):
    url = f"https://localhost:{host.port}/file.bin?signature=s3cret"
    async with WorkerHarness(worker, settings=settings) as h:
        data = (await h.run("size", {"file": url, "note": url})).data
        assert data == {"size": len(CONTENT), "name": "file.bin", "note": url}
        assert (await h.run("fetch", {"url": url})).data == {"size": len(CONTENT)}
    request = host.asked[0]
    assert request.path_qs == "/file.bin?signature=s3cret"
    assert {"Authorization", "Cookie"}.isdisjoint(request.headers)


async def test_one_without_a_length_is_fetched_and_bounded_too(worker, host, settings):
    url = f"https://localhost:{host.port}/chunked.bin"
    async with WorkerHarness(worker, settings=settings) as h:
        assert (await h.run("size", {"file": url})).data["size"] == len(CONTENT)
    for name in ("file.bin", "chunked.bin"):
        limited = {**settings, "task_files_max_bytes": len(CONTENT) - 1}
        async with WorkerHarness(worker, settings=limited) as h:
            error = (await h.run("size", {"file": f"https://localhost:{host.port}/{name}"})).error
        assert error.code == "INVALID_INPUT_ERROR"
        assert "WORKER_TASK_FILES_MAX_BYTES" in error.message


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("redirect.bin", "DEPENDENCY_ERROR", "redirects, which is not followed"),
        ("gzip.bin", "DEPENDENCY_ERROR", "compressed"),
        ("closed.bin", "DEPENDENCY_ERROR", "answers 403"),
        ("busy.bin", "TRANSIENT_ERROR", "answers 503"),
        ("none.bin", "INVALID_INPUT_ERROR", "there is no such file"),
        ("a%2f..%2fb", "INVALID_INPUT_ERROR", "stands for a path"),
    ],
)
async def test_any_other_answer_is_an_error_without_the_query(worker, host, settings, name, code, message):
    async with WorkerHarness(worker, settings=settings) as h:
        error = (await h.run("size", {"file": f"https://localhost:{host.port}/{name}?signature=s3cret"})).error
    assert error.code == code
    assert message in error.message
    assert "s3cret" not in f"{error.message}{error.details}"
    assert len(host.asked) <= 1


@pytest.mark.parametrize("skill", ["size", "fetch"])
@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:s3cret@h/x?signature=s3cret", "http://h/x"),
        ("https://user:s3cret@h/x?signature=s3cret", "https://h/x"),
        ("ftp://h/x#s3cret", "ftp://h/x"),
    ],
)
async def test_no_error_shows_the_query_or_the_password_of_a_url(worker, host, settings, skill, url, shown):
    async with WorkerHarness(worker, settings=settings) as h:
        error = (await h.run(skill, {"file": url} if skill == "size" else {"url": url})).error
    assert repr(shown) in error.message
    assert "s3cret" not in f"{error.message}{error.details}"


def test_an_object_that_is_not_the_expected_one_is_reported_without_the_query_of_its_url():
    url, given = "https://h/x?signature=s3cret", {"size": 5}
    for check in (expectation(url, ("file",), {"file": given}), verification(url, given)):
        with pytest.raises(IntegrityMismatchError, match="https://h/x has size 6") as caught:
            check(ObjectInfo(6, None))
        assert "s3cret" not in f"{caught.value.message}{caught.value.details}"


async def test_a_host_at_a_private_address_is_asked_nothing_unless_it_is_listed_as_one(worker, host, settings):
    public = {**settings, "file_private_hosts": (), "file_hosts": (f"localhost:{host.port}", f"127.0.0.1:{host.port}")}
    async with WorkerHarness(worker, settings=public) as h:
        for name in ("localhost", "127.0.0.1"):
            error = (await h.run("size", {"file": f"https://{name}:{host.port}/file.bin"})).error
            assert error.code == "INVALID_INPUT_ERROR"
            assert "WORKER_FILE_PRIVATE_HOSTS" in error.message
    assert host.asked == []


async def test_a_host_with_a_wrong_certificate_is_asked_nothing(worker, authority, settings):
    async with serving(authority, "elsewhere.example") as other:
        wrong = {**settings, "file_private_hosts": (f"localhost:{other.port}",)}
        async with WorkerHarness(worker, settings=wrong) as h:
            error = (await h.run("size", {"file": f"https://localhost:{other.port}/file.bin"})).error
    assert error.code == "DEPENDENCY_ERROR"
    assert "certificate is not trusted" in error.message
    assert other.asked == []


async def test_without_a_list_nothing_is_fetched_from_the_web(worker, host):
    async with WorkerHarness(worker) as h:
        error = (await h.run("size", {"file": f"https://localhost:{host.port}/file.bin"})).error
    assert error.code == "INVALID_INPUT_ERROR"
    assert "no web host (WORKER_FILE_HOSTS" in error.message
    assert host.asked == []


HOSTS = WebHosts(["a.example", "b.example:8443"], [])


@pytest.mark.parametrize("url", ["https://a.example/x", "HTTPS://A.example:443/x?y=1", "https://b.example:8443/x"])
def test_a_listed_host_and_port_may_be_asked(url):
    assert HOSTS.check(url).name == "x"


@pytest.mark.parametrize(
    "url",
    [
        "https://c.example/x",
        "https://a.example:8443/x",
        "https://b.example/x",
        "https://a.example.c.example/x",
        "https://c.example#@a.example/x",
        "https://c.example?@a.example/x",
        "https://c.example\\@a.example/x",
        "https://a.example@c.example/x",
        "https://user:secret@a.example/x",
        "https://a.example\t.c.example/x",
        "https://a.example\r\nHost: c.example/x",
        "https://a.example./x",
        "https://a.example /x",
        "https:///x",
        "https://",
        "https://[a.example]/x",
        "https://a.example:99999/x",
        "https://а.example/x",
    ],
)
def test_anything_else_is_refused(url):
    with pytest.raises(UnsafeNameError) as refused:
        HOSTS.check(url)
    assert "secret" not in str(refused.value)


@given(
    st.text().map("https://{}".format) | st.from_regex(r"https://[a-c.@:/\\?#\[\]%]*a\.example[^x]*", fullmatch=True)
)
def test_a_url_that_is_accepted_leads_to_a_listed_host(url):
    from yarl import URL

    try:
        accepted = HOSTS.check(url)
    except (SourceRefusedError, UnsafeNameError):
        return
    asked = URL(accepted.url, encoded=True)
    assert (asked.host, asked.port) in {("a.example", 443), ("b.example", 8443)}
    assert "/" not in accepted.name


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254"),
        *("fec0::1", "::127.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b:1::a00:1", "5f00::1", "4000::1"),  # not unicast
        "168.63.129.16",  # Azure's own service in its machines
    ],
)
def test_an_address_that_is_not_public_is_refused(address):
    with pytest.raises(PrivateAddressError):
        refuse_private(address)


def test_public_addresses_and_names_are_not_refused():
    for each in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "a.example"):
        refuse_private(each)


@given(st.ip_addresses(v=4).filter(lambda each: not each.is_global))
def test_no_private_address_hides_in_another_one(address):
    for inside in (
        f"::{address}",
        f"::ffff:{address}",
        f"::ffff:0:{address}",
        str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address))),
    ):
        with pytest.raises(PrivateAddressError):
            refuse_private(inside)
