"""Cancellation both ways, and what else goes over the WebSocket."""

from __future__ import annotations

import aiohttp
import orjson
import pytest

from avtomatika_worker.protocol.dialects import DIALECTS
from devserver.support import Start, tampered

VERSIONS = [dialect.version for dialect in DIALECTS]
every_version = pytest.mark.parametrize("version", VERSIONS)
TIME = 5


@every_version
async def test_a_heartbeat_that_lists_the_job_learns_of_its_cancellation(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    job, other = orchestrator.submit("echo"), orchestrator.submit("echo")
    await worker.task()
    await worker.task()
    assert orchestrator.cancel(job.job_id)
    assert job.state == "cancelled"
    reply = (await worker.heartbeat(current_tasks=(job.job_id, other.job_id))).json
    assert reply["cancel_task_ids"] == [job.job_id]
    assert "cancel_task_ids" not in (await worker.heartbeat()).json
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize(
    ("version", "cancelled"), [("1.0b10", True), ("1.0b11", True), ("1.0b12", False), ("1.0b17", False)]
)
async def test_listing_task_ids_is_a_trap(start: Start, version: str, cancelled: bool) -> None:
    orchestrator, worker = await start(version=version)
    job = orchestrator.submit("echo")
    task = await worker.task()
    reply = (await worker.heartbeat(current_tasks=(task["task_id"],))).json
    assert reply.get("cancel_task_ids") == ([task["task_id"]] if cancelled else None)
    assert "job ids" in orchestrator.problems[0].text
    assert job.state == "running"


@every_version
async def test_the_websocket_cancels_at_once(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    async with worker.websocket() as websocket:
        assert websocket._response.headers["X-RXON-Version"] == version  # noqa: SLF001 - aiohttp offers no other way
        await worker.websockets_on()
        assert orchestrator.workers["w1"].connected
        job = orchestrator.submit("echo")
        task = await worker.task()
        orchestrator.cancel(job.job_id)
        command = orjson.loads(await websocket.receive_str(timeout=TIME))
        assert command == {"command": "cancel_task", "task_id": task["task_id"], "job_id": job.job_id}
    await orchestrator.wait_for(lambda: not orchestrator.workers["w1"].connected)


async def test_without_capabilities_in_a_heartbeat_the_websocket_says_nothing(start: Start) -> None:
    orchestrator, worker = await start()
    async with worker.websocket() as websocket:
        job = orchestrator.submit("echo")
        await worker.task()
        orchestrator.cancel(job.job_id)
        await orchestrator.send_command("w1", {"command": "custom", "params": {"x": 1}})
        first = orjson.loads(await websocket.receive_str(timeout=TIME))
        assert first == {"command": "custom", "params": {"x": 1}}


async def test_a_queued_job_is_cancelled_without_a_worker(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    assert orchestrator.cancel(job.job_id)
    assert (await worker.poll()).status == 204
    assert not orchestrator.cancel(job.job_id)
    assert not orchestrator.cancel("no such job")


async def test_a_second_websocket_closes_the_first(start: Start) -> None:
    orchestrator, worker = await start()
    async with worker.websocket() as first, worker.websocket() as second:
        closing = await first.receive(timeout=TIME)
        assert (closing.type, closing.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        await orchestrator.send_command("w1", {"command": "hello"})
        assert orjson.loads(await second.receive_str(timeout=TIME)) == {"command": "hello"}
        assert orchestrator.workers["w1"].connected


async def test_messages_of_a_websocket_are_events_without_an_answer(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    event = worker.happening(await worker.task(), "progress", {"progress": 0.25})
    async with worker.websocket() as websocket:
        await websocket.send_str((event.body or b"").decode())
        await orchestrator.wait_for(lambda: job.progress.fraction == 0.25)
        await websocket.send_bytes(tampered(event, priority=9).body or b"")
        await orchestrator.wait_for(lambda: orchestrator.problems)
        assert "signature" in orchestrator.problems[0].text
        assert not websocket.closed


async def test_a_websocket_needs_the_token(start: Start) -> None:
    orchestrator, worker = await start()
    worker.token = "wrong"
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        async with worker.websocket():
            pass
    assert len(orchestrator.problems) == 1


async def test_a_command_without_a_websocket_is_an_error(start: Start) -> None:
    orchestrator, _ = await start()
    with pytest.raises(LookupError, match="w1"):
        await orchestrator.send_command("w1", {"command": "hello"})


async def test_a_worker_that_registers_again_keeps_its_websocket(start: Start) -> None:
    orchestrator, worker = await start()
    async with worker.websocket():
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
        await worker.register()
        assert orchestrator.workers["w1"].connected
        assert not orchestrator.workers["w1"].websockets
        assert orchestrator.workers["w1"].registered_count == 2
