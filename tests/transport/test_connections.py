"""Connections on both kinds of event loop: kept, replaced, closed, raced."""

import asyncio
import contextlib
import contextvars
import gc
import os
import socket
import sys
import weakref
import zlib
from pathlib import Path

import psutil
import pytest

from avtomatika_worker.errors import AnswerTooLongError, CallTimedOutError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.connection import IDLE_TIMEOUT
from avtomatika_worker.transport.http import HttpTransport
from transport.conftest import calling, ok, serving

RESTED = 0.03
"""Seconds after which a connection with an idle timeout of a second has to be looked at again."""

POLL, RESULT = Request("GET", "/poll"), Request("POST", "/result", b"{}")


@pytest.fixture(autouse=True)
def _direct(no_proxies):
    pass


# ------------------------------------------------------------------------------------------- kept, and replaced


def test_calls_after_one_another_share_a_connection_and_calls_at_once_have_their_own(run):
    async def main():
        async def answer(server, writer, head):
            await asyncio.sleep(0.01)
            writer.write(ok())

        async with serving(answer) as server, calling(server.url) as transport:
            for _ in range(3):
                assert (await transport.send(RESULT, {}, 5)).body == b"{}"
            assert server.connections == 1
            await asyncio.gather(*(transport.send(POLL, {}, 5) for _ in range(4)))
            assert server.connections == 4
            await asyncio.gather(*(transport.send(POLL, {}, 5) for _ in range(4)))
            assert server.connections == 4

    run(main)


def test_a_request_has_its_line_headers_and_body(run):
    async def main():
        async with serving(ok()) as server, calling(server.url + "/prefix/") as transport:
            port = server.port
            await transport.send(Request("POST", "/a?b=c", b"{}"), {"X-Worker-Token": "s3cr3t"}, 5)
            await transport.send(Request("POST", "/token"), {}, 5)
            await transport.send(Request("GET", "/é n"), {}, 5)
        first, second, third = server.heads
        lines = first.split("\r\n")
        assert lines[0] == "POST /prefix/a?b=c HTTP/1.1"
        assert {f"Host: 127.0.0.1:{port}", "User-Agent: test", "X-Worker-Token: s3cr3t"} <= set(lines)
        assert {"Content-Type: application/json", "Content-Length: 2"} <= set(lines)
        assert "Content-Length: 0" in second
        assert third.startswith("GET /prefix/%C3%A9%20n HTTP/1.1\r\n")
        assert "Content-" not in third

    run(main)


def test_a_connection_that_was_closed_while_idle_is_replaced_without_an_error(run):
    async def main():
        async def answer(server, writer, head):
            writer.write(ok())
            return False

        async with serving(answer) as server, calling(server.url) as transport:
            for count in range(1, 5):
                assert (await transport.send(RESULT, {}, 5)).status == 200
                async with asyncio.timeout(5):
                    await server.ended[-1].wait()
                await asyncio.sleep(0.01)  # the end has to arrive here, too
                assert server.connections == count

    run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="poll")
def test_a_close_that_the_loop_was_too_busy_to_see_is_seen(run):
    async def main():
        async def answer(server, writer, head):
            writer.write(ok())

        async with serving(answer) as server, calling(server.url, idle_timeout=1) as transport:
            await transport.send(RESULT, {}, 5)
            await asyncio.sleep(RESTED)
            server.shut_down()  # arrives at once, unseen by the loop
            assert (await transport.send(RESULT, {}, 5)).status == 200
            assert server.connections == 2

    run(main)


def test_a_close_of_an_idle_connection_is_reported_once_with_its_idle_time(run):
    async def main():
        rests = asyncio.Queue()
        async with serving(ok()) as server, calling(server.url, on_dropped=rests.put_nowait) as transport:
            began = asyncio.get_running_loop().time()
            await asyncio.gather(*(transport.send(POLL, {}, 5) for _ in range(2)))
            server.shut_down()
            async with asyncio.timeout(5):
                assert [0 <= await rests.get() <= asyncio.get_running_loop().time() - began for _ in range(2)]
            await transport.send(POLL, {}, 5)
        assert rests.empty()  # the last was closed here

    run(main)


@pytest.mark.skipif(sys.platform == "win32", reason="poll")
def test_a_close_that_the_next_call_finds_is_reported_too(run):
    async def main():
        rests = asyncio.Queue()
        async with (
            serving(ok()) as server,
            calling(server.url, idle_timeout=1, on_dropped=rests.put_nowait) as transport,
        ):
            await transport.send(RESULT, {}, 5)
            await asyncio.sleep(RESTED)
            server.shut_down()  # arrives at once, unseen by the loop
            await transport.send(RESULT, {}, 5)
            async with asyncio.timeout(5):
                assert await rests.get() >= RESTED / 2

    run(main)


