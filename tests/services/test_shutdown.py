"""Shutting down: an order that holds whatever fails on the way, and no task that just disappears."""

import asyncio
import socket
import threading

import pytest

from avtomatika_worker import ConfigError, TaskContext, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from services.conftest import actions, make_settings, running


@pytest.fixture
def gate():
    return asyncio.Event()


@pytest.fixture
def gated(worker, gate):
    @worker.skill(events={"woken": {"type": "object"}})
    async def patient(params: dict, ctx: TaskContext):
        await gate.wait()
        if "report" in params:
            ctx.send_event("woken", {})
        return params

    @worker.skill(events={"cut": {"type": "object"}})
    async def forever(params: dict, ctx: TaskContext):
        try:
            await asyncio.Event().wait()
        finally:
            ctx.send_event("cut", {})

    @worker.skill
    async def echo(params: dict):
        return params

    return worker


def trace(orchestrator, since=0.0):
    """Return what has come to the orchestrator since then, in that order: polls, the statuses of heartbeats, results.

    Repeats are put together.
    """
    seen = []
    for call in sorted(orchestrator.requests, key=lambda call: call.time):
        if call.time < since:
            continue
        match call.call:
            case "poll" | "register":
                entry = call.call
            case "heartbeat":
                entry = call.json["status"]
            case "result":
                entry = f"result {call.json['status']}"
            case _:
                continue
        if not seen or seen[-1] != entry:
            seen.append(entry)
    return seen


def is_draining(call):
    return call.call == "heartbeat" and call.json["status"] == "draining"


async def stopping(worker, orchestrator, gate=None):
    """Ask the worker to stop; let the gate open once it drains."""
    task = asyncio.create_task(worker.shutdown())
    if gate is not None:
        # No poll comes any more: that is so before "draining" is announced, however that ends.
        await orchestrator.wait_for(lambda: any(map(is_draining, orchestrator.requests)))
        gate.set()
    await task


async def test_the_order_is_draining_results_offline_and_nothing_is_polled_for(orchestrator, gated, gate):
    async with running(gated, orchestrator) as main:
        jobs = [orchestrator.submit("patient", {"n": n}) for n in range(3)]
        await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
        since = orchestrator.now()
        await stopping(gated, orchestrator, gate)
        await main
    seen = trace(orchestrator, since)
    began = seen.index("draining")
    assert set(seen[:began]) <= {"poll"}  # those that follow the last tasks may come only now
    seen = seen[began:]
    assert seen[-2:] == ["result success", "offline"]
    assert "poll" not in seen
    assert [job.result for job in jobs] == [{"n": n} for n in range(3)]


def draining(call):
    return call.json["status"] == "draining"


def offline(call):
    return call.json["status"] == "offline"


FAULTS = {
    "draining cannot be reported": {"call": "heartbeat", "kind": "status", "when": draining, "times": None},
    "draining is never answered": {"call": "heartbeat", "kind": "answer_late", "delay": 5, "when": draining},
    "draining meets a reset": {"call": "heartbeat", "kind": "reset", "when": draining},
    "draining is answered with garbage": {"call": "heartbeat", "kind": "garbage", "when": draining},
    "draining's answer is lost": {"call": "heartbeat", "kind": "drop_after", "when": draining},
    "the result's answer is lost": {"call": "result", "kind": "drop_after"},
    "the result is refused for a moment": {"call": "result", "kind": "status", "times": 2},
    "the result comes too early": {"call": "result", "kind": "status", "status": 429, "retry_after": 0.3},
    "the result meets a proxy": {"call": "result", "kind": "html", "status": 502},
    "the result is answered late": {"call": "result", "kind": "delay", "delay": 1.0},
    "events fail": {"call": "event", "kind": "reset", "times": 2},
    "offline cannot be reported": {"call": "heartbeat", "kind": "drop_before", "when": offline, "times": None},
    "offline is never answered": {"call": "heartbeat", "kind": "answer_late", "delay": 10, "when": offline},
    "offline fails over there": {"call": "heartbeat", "kind": "status", "status": 500, "when": offline},
}


