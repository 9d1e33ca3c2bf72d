"""Orchestrators that send far too much: the worker goes on, its heartbeats and its end included."""

import asyncio
import json
import time

import pytest

from avtomatika_worker import Worker, threadsafe
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from avtomatika_worker.link.cancellations import CancellationQueue
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.transport.http import HttpTransport
from services.conftest import actions, running
from services.scripted import Answer, Scripted


def echo(worker: Worker) -> None:
    @worker.skill
    async def echo(params: dict[str, object]) -> dict[str, object]:
        return params


async def finished(orchestrator, params=None):
    job = orchestrator.submit("echo", params or {})
    await orchestrator.wait_for(lambda: job.state.final)
    assert job.state.value == "finished"


async def test_cancellations_without_end_change_nothing(worker, orchestrator, caplog):
    echo(worker)
    async with running(worker, orchestrator, heartbeat_interval=0.2):
        for number in range(20_000):
            command = {"command": "cancel_task", "task_id": f"none-{number}", "job_id": f"job-{number}"}
            sending = asyncio.ensure_future(orchestrator.send_command("w1", command))
            sending.add_done_callback(lambda sent: sent.cancelled() or sent.exception())
        before = len([call for call in orchestrator.requests if call.call == "heartbeat"])
        for _ in range(10):
            await finished(orchestrator)
        heartbeats = Fault(
            "heartbeat", "body", body=json.dumps({"status": "ok", "cancel_task_ids": ids(100_000)}).encode(), times=3
        )
        orchestrator.inject(heartbeats)
        await orchestrator.wait_for(lambda: heartbeats.used == 3)
        await finished(orchestrator)
        assert len([call for call in orchestrator.requests if call.call == "heartbeat"]) > before
    assert len(actions(caplog, "cancels_dropped")) == 1


def ids(count):
    return [f"never-{number}" for number in range(count)]


async def test_cancellations_cross_to_a_blocked_loop_in_one_step_and_the_newest_win():
    taken = []
    cancels = CancellationQueue(
        threadsafe.CallQueue(asyncio.get_running_loop()), lambda link, ids: taken.append((link, ids)), most=3
    )
    links = [
        Link(LinkSettings(url, None), "w1", HttpTransport(url, user_agent="x")) for url in ("http://a", "http://b")
    ]
    for number in range(100):
        cancels(links[number % 2], (f"t{number}",))
    cancels(links[0], ("t98",))  # again
    assert taken == []  # this loop had no turn yet
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert taken == [(links[0], ("t94", "t96", "t98")), (links[1], ("t95", "t97", "t99"))]


async def test_polls_that_come_back_empty_at_once_become_few(worker, orchestrator):
    echo(worker)
    nothing = Fault("poll", status=204, headers={"X-RXON-Version": "1.0b17"}, times=None)
    orchestrator.inject(nothing)
    async with running(worker, orchestrator, task_poll_timeout=10.0):
        await orchestrator.wait_for(lambda: nothing.used > 5)
        before, began = nothing.used, time.monotonic()
        await orchestrator.wait_for(lambda: nothing.used >= before + 10)
        assert time.monotonic() - began > 10 / 20


@pytest.mark.parametrize("state", ["running", "finished"])
async def test_a_task_that_is_handed_out_again_and_again_is_run_once_and_polled_for_less_and_less(worker, state):
    release, runs = asyncio.Event(), 0

    @worker.skill
    async def hold():
        nonlocal runs
        runs += 1
        await release.wait()
        return {}

    task = {"task_id": "t", "job_id": "j", "type": "hold", "params": {}, "timestamp": 1.0}

    def script(call):
        return Answer(body=json.dumps(task).encode()) if call.kind == "poll" and offering else None

    offering = True
    async with Scripted(script) as server, running(worker, server, max_concurrent_tasks=4):
        if state == "finished":
            release.set()
        await server.until(lambda: len(server.calls["poll"]) > 8)
        before, began = len(server.calls["poll"]), time.monotonic()
        await server.until(lambda: len(server.calls["poll"]) >= before + 10)
        assert time.monotonic() - began > 10 / 20
        offering = False
        release.set()
        await server.hand_out({"task_id": "next", "type": "hold"})
        await server.until(lambda: {"t", "next"} <= server.results().keys())
    assert runs == 2


async def test_a_task_of_more_values_than_may_be_is_not_decoded(worker, caplog):
    echo(worker)
    body = b'{"job_id":"j","task_id":"t","type":"echo","params":{"x":[' + b"[]," * 1_000_000 + b"1]}}"
    async with EmbeddedOrchestrator(poll_time=1.0) as orchestrator, running(worker, orchestrator):
        wide = Fault("poll", "body", body=body)
        orchestrator.inject(wide)
        await orchestrator.wait_for(lambda: wide.used)
        await finished(orchestrator)
    assert "values" in " ".join(actions(caplog, "poll_failed"))


async def test_a_long_task_is_read_in_a_thread_and_runs(worker, orchestrator):
    echo(worker)
    async with running(worker, orchestrator):
        await finished(orchestrator, {"text": "x" * 500_000})
