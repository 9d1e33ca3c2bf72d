"""Generators in processes: their chunks cross to the worker, and what ends their task reaches them."""

import importlib
import sys

import pytest

from avtomatika_worker import Worker
from avtomatika_worker.testing import EmbeddedOrchestrator, Fault, WorkerHarness
from processes.conftest import HERE, until


@pytest.fixture(scope="module")
def streams():
    sys.path.insert(0, str(HERE))
    yield importlib.import_module("stream_app").streams
    sys.path.remove(str(HERE))


@pytest.fixture
def worker(streams):
    made = Worker(worker_type="test")
    made.include_blueprint(streams)
    return made


@pytest.fixture
def settings(tmp_path):
    return {
        "max_concurrent_tasks": 1,
        "file_store_root": str(tmp_path / "store"),
        "task_files_dir": str(tmp_path / "f"),
    }


async def test_chunks_cross_in_order_and_are_the_result(worker, settings):
    async with WorkerHarness(worker, settings=settings) as h:
        expected = "".join(f"{number} " for number in range(700))
        for skill in ("words", "words_in_turn"):
            task = h.submit(skill, {"count": 700})
            assert "".join([chunk async for chunk in task.stream()]) == expected
            assert (await task.result()).data == {"result": expected}
        blocks = h.submit("blocks", {"count": 20})
        whole = b"".join([chunk async for chunk in blocks.stream()])
        assert (
            (await blocks.result()).file("result").read_bytes()
            == whole
            == b"".join(bytes([number]) * 1_000 for number in range(20))
        )
        summed = h.submit("summed", {"count": 5})
        assert [item async for item in summed.stream()] == [{"n": number} for number in range(5)]
        assert (await summed.result()).data == {"sum": 10}


async def test_a_cancellation_closes_a_generator_and_the_process_goes_on(worker, settings, tmp_path):
    async with WorkerHarness(worker, settings=settings) as h:
        for skill in ("endless", "endless_in_turn"):
            mark = tmp_path / skill
            task = h.submit(skill, {"mark": str(mark)})
            await task.wait_for_event("chunk")
            task.cancel()
            assert (await task.result()).status == "cancelled"
            assert mark.read_text("utf-8") == "closed"
        assert (await h.run("words", {"count": 1})).ok


async def test_one_that_is_too_fast_waits_for_the_orchestrator(worker, settings, tmp_path):
    mark = tmp_path / "mark"
    slow = Fault(call="event", kind="delay", delay=1.0)
    async with EmbeddedOrchestrator(max_attempts=1) as orchestrator:
        orchestrator.inject(slow)
        async with WorkerHarness(
            worker, settings={**settings, "max_result_bytes": None}, orchestrator=orchestrator
        ) as h:
            task = h.submit("large", {"mark": str(mark)})
            await orchestrator.wait_for(lambda: slow.used)
            assert int(mark.read_text("utf-8")) < 30
            result = await task.result()
    assert sum(len(event.payload["data"]) for event in result.events) == 60 * 100_000


async def test_what_a_process_had_yielded_before_it_crashed_has_arrived(worker, settings):
    async with WorkerHarness(worker, settings=settings) as h:
        task = h.submit("crashes")
        result = await task.result()
        await until(lambda: task.events)
    assert (result.status, result.error.code) == ("failure", "TRANSIENT_ERROR")
    assert [event.payload["data"] for event in task.events] == ["last words"]