def test_no_other_end_of_a_connection_is_reported(run):
    async def main():
        rests = []
        answers = [ok(), ok(b"{}", b"Connection: close"), ok(), ok() + b"HTTP/1.1 408 Request Timeout\r\n\r\n", b""]

        async def answer(server, writer, head):
            writer.write(answers.pop(0))
            return bool(answers)

        async with (
            serving(answer) as server,
            calling(server.url, idle_timeout=0.02, on_dropped=rests.append) as transport,
        ):
            await transport.send(RESULT, {}, 5)
            async with asyncio.timeout(5):
                await server.ended[0].wait()  # it was idle for long enough
            await transport.send(RESULT, {}, 5)
            await transport.send(RESULT, {}, 5)
            transport.open()  # with other connections from now on
            await transport.send(RESULT, {}, 5)
            with pytest.raises(ConnectionFailedError):
                await transport.send(RESULT, {}, 5)
        assert rests == []

    run(main)


def dropping(server_heads):
    """Answer each connection's first request; close it on the second, unanswered."""

    async def answer(server, writer, head):
        server_heads.append(head.split(" ")[0])
        if getattr(writer, "answered", False):
            return False
        writer.answered = True
        writer.write(ok())
        return None

    return answer


def test_a_poll_is_repeated_if_a_connection_that_was_idle_ends_before_the_answer(run):
    async def main():
        asked = []
        async with serving(dropping(asked)) as server, calling(server.url, idle_timeout=5) as transport:
            for _ in range(2):
                assert (await transport.send(POLL, {}, 5)).status == 200
                await asyncio.sleep(5 * RESTED)
            assert (asked, server.connections) == (["GET"] * 3, 2)

    run(main)


def test_a_held_poll_is_not_repeated_since_its_end_is_a_break(run):
    async def main():
        async def answer(server, writer, head):
            if len(server.heads) > 1:
                await asyncio.sleep(RESTED)
                return False
            writer.write(ok())
            return None

        for rest in (0, RESTED):
            async with serving(answer) as server, calling(server.url, idle_timeout=1) as transport:
                await transport.send(POLL, {}, 5)
                await asyncio.sleep(rest)
                with pytest.raises(ConnectionFailedError, match="connection closed before an answer came"):
                    await transport.send(POLL, {}, 5)
                assert len(server.heads) == 2

    run(main)


def test_a_signed_message_is_never_repeated_by_itself_and_its_caller_learns_that_it_may_have_arrived(run):
    async def main():
        asked = []
        async with serving(dropping(asked)) as server, calling(server.url, idle_timeout=5) as transport:
            await transport.send(RESULT, {}, 5)
            await asyncio.sleep(5 * RESTED)
            with pytest.raises(ConnectionFailedError, match="connection closed before an answer came") as caught:
                await transport.send(RESULT, {}, 5)
            assert caught.value.maybe_processed
            assert asked == ["POST"] * 2

    run(main)


def test_a_poll_on_a_new_connection_is_not_repeated_nor_one_whose_answer_had_begun(run):
    async def main():
        async def never(server, writer, head):
            return False

        async def half(server, writer, head):
            writer.write(ok() if len(server.heads) == 1 else ok()[:30])
            return len(server.heads) == 1

        async with serving(never) as server, calling(server.url) as transport:
            with pytest.raises(ConnectionFailedError):
                await transport.send(POLL, {}, 5)
            assert len(server.heads) == 1
        async with serving(half) as server, calling(server.url) as transport:
            await transport.send(POLL, {}, 5)
            with pytest.raises(ConnectionFailedError, match="in the middle of an answer"):
                await transport.send(POLL, {}, 5)
            assert len(server.heads) == 2

    run(main)