def in_order(seen):
    """Return whether a trace is: draining, the results, offline; from "draining" on no poll and never "idle"."""
    since = seen.index("draining")
    rest = [entry for entry in seen[since:] if entry != "register"]
    results = [index for index, entry in enumerate(rest) if entry.startswith("result")]
    return (
        seen[-1] == rest[-1] == "offline"
        and rest.count("offline") == 1
        and not {"poll", "idle", "busy"}.intersection(rest)
        and bool(results)
        and 0 < min(results) <= max(results) < len(rest) - 1
    )


@pytest.mark.parametrize("grace", ["tasks finish", "tasks are cancelled"])
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_at_any_step_changes_no_order_loses_nothing_and_holds_nothing_up(gated, gate, name, grace):
    fault = Fault(**FAULTS[name])
    cancelled = grace == "tasks are cancelled"
    skill, timeout = ("forever", 0.2) if cancelled else ("patient", 5.0)
    async with EmbeddedOrchestrator(poll_time=1.0) as orchestrator:
        async with running(gated, orchestrator, shutdown_timeout=timeout) as main:
            jobs = [orchestrator.submit(skill, {"n": n, "report": True}) for n in range(2)]
            await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
            await asyncio.sleep(0.05)
            since = orchestrator.now()
            orchestrator.inject(fault)
            async with asyncio.timeout(20):
                await stopping(gated, orchestrator, gate)
                await main
        assert in_order(trace(orchestrator, since)), trace(orchestrator, since)
        for job in jobs:
            (taken,) = [received.message for received in job.results_received if received.status == "accepted"]
            if cancelled:
                assert taken["error"]["code"] == "TRANSIENT_ERROR"
            else:
                assert job.result == taken["data"]
        assert fault.used
        assert not gated.ending.lost


@pytest.mark.parametrize("kind", ["drop_before", "reset", "html"])
async def test_a_poll_that_breaks_while_draining_does_not_make_the_worker_look_idle_again(gated, gate, kind):
    """A break makes it register again, and a worker that has registered counts as idle until its next heartbeat."""
    async with EmbeddedOrchestrator(poll_time=5.0) as orchestrator:
        async with running(gated, orchestrator, max_concurrent_tasks=2) as main:
            job = orchestrator.submit("patient", {"n": 1})
            await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
            await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 1)
            # The poll that is sent next ends in the middle of the shutdown.
            broken = Fault(call="poll", kind=kind, delay=0.8)
            orchestrator.inject(broken)
            other = orchestrator.submit("echo", {})  # brings one poll home, so that the next goes out
            await orchestrator.wait_for(lambda: broken.used)
            await other.done()
            since = orchestrator.now()
            stopped = asyncio.create_task(gated.shutdown())
            await orchestrator.wait_for(lambda: "register" in trace(orchestrator, since))
            late = orchestrator.submit("echo", {"late": True})
            await orchestrator.wait_for(lambda: trace(orchestrator, since)[-1] == "draining")
            gate.set()
            await stopped
            await main
        seen = trace(orchestrator, since)
        assert seen[seen.index("register") + 1] == "draining"
        assert "poll" not in seen[seen.index("register") :]
        assert job.result == {"n": 1}
        assert late.state is JobState.QUEUED  # for another worker


@pytest.mark.parametrize("away", ["from the beginning", "once the tasks have ended"])
async def test_an_orchestrator_that_is_away_gets_the_results_when_the_worker_is_back(
    orchestrator, gated, gate, away, caplog
):
    async with running(gated, orchestrator) as main:
        jobs = [orchestrator.submit("patient", {"n": n}) for n in range(3)]
        await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
        if away == "from the beginning":
            await orchestrator.stop()
        stopped = asyncio.create_task(gated.shutdown())
        if away == "once the tasks have ended":
            await orchestrator.wait_for(lambda: orchestrator.workers["w1"].status == "draining")
            await orchestrator.stop()
        gate.set()
        async with asyncio.timeout(20):
            await stopped
            await main
    assert actions(caplog, "outbox_left")
    await orchestrator.start()
    async with running(Worker(), orchestrator):
        for job in jobs:
            await job.done()
    assert [job.result for job in jobs] == [{"n": n} for n in range(3)]
    assert {job.attempts for job in jobs} == {1}


async def test_a_task_that_outlives_the_grace_is_cancelled_and_reported_for_a_retry(orchestrator, gated):
    async with running(gated, orchestrator, shutdown_timeout=0.05):
        job = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    (received,) = job.results_received
    assert received.message["error"]["code"] == "TRANSIENT_ERROR"
    assert "shutting down" in received.message["error"]["message"]
    assert trace(orchestrator)[-1] == "offline"


