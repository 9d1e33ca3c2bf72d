"""Batched skills in a whole worker: each task keeps its own result, context, deadline and cancellation."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from avtomatika_worker import (
    Batch,
    InvalidInputError,
    ResourceExhaustedError,
    SkillBlueprint,
    TaskContext,
    Worker,
)
from avtomatika_worker.testing import WorkerHarness


class OutOfMemoryError(RuntimeError):
    """Stands in for torch's."""


OutOfMemoryError.__module__ = "torch"


class Held:
    """A batched skill that adds one, and whose first call lasts until it is let go, so that the next batch fills."""

    def __init__(self, **options):
        self.calls: list[list[int]] = []
        self.arrived: list[int] = []
        self.go = threading.Event()
        self.change = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.worker = Worker(worker_type="test")
        self.options = {"max_size": 8, "key": self.arrive, **options}

    def arrive(self, params):
        self.arrived.append(params["n"])
        self.change.set()

    def wait(self, n):
        self.calls.append(list(n))
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.change.set)
        if len(self.calls) == 1:
            assert self.go.wait(20.0)

    def skill(self, work, **options):
        """Register a plain function that calls ``work`` with each batch behind the first."""

        def add_one(n: list[int], ctxs: list[TaskContext]) -> list[int | Exception]:
            self.wait(n)
            return work(n, ctxs)

        self.worker.skill("add_one", batch=Batch(**self.options), **options)(add_one)

    async def fill(self, h, numbers, **submitted):
        """Submit a task that holds the skill, and those of the next batch; return these once they wait for it."""
        self.loop = asyncio.get_running_loop()
        held = h.submit("add_one", {"n": 0})
        await self.waits(1)
        tasks = [h.submit("add_one", {"n": each}, **submitted) for each in numbers]
        await self.waits(1 + len(tasks))
        return held, tasks

    async def waits(self, count):
        async with asyncio.timeout(20.0):
            while len(self.arrived) < count or not self.calls:
                await self.change.wait()
                self.change.clear()


def plus_one(n, ctxs):
    return [each + 1 for each in n]


async def results_of(tasks):
    return [await each.result() for each in tasks]


async def test_what_arrives_while_a_batch_runs_is_the_next_one(caplog):
    held = Held()
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        first, tasks = await held.fill(h, range(1, 9))
        held.go.set()
        assert [each.data for each in await results_of([first, *tasks])] == [{"result": n + 1} for n in range(9)]
    assert [len(each) for each in held.calls] == [1, 8]


async def test_harness_runs_many_at_once_and_returns_their_results_in_order():
    worker = Worker(worker_type="test")
    calls = []

    @worker.skill(batch=Batch(max_size=4))
    async def square(n: list[int]) -> list[int]:
        calls.append(len(n))
        return [each**2 for each in n]

    async with WorkerHarness(worker) as h:
        results = await h.run_many("square", ({"n": each} for each in range(20)))
    assert [each.data["result"] for each in results] == [each**2 for each in range(20)]
    assert sum(calls) == 20
    assert len(calls) < 20
    assert max(calls) <= 4


async def test_a_wrong_param_fails_its_own_task_before_the_batch():
    worker = Worker(worker_type="test")

    @worker.skill(batch=Batch())
    def half(n: list[float]) -> list[float]:
        return [each / 2 for each in n]

    async with WorkerHarness(worker) as h:
        good, bad = await h.run_many("half", [{"n": 3}, {"n": "three"}])
    assert good.data == {"result": 1.5}
    assert (bad.error.code, bad.error.details["path"]) == ("INVALID_INPUT_ERROR", "$.n")


async def test_one_bad_task_fails_alone_and_the_others_are_called_again_in_halves():
    def work(n, ctxs):
        if 5 in n:
            raise InvalidInputError("five is bad")
        return plus_one(n, ctxs)

    held = Held()
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 9))
        held.go.set()
        results = await results_of(tasks)
    assert [each.ok for each in results] == [n != 5 for n in range(1, 9)]
    assert (results[4].error.code, results[4].error.message) == ("INVALID_INPUT_ERROR", "five is bad")
    assert len(held.calls) == 1 + 7  # log2 of eight, twice, and the whole
    assert held.calls[1:3] == [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4]]


async def test_a_batch_whose_tasks_all_fail_is_called_less_than_twice_for_each():
    def work(n, ctxs):
        raise ValueError(f"no {n}")

    held = Held()
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 9))
        held.go.set()
        results = await results_of(tasks)
    assert [each.error.message for each in results] == [f"ValueError: no [{n}]" for n in range(1, 9)]
    assert len(held.calls) == 1 + 15


async def test_items_may_be_errors():
    held = Held()
    held.skill(lambda n, ctxs: [InvalidInputError("odd") if each % 2 else each + 1 for each in n])
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 5))
        held.go.set()
        results = await results_of(tasks)
    assert [each.error and each.error.code for each in results] == ["INVALID_INPUT_ERROR", None] * 2
    assert len(held.calls) == 2