@pytest.mark.parametrize(
    "answer",
    [
        ok() + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
        ok() + b"garbage",
        ok(b"{}", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
def test_a_connection_with_more_on_it_than_the_answer_carries_no_other_call(run, answer):
    async def main():
        async with serving(answer) as server, calling(server.url) as transport:
            for count in (1, 2):
                assert (await transport.send(POLL, {}, 5)).body in {b"{}", b""}
                assert server.connections == count

    run(main)


def test_unrequested_bytes_are_not_an_answer_to_the_next_call(run):
    async def main():
        late = asyncio.Event()

        async def answer(server, writer, head):
            writer.write(ok(b"good"))
            await writer.drain()
            await late.wait()
            writer.write(ok(b"poison"))

        async with serving(answer) as server, calling(server.url) as transport:
            assert (await transport.send(POLL, {}, 5)).body == b"good"
            late.set()
            async with asyncio.timeout(5):
                await server.ended[0].wait()
            assert (await transport.send(POLL, {}, 5)).body == b"good"

    run(main)


def test_an_idle_connection_is_closed_after_a_while(run):
    async def main():
        async with serving(ok()) as server, calling(server.url, idle_timeout=0.1) as transport:
            await transport.send(POLL, {}, 5)
            async with asyncio.timeout(5):
                await server.ended[0].wait()
            await transport.send(POLL, {}, 5)
            assert server.connections == 2

    run(main)


def test_the_longest_idle_time_is_below_what_servers_and_proxies_keep():
    assert IDLE_TIMEOUT < 60  # of load balancers; nginx and aiohttp keep 75


# ------------------------------------------------------------------------------------------- ended


def test_a_cancelled_long_poll_closes_its_connection_at_once(run):
    async def main():
        asked = asyncio.Event()

        async def answer(server, writer, head):
            asked.set()
            await server.gone.wait()

        async with serving(answer) as server, calling(server.url) as transport:
            server.gone = asyncio.Event()
            call = asyncio.create_task(transport.send(POLL, {}, 60))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            async with asyncio.timeout(5):
                assert await server.readers[0].read() == b""
            server.gone.set()

    run(main)


def test_calls_cancelled_in_any_turn_of_the_loop_leave_nothing_to_wait_for_at_its_end(run):
    """uvloop closes a connection that is cancelled in the turn in which it is made, without calling its protocol."""

    async def main():
        async with serving(ok()) as server:
            for turns in range(40):
                transport = HttpTransport(server.url, user_agent="test")
                transport.open()
                calls = [asyncio.create_task(transport.send(POLL, {}, 60)) for _ in range(5)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in calls:
                    call.cancel()
                await asyncio.wait(calls)
                async with asyncio.timeout(5):
                    await transport.close()

    run(main)


def test_a_call_ends_in_time_wherever_the_other_side_stops(run):
    async def main():
        async def answer(server, writer, head):
            writer.write(server.start)
            await server.gone.wait()

        for start in (b"", b"HTTP/1.1 200", ok(b"x" * 100)[:-1], ok(b"x" * 100_000)[:-1]):
            async with serving(answer) as server, calling(server.url) as transport:
                server.start, server.gone = start, asyncio.Event()
                for _ in range(2):
                    with pytest.raises(CallTimedOutError, match=r"^no answer within 0\.1 s$"):
                        await transport.send(POLL, {}, 0.1)
                server.gone.set()

    run(main)


def test_a_short_time_after_a_long_one_is_kept_on_the_same_connection(run):
    async def main():
        async def answer(server, writer, head):
            if len(server.heads) == 1:
                writer.write(ok())
            else:
                await server.gone.wait()

        async with serving(answer) as server, calling(server.url) as transport:
            server.gone = asyncio.Event()
            await transport.send(POLL, {}, 120)
            with pytest.raises(CallTimedOutError):
                await transport.send(RESULT, {}, 0.1)
            assert server.connections == 1
            server.gone.set()

    run(main)


def test_the_end_of_the_transport_ends_calls_and_connections(run):
    async def main():
        async def answer(server, writer, head):
            server.asked.set()
            await server.gone.wait()

        async with serving(answer) as server:
            server.asked, server.gone = asyncio.Event(), asyncio.Event()
            async with calling(server.url) as transport:
                call = asyncio.create_task(transport.send(POLL, {}, 60))
                await server.asked.wait()
            with pytest.raises(ConnectionFailedError, match="connection closed"):
                await call
            with pytest.raises(ConnectionFailedError, match="not open") as caught:
                await transport.send(POLL, {}, 5)
            assert not caught.value.maybe_processed
            transport.open()
            server.gone.set()
            call = asyncio.create_task(transport.send(POLL, {}, 60))
            call.cancel()
            await asyncio.wait({call})
            await transport.close()

    run(main)


def test_connections_end_with_the_loop_that_they_belong_to(run):
    listener = socket.create_server(("127.0.0.1", 0))
    transport = HttpTransport(f"http://127.0.0.1:{listener.getsockname()[1]}", user_agent="test")
    transport.open()

    async def call():
        sending = asyncio.create_task(transport.send(POLL, {}, 5))
        accepted, _ = await asyncio.to_thread(listener.accept)
        await asyncio.to_thread(accepted.recv, 10_000)
        accepted.sendall(ok())
        assert (await sending).status == 200
        return accepted

    for _ in range(2):
        accepted = run(call)
        accepted.settimeout(5)
        assert accepted.recv(1) == b""
        accepted.close()
    listener.close()
    asyncio.run(transport.close())


def connections_to(port):
    return [each for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port]


def open_in_a_child(descriptors):
    """Fork, and return how many of the descriptors are open over there."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(sum(Path(f"/proc/self/fd/{each}").exists() for each in descriptors))
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_holds_no_connection_open(run):
    async def main():
        async with serving(ok()) as server, calling(server.url) as transport:
            await transport.send(POLL, {}, 5)
            ours = {each.fd for each in connections_to(server.port)}
            assert (len(ours), open_in_a_child(ours)) == (1, 0)

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_keeps_a_descriptor_that_a_connection_used_before(run):
    """A connection whose loop was closed earlier reports its end to nobody."""

    async def main():
        async with serving(ok()) as server, calling(server.url) as transport:
            await transport.send(POLL, {}, 5)
            (ours,) = {each.fd for each in connections_to(server.port)}
            kept, another = os.dup(ours), os.open(os.devnull, os.O_RDONLY)
            os.dup2(another, ours)
            open_there = open_in_a_child([ours])
            os.dup2(kept, ours)
            os.close(kept)
            os.close(another)
            assert open_there == 1

    run(main)


def test_a_connection_keeps_nothing_of_the_call_that_made_it(run):
    class Heavy:
        pass

    variable = contextvars.ContextVar("variable")

    async def main():
        async with serving(ok()) as server, calling(server.url) as transport:

            async def call():
                heavy = Heavy()
                variable.set(heavy)
                await transport.send(POLL, {}, 5)
                return weakref.ref(heavy)

            left = await asyncio.create_task(call())
            await asyncio.sleep(0)  # what has brought us here still knows the task
            gc.collect()
            assert left() is None
            await transport.send(POLL, {}, 5)
            assert server.connections == 1

    run(main)


# ------------------------------------------------------------------------------------------- made


def names(monkeypatch, **hosts):
    """Have names resolve to what is given."""

    def lookup(host, port, family=0, type=0, proto=0, flags=0):
        if host not in hosts or flags & socket.AI_NUMERICHOST:
            return real(host, port, family, type, proto, flags)
        if isinstance(hosts[host], Exception):
            raise hosts[host]
        return [found for each in hosts[host] for found in real(each, port, 0, socket.SOCK_STREAM)]

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.fixture
def full():
    """An address whose host takes no connection, and says nothing."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_INET6))
        listener.bind(("::1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket(socket.AF_INET6))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6() or sys.platform != "linux", reason="IPv6; a queue that fills")


def on_asyncio(main):
    """Run it where names are looked up with `socket.getaddrinfo`: uvloop has a resolver of its own."""
    with asyncio.Runner() as runner:
        return runner.run(main())


@needs_ipv6
def test_a_dead_address_delays_a_call_by_a_moment(monkeypatch, full):
    names(monkeypatch, **{"two.test": ["::1", "127.0.0.1"]})

    async def main():
        async with serving(ok(), port=full) as server, calling(f"http://two.test:{full}") as transport:
            began = asyncio.get_running_loop().time()
            assert (await transport.send(POLL, {}, 9)).status == 200
            assert asyncio.get_running_loop().time() - began >= 0.2
            assert f"Host: two.test:{server.port}" in server.heads[0]

    on_asyncio(main)


@needs_ipv6
def test_an_address_that_refuses_makes_way_for_the_next(monkeypatch):
    names(monkeypatch, **{"two.test": ["::1", "127.0.0.1"]})

    async def main():
        async with serving(ok()) as server, calling(f"http://two.test:{server.port}") as transport:
            assert (await transport.send(POLL, {}, 9)).status == 200

    on_asyncio(main)


@needs_ipv6
def test_ipv6_literals_are_called(run):
    async def main():
        async with serving(ok(), host="::1", family=socket.AF_INET6) as server:
            async with calling(f"http://[::1]:{server.port}") as transport:
                assert (await transport.send(POLL, {}, 9)).status == 200
            assert f"Host: [::1]:{server.port}" in server.heads[0]

    run(main)


@needs_ipv6
def test_no_address_in_time_leaves_no_socket_behind(monkeypatch, full):
    names(monkeypatch, **{"two.test": ["::1", "::1"]})

    async def main():
        async with calling(f"http://two.test:{full}", connect_timeout=0.6) as transport:
            with pytest.raises(ConnectionFailedError, match=r"^no connection within 0\.6 s$") as caught:
                await transport.send(POLL, {}, 9)
            assert not caught.value.maybe_processed
            with pytest.raises(CallTimedOutError, match=r"^no answer within 0\.1 s$"):
                await transport.send(POLL, {}, 0.1)
            call = asyncio.create_task(transport.send(POLL, {}, 9))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    on_asyncio(main)
    gc.collect()  # a socket that was left would warn


def test_the_reason_for_a_failed_connection_is_readable(run, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def main():
        async with calling(f"http://127.0.0.1:{port}") as transport:
            with pytest.raises(ConnectionFailedError, match=r"^Connection refused$") as caught:
                await transport.send(RESULT, {}, 9)
            assert not caught.value.maybe_processed
        async with calling("http://nowhere.invalid") as transport:
            with pytest.raises(ConnectionFailedError, match=r"^name lookup failed: "):
                await transport.send(POLL, {}, 9)
        async with calling(f"http://{'a' * 70}.test") as transport:
            with pytest.raises(ConnectionFailedError, match=r"^name lookup failed: "):
                await transport.send(POLL, {}, 9)

    run(main)


def test_a_token_that_no_header_can_carry_is_named_and_not_shown(run):
    async def main():
        async with serving(ok()) as server, calling(server.url) as transport:
            for value in ("s3cr3t\r\nX: y", "s3cr3t\0", "s3cr3t€"):
                with pytest.raises(ConnectionFailedError, match="X-Worker-Token") as caught:
                    await transport.send(POLL, {"X-Worker-Token": value}, 5)
                assert "s3cr3t" not in str(caught.value)
        assert server.heads == []

    run(main)


# ------------------------------------------------------------------------------------------- bodies


def gzipped(body, *, cut=None, more=b""):
    packer = zlib.compressobj(wbits=31)
    packed = (packer.compress(body) + packer.flush())[:cut] + more
    return ok(packed, b"Content-Encoding: gzip")


def test_compressed_bodies_are_read_and_malformed_ones_are_refused(run):
    async def main():
        body = os.urandom(100_000)
        for answer in (
            gzipped(b""),
            gzipped(b"{}"),
            gzipped(body),
            gzipped(bytes(2_000_000)),
            ok(b"", b"Content-Encoding: br"),
            ok(b"{}", b"Content-Encoding: identity"),
            ok(b"{}", b"Content-Encoding: Identity ,"),
        ):
            async with serving(answer) as server, calling(server.url) as transport:
                for _ in range(2):
                    found = (await transport.send(POLL, {}, 9)).body
                    assert found in {b"", b"{}", body, bytes(2_000_000)}
                assert server.connections == 1
        bad = (gzipped(body, cut=-1), gzipped(body, cut=50_000), gzipped(b"{}", more=b"x"), gzipped(b"{}", cut=3))
        for answer in (
            *bad,
            ok(b"{}", b"Content-Encoding: br"),
            ok(b"{}", b"Content-Encoding: gzip, gzip"),
            ok(b"{}", b"Content-Encoding: gzip"),
        ):
            async with serving(answer) as server, calling(server.url) as transport:
                with pytest.raises(ConnectionFailedError, match="compress"):
                    await transport.send(POLL, {}, 9)

    run(main)


def test_a_bomb_is_opened_no_further_than_the_limit(run):
    async def main():
        async with (
            serving(gzipped(bytes(300_000_000))) as server,
            calling(server.url, max_answer=1_000_000) as transport,
        ):
            with pytest.raises(AnswerTooLongError, match="MAX_RESPONSE_BYTES=1000000"):
                await transport.send(POLL, {}, 60)

    run(main)


def test_large_requests_arrive_whole_and_an_early_answer_ends_their_connection(run):
    async def main():
        async def refuse(server, writer, head):
            return None

        body = os.urandom(5_000_000)
        async with serving(ok()) as server, calling(server.url) as transport:
            for _ in range(2):
                assert (await transport.send(Request("POST", "/", body), {}, 20)).status == 200
            assert server.connections == 1

    run(main)


def test_an_answer_that_comes_before_the_request_was_sent_is_taken_and_its_connection_is_not(run):
    async def main():
        async def early(reader, writer):
            connections.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")

        connections = []
        server = await asyncio.start_server(early, "127.0.0.1", 0)
        async with calling(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as transport:
            for count in (1, 2):
                assert (await transport.send(Request("POST", "/", bytes(30_000_000)), {}, 20)).status == 413
                assert len(connections) == count
        server.close()
        for writer in connections:
            writer.close()

    run(main)
