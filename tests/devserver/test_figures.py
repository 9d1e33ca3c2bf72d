"""The figures of the console's charts: right after evictions, with several workers, and by the worker's own measure."""

from __future__ import annotations

from typing import Any

import aiohttp
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.devserver import Console, EmbeddedOrchestrator
from avtomatika_worker.devserver.console.figures import Figures, quantile
from avtomatika_worker.devserver.console.shown_program import Program
from devserver.support import Start, WorkerClient

KEPT = 3


def figures_of(orchestrator: EmbeddedOrchestrator, program: Program | None = None) -> Figures:
    """Return figures of their own, which look when the test says so."""
    figures = Figures(orchestrator._orchestrator, program or Program({}), orchestrator.now)  # noqa: SLF001
    orchestrator._orchestrator.book.when_ended = figures.ended  # noqa: SLF001
    return figures


async def run(worker: WorkerClient, status: str = "success", **fields: Any) -> None:
    worker.orchestrator.submit("echo", {})
    await worker.result(await worker.task(), status, **fields)


async def test_runs_are_counted_by_minute_though_they_are_forgotten(start: Start) -> None:
    orchestrator, worker = await start(history=KEPT)
    figures = figures_of(orchestrator)
    for _ in range(KEPT + 2):
        await run(worker)
    orchestrator.cancel(orchestrator.submit("echo", {}).job_id)
    assert sum(good for _, good, _ in figures.to_json()["minutes"]) == KEPT + 2
    assert sum(bad for _, _, bad in figures.to_json()["minutes"]) == 1
    before = figures.to_json()["minutes"][0][0]
    orchestrator.clock_offset = 32 * 60
    await worker.register()  # it was silent for longer than its lease
    await run(worker)
    [[minute, *runs]] = figures.to_json()["minutes"]
    assert minute - before in {32, 33, 34}
    assert runs == [1, 0]


async def test_a_duration_is_the_workers_own_or_else_the_time_until_its_result(start: Start) -> None:
    orchestrator, worker = await start(history=KEPT)
    figures = figures_of(orchestrator)
    for seconds in (1.0, 2.0, 3.0, 400.0):
        await run(worker, costs={"execution_time_seconds": seconds})
    assert figures.to_json()["skills"] == [["echo", 4, 2.0, 400.0]]
    own = figures_of(orchestrator)
    for costs in (None, {"execution_time_seconds": -1}, {"execution_time_seconds": "long"}, {"energy": 3}):
        orchestrator.submit("echo", {})
        task = await worker.task()
        orchestrator.clock_offset += 10
        await worker.result(task, costs=costs)
    [[name, count, p50, p95]] = own.to_json()["skills"]
    assert (name, count) == ("echo", 4)
    assert 10 <= p50 <= p95 < 15


async def test_what_did_not_run_or_was_cancelled_has_no_duration(start: Start) -> None:
    orchestrator, worker = await start()
    figures = figures_of(orchestrator)
    job = orchestrator.submit("echo", {})
    await worker.task()
    orchestrator.cancel(job.job_id)
    orchestrator.cancel(orchestrator.submit("echo", {}).job_id)
    assert figures.to_json()["skills"] == []


async def test_slots_are_those_of_all_workers_and_change_with_them(
    start: Start, session: aiohttp.ClientSession
) -> None:
    orchestrator, worker = await start()
    other = WorkerClient(orchestrator, session, worker_id="w2")
    await other.register()
    figures = figures_of(orchestrator)

    def look() -> tuple[int, int]:
        orchestrator.clock_offset += 1.5
        figures.look()
        return figures.to_json()["slots"][-1][1:]

    assert look() == (0, 4)
    orchestrator.submit("echo", {})
    orchestrator.submit("echo", {})
    await worker.task()
    await other.task()
    assert look() == (2, 4)
    assert look() == (2, 4)
    assert len(figures.to_json()["slots"]) == 2  # what has not changed is not written again
    orchestrator.forget_workers()
    assert look() == (0, 0)
    orchestrator.clock_offset += 400
    figures.look()
    assert [each[1:] for each in figures.to_json()["slots"]] == [(0, 0)]


async def test_slots_are_the_workers_own_count_where_it_is_known(start: Start, session: aiohttp.ClientSession) -> None:
    orchestrator, worker = await start()
    await WorkerClient(orchestrator, session, worker_id="w2").register()
    own = {"w1": (0, 0), "gone": (7, 7)}
    figures = figures_of(orchestrator, Program({}, lambda: own))
    orchestrator.submit("echo", {})
    await worker.task()
    w1, w2 = (figures.slots_of(orchestrator.workers[name]) for name in ("w1", "w2"))
    assert (w1, w2) == ((1, 2), (0, 2))  # w1 has not begun: it is seen from outside
    own["w1"] = (3, 5)
    figures.look()
    assert figures.to_json()["slots"][-1][1:] == (3, 7)


async def test_the_figures_outlast_a_stop_of_the_orchestrator(session: aiohttp.ClientSession) -> None:
    orchestrator = EmbeddedOrchestrator(console=Console(), poll_time=0.05)
    async with orchestrator:
        worker = WorkerClient(orchestrator, session)
        await worker.register()
        await run(worker)
    async with orchestrator, session.get(f"{orchestrator.console_url}api/stream") as stream:
        async for line in stream.content:
            if line.startswith(b"data: "):
                assert b'"skills":[["echo",1,' in line
                break


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_one_of_the_numbers_with_its_share_below(numbers: list[float], share: float) -> None:
    ordered = sorted(numbers)
    found = quantile(ordered, share)
    assert found in ordered
    assert sum(each <= found for each in ordered) >= share * len(ordered) - 1e-9