class Table:
    """Gives its columns, as the data frames of pandas and Polars do."""

    columns = ("a", "b", "c")

    def __repr__(self):
        return "a table"

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(self.columns)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1], "the batched skill add_one returned 1 items for a batch of 3 tasks"),
        ({1: 1, 2: 2, 3: 3}, "the batched skill add_one returned dict, not a list with an item for each task"),
        (Table(), "the batched skill add_one returned Table, not a list with an item for each task"),
        ("abc", "the batched skill add_one returned str, not a list with an item for each task"),
        (None, "the batched skill add_one returned NoneType, not a list with an item for each task"),
    ],
    ids=str,
)
async def test_anything_but_an_item_for_each_task_fails_them_all_and_says_so(returned, message):
    held = Held()
    held.skill(lambda n, ctxs: returned)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        held.go.set()
        results = await results_of(tasks)
    assert {(each.error.code, each.error.message) for each in results} == {("CONTRACT_VIOLATION_ERROR", message)}
    assert len(held.calls) == 2


async def test_an_item_that_breaks_the_schema_is_that_tasks_failure():
    held = Held()
    held.skill(lambda n, ctxs: [each if each != 2 else "two" for each in n])
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        held.go.set()
        results = await results_of(tasks)
    assert [each.error and each.error.code for each in results] == [None, "CONTRACT_VIOLATION_ERROR", None]


# ---------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError, ResourceExhaustedError])
async def test_out_of_memory_at_32_settles_at_16_and_no_task_is_lost(error):
    def work(n, ctxs):
        if len(n) >= 32:
            raise error("CUDA out of memory")
        return plus_one(n, ctxs)

    held = Held(max_size=32)
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        first, tasks = await held.fill(h, range(1, 64))
        held.go.set()
        results = await results_of([first, *tasks])
    assert [each.data for each in results] == [{"result": n + 1} for n in range(64)]
    assert [len(each) for each in held.calls] == [1, 32, 16, 16, 16, 15]


async def test_a_task_that_does_not_fit_by_itself_is_reported_as_exhausted():
    def work(n, ctxs):
        if 3 in n:
            raise RuntimeError("forward failed") from OutOfMemoryError("tried to allocate 2 GiB")
        return plus_one(n, ctxs)

    held = Held(max_size=4)
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 5))
        held.go.set()
        results = await results_of(tasks)
    assert [each.ok for each in results] == [True, True, False, True]
    assert results[2].error.code == "RESOURCE_EXHAUSTED_ERROR"
    assert results[2].error.message == "out of memory: tried to allocate 2 GiB"


# ---------------------------------------------------------------------------------------------- its own


async def test_each_task_has_its_own_events_progress_and_costs():
    def work(n, ctxs):
        for each, ctx in zip(n, ctxs, strict=True):
            ctx.send_progress(each / 10)
            ctx.send_event("seen", {"n": each})
            ctx.add_cost("tokens", each)
        return plus_one(n, ctxs)

    held = Held()
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        held.go.set()
        results = await results_of(tasks)
    assert [[each.payload for each in result.events] for result in results] == [[{"n": n}] for n in range(1, 4)]
    assert [[each.fraction for each in result.progress] for result in results] == [[0.1], [0.2], [0.3]]
    assert [each.costs["tokens"] for each in results] == [1, 2, 3]


async def test_a_task_cancelled_while_it_waits_is_in_no_batch():
    held = Held()
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        tasks[1].cancel()
        assert (await tasks[1].result()).status == "cancelled"
        held.go.set()
        assert [(await tasks[each].result()).data for each in (0, 2)] == [{"result": 2}, {"result": 4}]
    assert held.calls == [[0], [1, 3]]


@pytest.mark.parametrize("raises", [False, True])
async def test_a_task_cancelled_in_its_batch_changes_nothing_for_the_others(raises):
    entered, go = threading.Event(), threading.Event()

    def work(n, ctxs):
        if 0 not in n:
            entered.set()
            assert go.wait(20.0)
        for ctx in ctxs:
            if raises:
                ctx.raise_if_cancelled()
        return plus_one(n, ctxs)

    held = Held()
    held.skill(work)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        held.go.set()
        await asyncio.to_thread(entered.wait, 20.0)
        tasks[1].cancel()
        assert (await tasks[1].result()).status == "cancelled"  # while the call goes on
        go.set()
        assert [(await tasks[each].result()).data for each in (0, 2)] == [{"result": 2}, {"result": 4}]
    assert held.calls[1:] == ([[1, 2, 3], [1, 3]] if raises else [[1, 2, 3]])


async def test_a_call_that_no_task_waits_for_any_more_is_cancelled():
    worker, ended, entered = Worker(worker_type="test"), [], asyncio.Event()

    @worker.skill(batch=Batch())
    async def forever(n: list[int]) -> list[int]:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(n)
        return n

    async with WorkerHarness(worker) as h:
        task = h.submit("forever", {"n": 1})
        await entered.wait()
        task.cancel()
        assert (await task.result()).status == "cancelled"
        assert ended == [[1]]
        entered.clear()
        again = h.submit("forever", {"n": 2})  # the skill is free again
        await entered.wait()
        again.cancel()
        await again.result()


