"""Every fault, as a client meets it, and whether the call took effect."""

from __future__ import annotations

import time

import aiohttp
import pytest

from avtomatika_worker.devserver import Fault
from devserver.support import Start


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("drop_before", aiohttp.ServerDisconnectedError),
        ("reset", aiohttp.ClientOSError),
        ("garbage", aiohttp.ClientResponseError),
    ],
)
async def test_calls_that_are_not_processed(start: Start, kind: str, error: type[Exception]) -> None:
    orchestrator, worker = await start()
    fault = Fault("register", kind)  # type: ignore[arg-type]
    orchestrator.inject(fault)
    with pytest.raises(error):
        await worker.register()
    assert fault.used == 1
    assert orchestrator.workers["w1"].registered_count == 1
    assert (orchestrator.requests[-1].fault, orchestrator.requests[-1].status) == (kind, 0)
    assert (await worker.register()).status == 200
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize(
    ("kind", "error"), [("drop_after", aiohttp.ServerDisconnectedError), ("truncate", aiohttp.ClientPayloadError)]
)
async def test_calls_whose_answer_is_lost(start: Start, kind: str, error: type[Exception]) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    task = await worker.task()
    orchestrator.inject(Fault("result", kind))  # type: ignore[arg-type]
    with pytest.raises(error):
        await worker.result(task)
    assert job.state == "finished"
    assert (await worker.result(task)).json["reason"] == "job_already_terminated"


async def test_a_task_whose_answer_is_lost_is_gone_from_the_queue(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    orchestrator.inject(Fault("poll", "drop_after", times=2))  # aiohttp repeats a GET by itself, once
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await worker.poll()
    assert (job.state, job.attempts) == ("running", 1)
    assert (await worker.poll()).status == 204


async def test_a_chosen_status(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("heartbeat", "status", status=429, retry_after=7, headers={"X-Extra": "1"}))
    reply = await worker.heartbeat()
    assert (reply.status, reply.headers["Retry-After"], reply.headers["X-Extra"]) == (429, "7", "1")
    assert reply.headers["X-RXON-Version"] == "1.0b17"
    assert not orchestrator.workers["w1"].heartbeats


async def test_a_proxys_page(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("heartbeat", "html", status=502))
    reply = await worker.heartbeat()
    assert reply.status == 502
    assert reply.headers["Content-Type"].startswith("text/html")
    assert "X-RXON-Version" not in reply.headers
    assert b"<html>" in reply.body


async def test_a_chosen_body_leaves_the_queue_alone(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    orchestrator.inject(Fault("poll", "body", body=b'{"job_id": 1'))
    reply = await worker.poll()
    assert (reply.status, reply.body) == (200, b'{"job_id": 1')
    assert job.state == "queued"


async def test_an_answer_that_is_late(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("heartbeat", "delay", delay=0.04))
    before = time.monotonic()
    assert (await worker.heartbeat()).status == 200
    assert time.monotonic() - before >= 0.04
    assert len(orchestrator.workers["w1"].heartbeats) == 1


async def test_faults_come_in_order_and_so_often(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("heartbeat", times=2), Fault("any", status=500))
    assert [(await worker.heartbeat()).status for _ in range(4)] == [503, 503, 500, 200]


async def test_a_fault_may_last_until_it_is_cleared(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("any", times=None))
    assert [(await worker.heartbeat()).status for _ in range(3)] == [503] * 3
    orchestrator.clear_faults()
    assert (await worker.heartbeat()).status == 200


async def test_a_fault_may_pick_its_calls(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(
        Fault("heartbeat", when=lambda call: call.json["status"] == "idle" and call.path.endswith("w1"))
    )
    assert (await worker.poll()).status == 204
    assert (await worker.heartbeat()).status == 503


@pytest.mark.parametrize("kind", ["drop_before", "reset", "garbage"])
async def test_websockets_that_never_open(start: Start, kind: str) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("ws", kind, times=2))  # type: ignore[arg-type]
    with pytest.raises(aiohttp.ClientError):
        async with worker.websocket():
            pass
    assert not orchestrator.workers["w1"].connected


async def test_a_websocket_that_is_refused(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("ws", status=500))
    with pytest.raises(aiohttp.WSServerHandshakeError, match="500"):
        async with worker.websocket():
            pass


async def test_a_websocket_that_breaks_after_the_handshake(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("ws", "drop_after"))
    async with worker.websocket() as websocket:
        message = await websocket.receive(timeout=5)
    assert message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}


@pytest.mark.parametrize("body", [b"not JSON", b"\xff\xfe"])
async def test_a_websocket_that_sends_malformed_messages(start: Start, body: bytes) -> None:
    orchestrator, worker = await start()
    orchestrator.inject(Fault("ws", "body", body=body))
    async with worker.websocket() as websocket:
        message = await websocket.receive(timeout=5)
        assert message.data in {body, body.decode("latin-1")}
        await orchestrator.send_command("w1", {"command": "hello"})
        assert await websocket.receive_json(timeout=5) == {"command": "hello"}
