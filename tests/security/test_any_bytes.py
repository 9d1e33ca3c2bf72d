"""Whatever bytes an orchestrator sends, a call ends in a value or a `TransportError`, and the worker lives on."""

import asyncio
import contextlib
import gzip
import json
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avtomatika_worker import Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState
from avtomatika_worker.errors import ConnectionFailedError, MalformedMessageError
from avtomatika_worker.link.isolation import contained, keep_running
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.protocol.dialects import NEWEST, choose
from avtomatika_worker.world import REAL
from fuzz.targets import by_name
from services.conftest import actions

# ------------------------------------------------------------------------------------------- one call

NAMES = st.sampled_from(
    [
        b"X-RXON-Version",
        b"Date",
        b"Retry-After",
        b"Content-Length",
        b"Content-Encoding",
        b"Transfer-Encoding",
        b"Content-Type",
        b"Set-Cookie",
        b"Location",
        b"Connection",
        b"Upgrade",
        b"X",
    ]
)
LONG = b"Mon, 23 Nov 2026 12:00:30 GMT"
GOOD = [
    b"1.0b17",
    b"2",
    b"-1",
    b"gzip",
    b"zstd",
    b"br",
    b"deflate",
    b"chunked",
    b"close",
    b"Mon, 23 Nov 2026 12:00:30 GMT",
]
TEXTS = st.sampled_from([*GOOD, b"caf\xc3\xa9", b"\xff\xfe", b"", b"1" * 400]) | st.binary(max_size=12)
BODIES = st.sampled_from([b"{}", b"2\r\n{}\r\n0\r\n\r\n", gzip.compress(b"{}"), zlib.compress(b"{}")]) | st.binary(
    max_size=40
)


@st.composite
def answers(draw):
    """An HTTP answer in which any part may be wrong."""
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b"HTTP/9.9", b"ICY"]))
    status = draw(
        st.sampled_from([b"200", b"204", b"100", b"101", b"302", b"429", b"503", b"999", b"1e3", b"", b"2\xb2"])
    )
    lines = [b" ".join([version, status, draw(st.sampled_from([b"OK", b"", b"\xff"]))])]
    lines += [name + b": " + text for name, text in draw(st.lists(st.tuples(NAMES, TEXTS), max_size=4))]
    return draw(st.sampled_from([b"\r\n", b"\r\n", b"\n", b"\r"])).join([*lines, b"", draw(BODIES)])


@given(answers() | st.binary(max_size=60))
@settings(max_examples=300)
@example(b"HTTP/1.1 200 OK\r\nDate: caf\xe9\r\nContent-Length: 2\r\n\r\n{}")
@example(b"HTTP/1.1 429 Slow\r\nRetry-After: \x80\r\nContent-Length: 2\r\n\r\n{}")
@example(b"HTTP/1.1 200 OK\r\nX-RXON-Version: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}")
def test_any_answer_ends_in_a_value_or_a_transport_error(answer):
    by_name("http").run(answer)


@given(st.binary(max_size=80), st.sampled_from([b"\x00", b"\x01"]))
@settings(max_examples=300)
@example(b"\x81\x02\xff\xff", b"\x01")
@example(b"\xf1\x00", b"\x01")
@example(b"\x88\x01\x00", b"\x01")
@example(b"HTTP/1.1 101 \xff\r\nUpgrade: websocket\r\n\r\n", b"\x00")
def test_any_bytes_on_the_websocket_end_in_messages_or_a_transport_error(sent, how):
    by_name("websocket").run(how + sent)


@pytest.mark.parametrize("version", ["1.0b17\n", "1.0b17\r", "1.0b１７", "\x001.0b17", "1.0b17 ", "1.0b99999", "é"])
def test_a_version_that_no_header_can_carry_gets_the_newest_dialect(version):
    assert choose(version).dialect is NEWEST
    assert not choose(version).exact


# ------------------------------------------------------------------------------------------- a running worker


def registered(version):
    """Return the raw answer to a registration; ``version`` as it stands in the JSON."""
    body = b'{"status":"registered","version":"%b"}' % version
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


EVIL = {
    "a header that is not ASCII": b"HTTP/1.1 503 X\r\nDate: caf\xe9\r\nContent-Length: 0\r\n\r\n",
    "a version that ends in a newline": registered(b"1.0b17\\n"),
    "a version with digits of another script": registered(b"1.0b\\uff11\\uff17"),
    "a switch of protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nzzz",
    "no HTTP at all": b"\x00\xff" * 40,
}


@contextlib.asynccontextmanager
async def answering(answer):
    """Serve ``answer``, whatever is asked; yield the URL, and a list that grows with each request."""
    asked = []

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("name", EVIL)
async def test_an_orchestrator_that_sends_anything_takes_no_other_and_no_running_task_with_it(name, caplog):
    worker, go_on = Worker(), asyncio.Event()

    @worker.skill
    async def slow() -> dict:
        await go_on.wait()
        return {"done": True}

    async with EmbeddedOrchestrator(poll_time=0.5) as good, answering(EVIL[name]) as (url, asked):
        both = json.dumps([{"url": good.url, "token": good.token}, {"url": url, "token": "x"}])
        environ = {"WORKER_ID": "w1", "ORCHESTRATORS_CONFIG": both}
        fast = {"registration_retry_initial_delay": 0.01, "registration_retry_max_delay": 0.02}
        main = asyncio.create_task(
            worker.main(worker.load_settings(environ, {**fast, "result_durability": "off"}), health_check=False)
        )
        try:
            await good.wait_for_worker("w1", timeout=10)
            job = good.submit("slow", {})
            await good.wait_for(lambda: job.state is JobState.RUNNING)
            async with asyncio.timeout(20):
                while len(asked) < 5:  # noqa: ASYNC110 - the server is raw bytes
                    await asyncio.sleep(0.01)
            go_on.set()
            assert (await job.done(timeout=10)).result == {"done": True}
            assert not main.done()
        finally:
            worker.request_shutdown()
            await main
    assert actions(caplog, "link_failed") == []


# ------------------------------------------------------------------------------------------- a fault of our own


class Broken:
    """What a link shows to what contains its faults."""

    url = "http://o"

    def __init__(self):
        self.faults = LogThrottle()
        self.world = REAL
        self.breaks = 0
        self.runs = 0

    def contact_broken(self):
        self.breaks += 1

    @contained
    async def call(self):
        raise LookupError("a bug")

    @contained
    async def refused(self):
        raise MalformedMessageError("no answer")

    async def service(self):
        self.runs += 1
        if self.runs < 3:
            raise ExceptionGroup("a group", [LookupError("a bug")])


async def test_a_call_that_fails_for_any_reason_is_a_failed_connection_with_one_traceback(caplog):
    link = Broken()
    for _ in range(3):
        with pytest.raises(ConnectionFailedError, match="LookupError"):
            await link.call()
    with pytest.raises(MalformedMessageError):
        await link.refused()
    assert link.breaks == 3
    (record,) = [each for each in caplog.records if each.exc_info]
    assert (record.action, record.levelname) == ("link_failed", "ERROR")


async def test_a_service_that_fails_is_started_again_alone_until_it_returns(caplog):
    link = Broken()
    async with asyncio.timeout(20):
        await keep_running(link, link.service)
    assert (link.runs, link.breaks) == (3, 2)
    assert len([each for each in caplog.records if each.exc_info]) == 1


async def test_a_cancellation_is_not_a_fault(caplog):
    link = Broken()

    async def forever():
        await asyncio.Event().wait()

    running = asyncio.create_task(keep_running(link, forever))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (link.breaks, caplog.records) == (0, [])
