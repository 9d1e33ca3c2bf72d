"""The tools in threadsafe.py, used from many threads at once."""

import asyncio
import threading

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.threadsafe import CallQueue, Table, Watch
from services.assembled import make_supervisor


def in_threads(count, do):
    threads = [threading.Thread(target=do, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def test_calls_are_made_on_the_loop_in_the_order_of_each_thread():
    calls, here = [], threading.get_ident()
    to_main = CallQueue(asyncio.get_running_loop())

    def leave(number):
        for i in range(100):
            to_main.put(lambda pair: calls.append((pair, threading.get_ident())), (number, i))

    await asyncio.to_thread(in_threads, 4, leave)
    assert {thread for _, thread in calls} == {here}
    for number in range(4):
        assert [i for (who, i), _ in calls if who == number] == [*range(100)]


def test_calls_to_a_closed_loop_are_dropped_without_an_error():
    loop = asyncio.new_event_loop()
    loop.close()
    CallQueue(loop).put(print, "never")


def test_entries_of_many_threads_stay_until_they_are_removed():
    table: Table[str, int] = Table()
    in_threads(8, lambda number: [table.put(f"{number} {each}", number) for each in range(100)])
    assert sorted(table.values()) == sorted([*range(8)] * 100)
    in_threads(7, lambda number: [table.remove(f"{number} {each}") for each in range(100)])
    assert table.values() == [7] * 100
    table.remove("nobody's")


def test_a_touch_takes_back_no_value_that_another_thread_publishes(switching_often):
    watch, done, lost = Watch(0), threading.Event(), []

    def touch():
        while not done.is_set():
            watch.touch()

    thread = threading.Thread(target=touch)
    thread.start()
    for number in range(1, 20_000):
        watch.publish(number)
        if watch.value != number:
            lost.append(number)
    done.set()
    thread.join()
    assert not lost


async def test_a_poll_is_published_soon_although_nothing_else_changes(worker):
    @worker.skill
    async def echo(text: str):
        return {"text": text}

    async with EmbeddedOrchestrator(poll_time=60.0) as orchestrator:  # so the first poll waits for the whole test
        supervisor, engine = make_supervisor(worker, orchestrator, task_poll_timeout=60.0, shutdown_timeout=0.05)
        run = asyncio.create_task(supervisor.run())
        published = asyncio.Event()
        engine.publisher.on_change(published.set)
        async with asyncio.timeout(10):
            while engine.publisher.published.slots_polling != 1:
                published.clear()
                await published.wait()
        assert engine.poller.in_flight == ((engine.links[0], 1),)
        supervisor.shutdown()
        await run
