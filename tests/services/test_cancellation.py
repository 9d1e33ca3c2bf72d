"""Stopping tasks: who asked, how soon, and what becomes of skills that do not stop."""

import asyncio
import threading
import time

import pytest

from avtomatika_worker import TaskContext
from avtomatika_worker.devserver import Fault, JobState
from services.conftest import actions, beats, running


async def started(orchestrator, skill, **job):
    job = orchestrator.submit(skill, {}, **job)
    await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
    return job


@pytest.fixture
def sleeper(worker):
    @worker.skill
    async def sleep():
        await asyncio.Event().wait()

    @worker.skill
    def thread(ctx: TaskContext):
        while not ctx.cancelled:
            time.sleep(0.005)  # a thread's way to wait
        ctx.raise_if_cancelled()

    return worker


@pytest.mark.parametrize("skill", ["sleep", "thread"])
async def test_each_reason_has_its_own_end(orchestrator, sleeper, skill, caplog):
    async with running(sleeper, orchestrator, shutdown_timeout=0.05, heartbeat_interval=0.2):
        asked = await started(orchestrator, skill)
        orchestrator.cancel(asked.job_id)
        await orchestrator.wait_for(lambda: asked.cancel_confirmed)
        late = orchestrator.submit(skill, {}, deadline=orchestrator.now() + 0.4)
        await orchestrator.wait_for(lambda: late.results_received)
        stopped = await started(orchestrator, skill)
    ends = {
        name: (job.results_received[0].message["status"], (job.results_received[0].message.get("error") or {}))
        for name, job in {"asked": asked, "late": late, "stopped": stopped}.items()
    }
    assert (ends["asked"][0], ends["asked"][1]) == ("cancelled", {})
    assert (ends["late"][0], ends["late"][1]["code"]) == ("failure", "TIMEOUT_ERROR")
    assert (ends["stopped"][0], ends["stopped"][1]["code"]) == ("failure", "TRANSIENT_ERROR")
    reasons = " ".join(actions(caplog, "task_cancelling"))
    assert "requested" in reasons
    assert "shutdown" in reasons


async def test_an_orchestrator_out_of_reach_for_long_takes_its_tasks_with_it_when_that_is_wanted(orchestrator, worker):
    stopped = asyncio.Event()

    @worker.skill
    async def sleep():
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    settings = {"heartbeat_interval": 0.1, "lease_lost_after": 0.5}
    async with running(worker, orchestrator, **settings):
        job = await started(orchestrator, "sleep")
        await orchestrator.stop()
        await stopped.wait()
        await orchestrator.start()
        await orchestrator.wait_for(lambda: job.results_received)
    error = job.results_received[0].message["error"]
    assert (error["code"], "lease" in error["message"]) == ("TRANSIENT_ERROR", True)


async def test_a_lost_lease_must_be_longer_than_two_heartbeats(worker):
    from avtomatika_worker import ConfigError
    from avtomatika_worker.config import load_settings

    with pytest.raises(ConfigError, match="WORKER_LEASE_LOST_AFTER"):
        load_settings({"WORKER_LEASE_LOST_AFTER": "20", "HEARTBEAT_INTERVAL": "15"})


async def test_the_timeout_of_a_skill_counts_from_its_start_not_from_its_turn(orchestrator, worker):
    @worker.skill(timeout=0.5, max_concurrent=1)
    async def one_by_one():
        await asyncio.sleep(0.05)
        return {}

    async with running(worker, orchestrator):
        jobs = [orchestrator.submit("one_by_one", {}) for _ in range(12)]  # longer than its timeout, together
        for job in jobs:
            assert (await job.done()).state is JobState.FINISHED


async def test_check_for_cancellation_answers_for_the_running_task(orchestrator, worker):
    seen, begun = [], asyncio.Event()

    @worker.skill
    async def watch(task_id: str):
        seen.append(await worker.check_for_cancellation(task_id))
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(await worker.check_for_cancellation(task_id))
            raise

    async with running(worker, orchestrator, heartbeat_interval=0.2):
        job = await started(orchestrator, "watch")
        await begun.wait()  # a task that is cancelled before its first line never runs
        orchestrator.cancel(job.job_id)
        await orchestrator.wait_for(lambda: job.cancel_confirmed)
        assert not await worker.check_for_cancellation("no such task")
    assert seen == [False, True]


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_skill_that_does_not_stop_is_reported_and_keeps_its_slot_until_it_ends(
    orchestrator, worker, kind, caplog
):
    end = threading.Event()

    @worker.skill(cancel_grace=0.1, timeout=0.2)
    def thread():
        end.wait(30)

    @worker.skill(cancel_grace=0.1, timeout=0.2)
    async def swallow():
        while not end.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    @worker.skill
    async def echo():
        return {}

    async with running(worker, orchestrator, max_concurrent_tasks=1, heartbeat_interval=0.1):
        job = orchestrator.submit("thread" if kind == "thread" else "swallow", {})
        await orchestrator.wait_for(lambda: job.results_received)
        assert job.results_received[0].message["error"]["code"] == "TIMEOUT_ERROR"
        orchestrator.cancel(job.job_id)  # or it would be tried again
        other = orchestrator.submit("echo", {})
        await beats(orchestrator)
        assert other.state is JobState.QUEUED  # the only slot is taken
        assert actions(caplog, "task_lingers")
        end.set()
        assert (await other.done()).state is JobState.FINISHED
    assert actions(caplog, "task_linger_ended")


async def test_a_socket_for_commands_that_breaks_is_opened_again(orchestrator, sleeper):
    orchestrator.inject(Fault(call="ws", kind="drop_after", times=3))
    async with running(sleeper, orchestrator, heartbeat_interval=60):
        await orchestrator.wait_for(lambda: sum(call.call == "ws" for call in orchestrator.requests) >= 4)
        job = await started(orchestrator, "sleep")
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
        orchestrator.cancel(job.job_id)
        await orchestrator.wait_for(lambda: job.cancel_confirmed)
