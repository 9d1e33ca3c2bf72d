"""`WorkerHarness`, as the author of a worker uses it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from avtomatika_worker import ConfigError, InvalidInputError, PermanentError, TaskContext, TransientError, Worker
from avtomatika_worker.devserver import JobState
from avtomatika_worker.testing import EmbeddedOrchestrator, Fault, WorkerHarness


@dataclass
class Size:
    width: int
    height: int = 100


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")

    @worker.skill(output_statuses=["too_big"])
    async def resize(params: Size):
        if params.width > 1000:
            return {"status": "too_big", "data": {"limit": 1000}}
        return {"pixels": params.width * params.height}

    return worker


async def test_a_task_goes_the_whole_way_and_its_result_is_typed(worker):
    seen = []

    async def watch(ctx, call_next):
        seen.append(ctx.skill)
        return await call_next(ctx)

    worker.add_middleware(watch)
    async with WorkerHarness(worker) as h:
        result = await h.run("resize", {"width": 10})
    assert (result.status, result.data, result.error) == ("success", {"pixels": 1000}, None)
    assert result.ok
    assert result.attempts == 1
    assert 0 < result.duration < 10
    assert seen == ["resize"]


async def test_params_may_be_the_skills_own_model_and_a_status_its_own(worker):
    async with WorkerHarness(worker) as h:
        result = await h.run("resize", Size(2000))
    assert (result.status, result.data, result.ok) == ("too_big", {"limit": 1000}, True)


async def test_a_failure_is_a_result_with_code_message_and_details(worker):
    @worker.skill
    async def fetch(params: dict):
        raise InvalidInputError("no such page", details={"url": params["url"]})

    async with WorkerHarness(worker) as h:
        wrong = await h.run("resize", {"width": "wide"})
        failed = await h.run("fetch", {"url": "x"})
    assert (wrong.status, wrong.ok) == ("failure", False)
    assert wrong.error.code == "INVALID_INPUT_ERROR"
    assert "width" in wrong.error.message
    assert str(failed.error) == "INVALID_INPUT_ERROR: no such page"
    assert failed.error.details["url"] == "x"


async def test_a_transient_failure_is_retried_only_if_an_orchestrator_says_so(worker):
    attempts = []

    @worker.skill
    async def flaky(params: dict):
        attempts.append(1)
        if len(attempts) < 3:
            raise TransientError("not yet")
        return {"attempts": len(attempts)}

    async with WorkerHarness(worker) as h:
        assert (await h.run("flaky")).error.code == "TRANSIENT_ERROR"
    assert len(attempts) == 1
    async with EmbeddedOrchestrator() as orchestrator, WorkerHarness(worker, orchestrator=orchestrator) as h:
        result = await h.run("flaky")
    assert (result.data, result.attempts, result.error) == ({"attempts": 3}, 2, None)


async def test_events_and_all_progress_are_seen_in_order(worker):
    @worker.skill
    async def count(ctx: TaskContext):
        for number in range(3):
            await ctx.send_event("number", {"number": number})
        ctx.send_progress(0.5, "half")
        await ctx.send_event("last")
        ctx.add_cost("tokens", 12)

    async with WorkerHarness(worker) as h:
        result = await h.run("count", metadata={"a": 1})
    assert [event.payload for event in result.events if event.type == "number"] == [{"number": n} for n in range(3)]
    assert (0.5, "half") in result.progress
    assert result.event("last").payload == {}
    assert result.costs["tokens"] == 12
    with pytest.raises(LookupError, match="events: number, number, number, last"):
        result.event("nothing")


@pytest.mark.parametrize("status", ["success", "failure"])
async def test_costs_of_the_context_and_of_the_envelope_add_up(worker, status):
    @worker.add_middleware
    async def count(ctx, call_next):
        ctx.add_cost("tokens", 2)
        return await call_next()

    @worker.skill
    async def spend(ctx: TaskContext):
        ctx.add_cost("tokens", 1)
        return {"status": status, "costs": {"tokens": 10.5, "pages": 1, "currency": "EUR"}}

    async with WorkerHarness(worker) as h:
        result = await h.run("spend")
    del result.costs["execution_time_seconds"]
    assert (result.status, result.costs) == (status, {"tokens": 13.5, "pages": 1, "currency": "EUR"})


async def test_metadata_and_priority_reach_the_skill(worker):
    @worker.skill
    async def show(ctx: TaskContext):
        return {"metadata": ctx.metadata, "priority": ctx.priority}

    async with WorkerHarness(worker) as h:
        result = await h.run("show", metadata={"customer": "c1"}, priority=5)
    assert result.data == {"metadata": {"customer": "c1"}, "priority": 5}


async def test_a_cancelled_task_has_ended_when_its_skill_has(worker):
    cleaned_up = []

    @worker.skill
    async def wait(ctx: TaskContext):
        await ctx.send_event("began")
        try:
            await asyncio.Event().wait()
        finally:
            cleaned_up.append(ctx.cancel_reason)

    async with WorkerHarness(worker) as h:
        task = h.submit("wait")
        assert (await task.wait_for_event("began")).payload == {}
        assert task.cancel()
        result = await task.result()
        assert not task.cancel()
    assert (result.status, result.ok, result.error) == ("cancelled", False, None)
    assert cleaned_up == ["requested"]


async def test_a_plain_def_skill_is_cancelled_too(worker):
    @worker.skill
    def spin(ctx: TaskContext):
        ctx.send_progress(0.25)
        while True:
            ctx.raise_if_cancelled()
            time.sleep(0.001)

    async with WorkerHarness(worker) as h:
        task = h.submit("spin")
        assert (await task.wait_for_progress(0.25)).fraction == 0.25
        task.cancel()
        assert (await task.result()).status == "cancelled"


async def test_a_deadline_ends_a_task(worker):
    ended = []

    @worker.skill
    async def wait(params: dict):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async with WorkerHarness(worker) as h:
        result = await h.run("wait", deadline_in=0.2)
    assert (result.status, result.error.code, ended) == ("failure", "TIMEOUT_ERROR", [1])


async def test_settings_override_the_workers_own_and_nothing_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("WORKER_ID", "from-the-shell")
    monkeypatch.setenv("MAX_CONCURRENT_TASKS", "many")
    worker = Worker(
        max_concurrent_tasks=7,
        settings={"orchestrators_config": '[{"url": "http://192.0.2.1"}]', "individual_token": "other"},
    )
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1}, environ={"CPU_CORES": "3"}) as h:
        (record,) = h.orchestrator.workers.values()
    assert record.worker_id == "test-worker"
    assert record.registration["resources"]["max_concurrent_tasks"] == 1
    assert record.registration["resources"]["properties"]["cpu_cores"] == 3


@pytest.mark.parametrize("own_thread", [False, True])
async def test_a_worker_may_run_again_and_leaves_nothing_behind(worker, own_thread):
    for _ in range(2):
        async with WorkerHarness(worker, own_thread=own_thread) as h:
            assert (await h.run("resize", {"width": 1})).ok
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_skill_that_blocks_its_loop_does_not_block_the_deadline_of_a_thread_of_its_own(worker):
    is_blocked, go_on = threading.Event(), threading.Event()

    @worker.skill(name="block")
    async def block():
        is_blocked.set()
        go_on.wait(30)  # what users do

    async with WorkerHarness(worker, own_thread=True) as h:
        task = h.submit("block")
        await asyncio.to_thread(is_blocked.wait, 20)
        began = time.monotonic()
        task.cancel()
        assert time.monotonic() - began < 0.2
        go_on.set()
        await task.result()


async def test_the_end_of_the_block_cancels_what_still_runs(worker):
    ended = []

    @worker.skill
    async def wait(ctx: TaskContext):
        await ctx.send_event("began")
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(ctx.cancel_reason)

    async with WorkerHarness(worker) as h:
        await h.submit("wait").wait_for_event("began")
    assert ended == ["shutdown"]


async def test_a_result_that_does_not_come_says_where_the_task_stands(worker):
    @worker.skill
    async def wait(params: dict):
        await asyncio.Event().wait()

    async with WorkerHarness(worker) as h:
        with pytest.raises(TimeoutError, match=r"wait has not ended after \d+\.\d s: job "):
            await h.run("wait", timeout=0.05)
        task = h.submit("wait")
        await h.orchestrator.wait_for(lambda: task.job.state is JobState.RUNNING)
        with pytest.raises(TimeoutError, match=r"wait has not ended after \d+\.\d s: job .* is running, attempts: 1"):
            await task.result(timeout=0.05)
        with pytest.raises(LookupError, match="events: none"):
            await h.submit("resize", Size(1)).wait_for_event("nothing")
        with pytest.raises(LookupError, match=r"ended before it reached 0\.5"):
            await h.submit("resize", Size(1)).wait_for_progress(0.5)


async def test_an_unknown_skill_is_reported_before_anything_is_sent(worker):
    async with WorkerHarness(worker) as h:
        with pytest.raises(ValueError, match="no skill 'rezise'; did you mean 'resize'"):
            await h.run("rezise")
        with pytest.raises(ValueError, match="not int"):
            await h.run("resize", 5)
        assert not h.orchestrator.jobs
    with pytest.raises(RuntimeError, match="is not running"):
        await h.run("resize", Size(1))


async def test_a_wrong_worker_raises_what_its_start_would():
    with pytest.raises(ConfigError, match="max_concurrent_tasks"):
        async with WorkerHarness(Worker(max_concurrent_tasks=-1)):
            pass


async def test_faults_happen_to_the_worker_and_the_result_arrives_all_the_same(worker):
    async with WorkerHarness(worker) as h:
        h.orchestrator.inject(
            Fault("result", "drop_after"), Fault("result", "status", status=429), Fault("poll", "reset")
        )
        result = await h.run("resize", {"width": 3})
        assert result.data == {"pixels": 300}
        await h.orchestrator.wait_for(lambda: len([c for c in h.orchestrator.requests if c.call == "result"]) >= 2)


async def test_what_released_orchestrators_refuse_for_its_size_is_refused(worker):
    @worker.skill
    async def large(ctx: TaskContext, size: int) -> dict[str, str]:
        await ctx.send_event("large", {"text": "x" * size})
        return {"text": "x" * size}

    settings = {"max_result_bytes": 4 * 2**20}  # the worker's own limit does not help here
    async with WorkerHarness(worker, settings=settings) as h:
        small = await h.run("large", {"size": 1_000_000})
        large = await h.run("large", {"size": 1_100_000})
        refused = [(each.call, each.status) for each in h.orchestrator.problems]
    assert (small.status, len(small.events)) == ("success", 1)
    assert (large.status, len(large.events)) == ("failure", 0)
    assert "413" in large.error.message
    assert refused == [("event", 413), ("result", 413)]


def test_in_another_loop_than_its_own_it_says_so_and_does_not_hang():
    worker = Worker(worker_type="test", skills_dir=None)
    worker.skill("one")(lambda: 1)
    harness = WorkerHarness(worker, own_thread=True)
    with asyncio.Runner() as runner:
        runner.run(harness.start())
        for call in (lambda: harness.run("one"), harness.stop):
            with pytest.raises(RuntimeError, match="asyncio_default_test_loop_scope"):
                asyncio.run(call())
        runner.run(harness.stop())


# ------------------------------------------------------------------------------------------------ streams


@pytest.fixture
def streaming():
    worker = Worker(worker_type="test")
    closed = worker.closed = []

    @worker.skill
    async def words(count: int) -> AsyncIterator[str]:
        try:
            for number in range(count):
                yield f"{number} "
                await asyncio.sleep(0)
        finally:
            closed.append("words")

    @worker.skill
    def items(count: int) -> Iterator[dict[str, int]]:
        for number in range(count):
            yield {"n": number}

    @worker.skill
    def raw(count: int) -> Iterator[bytes]:
        for number in range(count):
            yield bytes([number])

    @worker.skill
    async def fails() -> AsyncIterator[str]:
        yield "a"
        raise PermanentError("no more")

    @worker.skill
    async def plain() -> str:
        return "a"

    return worker


async def test_what_a_skill_yields_comes_as_it_is_yielded(streaming):
    async with WorkerHarness(streaming) as h:
        assert "".join([chunk async for chunk in h.stream("words", {"count": 20})]) == "".join(
            f"{number} " for number in range(20)
        )
        assert [chunk async for chunk in h.stream("items", {"count": 20})] == [{"n": number} for number in range(20)]
        assert b"".join([chunk async for chunk in h.stream("raw", {"count": 20})]) == bytes(range(20))


async def test_a_stream_that_fails_raises_the_task_s_error_after_its_chunks(streaming):
    async with WorkerHarness(streaming) as h:
        failing = h.stream("fails")
        assert await anext(failing) == "a"
        with pytest.raises(PermanentError, match="no more"):
            await anext(failing)
        with pytest.raises(ValueError, match="'plain' does not yield"):
            await anext(h.stream("plain"))
        with pytest.raises(ValueError, match="no skill 'word'; did you mean 'words'"):
            await anext(h.stream("word"))


async def test_leaving_a_stream_cancels_its_task(streaming):
    async with WorkerHarness(streaming) as h:
        async with contextlib.aclosing(h.stream("words", {"count": 100_000})) as words:
            async for _ in words:
                break
        await h.orchestrator.wait_for(lambda: streaming.closed)