async def test_a_shutdown_ends_the_call_and_reports_all_of_its_tasks():
    worker, ended = Worker(worker_type="test"), []

    @worker.skill(batch=Batch(max_size=3))
    async def forever(n: list[int]) -> list[int]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(len(n))
        return n

    async with WorkerHarness(worker) as h:
        tasks = [h.submit("forever", {"n": n}) for n in range(6)]
        await h.orchestrator.wait_for(lambda: all(each.job.worker_id for each in tasks))
    assert all(each.job.state.final for each in tasks)
    assert {each.job.error["code"] for each in tasks} == {"TRANSIENT_ERROR"}
    assert len(ended) == 1


async def test_ended_tasks_leave_nothing_for_the_garbage_collector():
    worker = Worker(worker_type="test")
    contexts = []

    @worker.skill(batch=Batch(max_size=4))
    async def noted(n: list[int], ctxs: list[TaskContext]) -> list[int]:
        contexts.extend(map(weakref.ref, ctxs))
        return n

    async with WorkerHarness(worker) as h:
        gc.collect()
        gc.disable()
        try:
            assert all(each.ok for each in await h.run_many("noted", [{"n": n} for n in range(12)]))
            await h.run("noted", {"n": 12})  # what the loop had still to do for the others is done
            assert [each() for each in contexts[:12]] == [None] * 12
        finally:
            gc.enable()


async def test_a_deadline_takes_a_task_out_of_the_line():
    held = Held()
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        _, (late,) = await held.fill(h, [1], deadline_in=0.3)
        assert (await late.result()).error.code == "TIMEOUT_ERROR"
        held.go.set()
    assert held.calls == [[0]]


async def test_a_key_divides_and_a_cost_bounds_batches():
    held = Held(cost=lambda params: params["n"], max_cost=10)
    held.options["key"] = lambda params: held.arrive(params) or params["n"] % 2
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, [2, 4, 1, 3, 6, 8, 5])
        held.go.set()
        assert all(each.ok for each in await results_of(tasks))
    assert sorted(map(sorted, held.calls[1:])) == [[1, 3, 5], [2, 4], [6], [8]]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"key": lambda params: [params]}, "PERMANENT_ERROR", "the key of a batch of skill add_one must be hashable"),
        ({"key": lambda params: params["gone"]}, "TRANSIENT_ERROR", "KeyError"),
        ({"cost": lambda params: "much", "max_cost": 1}, "PERMANENT_ERROR", "the cost of a task of skill add_one must"),
        ({"cost": lambda params: -1, "max_cost": 1}, "PERMANENT_ERROR", "the cost of a task of skill add_one must be"),
    ],
    ids=["list", "missing", "text", "negative"],
)
async def test_what_key_and_cost_do_wrong_is_the_failure_of_the_task(options, code, message):
    held = Held(**{"key": None, **options})
    held.go.set()
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        result = await h.run("add_one", {"n": 1})
    assert result.error.code == code
    assert message in result.error.message


async def test_middlewares_see_each_task():
    held, seen = Held(), []

    async def watch(ctx, call_next):
        seen.append(ctx.params["n"])
        return await call_next(ctx)

    held.worker.add_middleware(watch)
    held.skill(plus_one)
    async with WorkerHarness(held.worker) as h:
        _, tasks = await held.fill(h, range(1, 4))
        held.go.set()
        await results_of(tasks)
    assert sorted(seen) == [0, 1, 2, 3]


# ---------------------------------------------------------------------------------------------- slots


async def test_batched_skills_bring_slots_of_their_own_and_others_keep_their_limit():
    held, now, most = Held(max_size=4), 0, 0
    held.skill(plus_one)

    @held.worker.skill
    async def other():
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        now -= 1

    async with WorkerHarness(held.worker, settings={"max_concurrent_tasks": 2}) as h:
        registration = h.orchestrator.workers["test-worker"].registration
        assert registration["resources"]["max_concurrent_tasks"] == 2 + 2 * 4
        first, tasks = await held.fill(h, range(1, 8))
        assert all(each.ok for each in await h.run_many("other", [{}] * 8))
        held.go.set()
        assert all(each.ok for each in await results_of([first, *tasks]))
    assert most == 2


async def test_a_worker_of_batched_skills_only_holds_a_batch_and_the_next():
    worker = SkillBlueprint()

    @worker.skill(batch=Batch(max_size=3))
    def one(n: list[int]) -> list[int]:
        return n

    @worker.skill(batch=Batch(max_size=3), max_concurrent=20)
    def two(n: list[int]) -> list[int]:
        return n

    made = Worker(worker_type="test")
    made.include_blueprint(worker)
    async with WorkerHarness(made) as h:
        resources = h.orchestrator.workers["test-worker"].registration["resources"]
    assert resources["max_concurrent_tasks"] == 6 + 20