async def handed_out_late(orchestrator):
    """Return a job that was handed out to the one poll in flight, whose answer is still on its way."""
    fault = Fault(call="poll", kind="answer_late", delay=0.6, times=None)
    orchestrator.inject(fault)
    await orchestrator.wait_for(lambda: fault.used)
    job = orchestrator.submit("echo", {"late": True})
    await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    return job


async def test_a_task_that_arrives_with_the_last_poll_is_run_within_the_grace(orchestrator, gated, gate):
    async with running(gated, orchestrator, max_concurrent_tasks=2) as main:
        early = orchestrator.submit("patient", {"n": 1})
        await orchestrator.wait_for(lambda: early.state is JobState.RUNNING)
        late = await handed_out_late(orchestrator)
        stopped = asyncio.create_task(gated.shutdown())
        await orchestrator.wait_for(lambda: late.state is JobState.FINISHED)
        gate.set()
        await stopped
        await main
    assert (early.result, late.result) == ({"n": 1}, {"late": True})
    assert late.attempts == 1


async def test_a_task_that_arrives_after_the_grace_is_handed_back_at_once(orchestrator, gated):
    async with running(gated, orchestrator, shutdown_timeout=0.05, max_concurrent_tasks=2) as main:
        stuck = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: stuck.state is JobState.RUNNING)
        # Keeps the shutdown busy until the late task is there.
        orchestrator.inject(Fault(call="result", kind="answer_late", delay=1.5))
        late = await handed_out_late(orchestrator)
        await gated.shutdown()
        await main
    for job in (stuck, late):
        (received,) = job.results_received
        assert received.message["error"]["code"] == "TRANSIENT_ERROR"
        assert job.state is JobState.QUEUED


async def test_a_second_request_stops_at_once_and_what_ran_goes_back_when_the_worker_returns(orchestrator, gated):
    async with running(gated, orchestrator, shutdown_timeout=60) as main:
        job = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        gated.request_shutdown()
        await orchestrator.wait_for(lambda: any(map(is_draining, orchestrator.requests)))
        async with asyncio.timeout(15):
            gated.request_shutdown()
            await main
    assert gated.ending.forced
    async with running(Worker(), orchestrator):
        await orchestrator.wait_for(lambda: job.results_received)
    assert job.results_received[0].message["error"]["code"] == "TRANSIENT_ERROR"


async def test_skills_that_swallow_cancellation_do_not_keep_the_worker_from_ending(orchestrator, worker, caplog):
    end = asyncio.Event()
    thread_end = threading.Event()

    @worker.skill(cancel_grace=0.1)
    async def stubborn():
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    @worker.skill(cancel_grace=0.1)
    def stubborn_thread(ctx: TaskContext):
        thread_end.wait(30)

    async with running(worker, orchestrator, shutdown_timeout=0.05):
        jobs = [orchestrator.submit(skill, {}) for skill in ("stubborn", "stubborn_thread")]
        await orchestrator.wait_for(lambda: all(job.state is JobState.RUNNING for job in jobs))
    assert {job.results_received[0].message["error"]["code"] for job in jobs} == {"TRANSIENT_ERROR"}
    assert len(actions(caplog, "task_lingers")) == 2
    end.set()
    thread_end.set()
    await asyncio.sleep(0.05)


async def test_cancelling_main_twice_cuts_the_shutdown_short(orchestrator, gated):
    async with running(gated, orchestrator, shutdown_timeout=60) as main:
        job = orchestrator.submit("forever", {})
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        main.cancel()
        await orchestrator.wait_for(lambda: any(map(is_draining, orchestrator.requests)))
        main.cancel()
        async with asyncio.timeout(15):
            with pytest.raises(asyncio.CancelledError):
                await main
    assert gated.ending.forced


async def test_a_service_that_cannot_start_ends_the_worker_in_order(orchestrator, gated, unused_tcp_port):
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
    settings = make_settings(gated, environment, {"port": unused_tcp_port, "health_host": "127.0.0.1"})
    with socket.create_server(("127.0.0.1", unused_tcp_port)):
        async with asyncio.timeout(20):
            with pytest.raises(ConfigError, match="WORKER_PORT"):
                await gated.main(settings)
