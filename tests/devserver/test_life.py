"""Starting, stopping, waiting and watching."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from typing import Any

import aiohttp
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.protocol.messages import WorkerStatus
from devserver.support import Start, WorkerClient


async def test_it_stops_promptly_whatever_is_open(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30)
    job = orchestrator.submit("other")
    poll = asyncio.create_task(worker.poll())
    waiting = asyncio.create_task(_get(worker, f"/api/jobs/{job.job_id}?wait=30"))
    stream = asyncio.create_task(_get(worker, "/api/events"))
    async with worker.websocket() as websocket:
        record = orchestrator.workers["w1"]
        await orchestrator.wait_for(lambda: record.polls and record.connected)
        before = time.monotonic()
        closing, _ = await asyncio.gather(websocket.receive(timeout=5), orchestrator.stop())
        assert time.monotonic() - before < 1
        assert closing.data == aiohttp.WSCloseCode.GOING_AWAY
    assert (await poll).status == 204
    assert (await waiting)["job_id"] == job.job_id
    await stream
    assert list(orchestrator.problems) == []


async def _get(worker: WorkerClient, path: str) -> Any:
    async with worker.session.get(worker.orchestrator.url + path) as response:
        text = await response.text()
        return await response.json() if response.content_type == "application/json" else text


async def test_it_starts_again_on_the_same_port_with_what_it_knew(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    url = orchestrator.url
    await orchestrator.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await worker.heartbeat()
    await orchestrator.start()
    assert orchestrator.url == url
    assert (await worker.task())["job_id"] == job.job_id


async def test_a_restart_that_forgets_its_workers(start: Start) -> None:
    orchestrator, worker = await start()
    await orchestrator.stop()
    orchestrator.forget_workers()
    await orchestrator.start()
    job = orchestrator.submit("echo")
    assert (await worker.heartbeat()).json == {"status": "ok"}
    assert (await worker.poll()).status == 204
    await worker.register()
    assert orchestrator.workers["w1"].registered_count == 2
    assert (await worker.task())["job_id"] == job.job_id


async def test_stopping_twice_and_starting_twice(start: Start) -> None:
    orchestrator, _ = await start()
    with pytest.raises(RuntimeError, match="already running"):
        await orchestrator.start()
    await orchestrator.stop()
    await orchestrator.stop()


async def test_a_taken_port_is_an_error(start: Start) -> None:
    orchestrator, _ = await start()
    with pytest.raises(OSError, match="address"):
        await EmbeddedOrchestrator(port=orchestrator.port).start()


def test_it_runs_in_a_thread_of_its_own() -> None:
    started: queue.Queue[EmbeddedOrchestrator] = queue.Queue()
    states: list[str] = []

    async def serve() -> None:
        async with EmbeddedOrchestrator() as orchestrator:
            started.put(orchestrator)
            await orchestrator.wait_for_worker("w1")
            states.append((await orchestrator.submit("echo").done()).state)

    async def work(orchestrator: EmbeddedOrchestrator) -> None:
        async with aiohttp.ClientSession() as session:
            worker = WorkerClient(orchestrator, session)
            await worker.register()
            await worker.result(await worker.task())

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        asyncio.run(work(started.get(timeout=5)))
    finally:
        thread.join(10)
    assert states == ["finished"]


async def test_waiting_for_a_worker(start: Start) -> None:
    orchestrator, worker = await start(register=False)
    waiting = asyncio.create_task(orchestrator.wait_for_worker("w1"))
    await worker.register()
    assert (await waiting).worker_id == "w1"
    await worker.heartbeat(WorkerStatus.BUSY)
    with pytest.raises(TimeoutError, match="problems: none"):
        await orchestrator.wait_for_worker(timeout=0.01)


async def test_what_a_predicate_raises_is_raised_where_it_waits(start: Start) -> None:
    orchestrator, _ = await start()
    waiting = asyncio.create_task(orchestrator.wait_for(lambda: orchestrator.requests[1].json["no such field"]))
    await asyncio.sleep(0)
    with pytest.raises(IndexError):
        await waiting


async def test_changes_are_seen_in_order(start: Start) -> None:
    orchestrator, worker = await start()
    async with orchestrator.subscribe() as changes:
        job = orchestrator.submit("echo")
        await worker.result(await worker.task())
        await worker.heartbeat(WorkerStatus.DRAINING)
        orchestrator.forget_workers()
        seen = [await anext(changes) for _ in range(5)]
    assert [change.kind for change in seen] == ["queued", "running", "finished", "worker_status", "worker_lost"]
    assert [change.job for change in seen] == [job] * 3 + [None] * 2
    assert seen[0].data["state"] == "queued"  # as it was then


async def test_a_subscription_may_pick_its_changes_and_ends_with_the_orchestrator(start: Start) -> None:
    orchestrator, worker = await start()
    changes = orchestrator.subscribe(lambda change: change.kind == "finished")
    jobs = [orchestrator.submit("echo") for _ in range(2)]
    for _ in jobs:
        await worker.result(await worker.task())
    await orchestrator.stop()
    assert [change.job async for change in changes] == jobs
