"""The bytes of long answers that are in memory at the same time."""

import asyncio
import contextlib

import pytest

from avtomatika_worker.errors import AnswerTooLongError, CallTimedOutError
from avtomatika_worker.protocol.codec import Request
from avtomatika_worker.transport.budget import Budget
from avtomatika_worker.transport.http import HttpTransport

LIMIT = 1_000_000


async def test_reservations_are_granted_in_order_and_never_more_than_there_is():
    budget, order, held = Budget(10), [], []

    async def hold(name, size):
        async with budget.reserved(size):
            order.append(name)
            held.append(min(size, 10))
            assert sum(held) <= 10
            await asyncio.sleep(0)
            held.remove(min(size, 10))

    await asyncio.gather(*(hold(name, size) for name, size in enumerate([6, 6, 1, 9, 50, 1])))
    assert order == sorted(order)
    assert budget.left == 10


async def test_a_reader_that_gives_up_leaves_the_line():
    budget = Budget(10)
    async with budget.reserved(10):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(budget.reserved(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert budget.left == 10


async def test_other_loops_may_wait_for_it():
    budget = Budget(10)

    async def elsewhere():
        async with budget.reserved(10):
            return asyncio.get_running_loop()

    async with budget.reserved(10):
        other = asyncio.create_task(asyncio.to_thread(asyncio.run, elsewhere()))
        done, _ = await asyncio.wait({other}, timeout=0.2)
        assert not done
    assert await other is not asyncio.get_running_loop()


@pytest.fixture
async def stalling():
    """A server whose long answers stop in the middle, and a transport to it; ``open`` lets them go on."""
    go_on, connections = asyncio.Event(), []

    async def serve(reader, writer):
        connections.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.split(b" ")[1].removeprefix(b"/"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                writer.write(b"x" * (size // 2))
                if size > 1_000:
                    await go_on.wait()
                writer.write(b"x" * (size - size // 2))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    transport = HttpTransport(url, user_agent="test", max_answer=LIMIT)
    transport.open()
    transport.go_on = go_on.set
    yield transport
    await transport.close()
    go_on.set()
    server.close()
    for writer in connections:
        writer.close()


async def test_long_answers_that_never_end_leave_short_ones_alone(stalling):
    long = [asyncio.create_task(stalling.send(Request("GET", f"/{LIMIT}"), {}, 3)) for _ in range(10)]
    for _ in range(20):
        assert len((await stalling.send(Request("GET", "/100"), {}, 3)).body) == 100
    ends = await asyncio.gather(*long, return_exceptions=True)
    assert {type(end) for end in ends} == {CallTimedOutError}


async def test_long_answers_are_all_read_in_the_end(stalling):
    long = [asyncio.create_task(stalling.send(Request("GET", f"/{LIMIT}"), {}, 20)) for _ in range(10)]
    await stalling.send(Request("GET", "/100"), {}, 5)
    stalling.go_on()
    assert [len(answer.body) for answer in await asyncio.gather(*long)] == [LIMIT] * 10


async def test_an_answer_with_a_declared_length_over_the_limit_is_not_waited_for(stalling):
    with pytest.raises(AnswerTooLongError):
        await stalling.send(Request("GET", f"/{LIMIT + 1}"), {}, 20)
