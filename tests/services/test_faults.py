"""Storms: many faults at once, in a random but repeatable order, and every job counted at the orchestrator's side."""

import asyncio
import contextlib
import itertools
import random
from collections import Counter

import pytest

from avtomatika_worker import TaskContext, TransientError, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from services.conftest import actions, running

JOBS = 120
CALLS = ("poll", "result", "result", "heartbeat", "event", "register", "any")
KINDS = ("drop_before", "drop_after", "delay", "answer_late", "status", "garbage", "truncate", "html", "reset")
STATUSES = (429, 429, 500, 502, 503, 504)


class Runs:
    """How often each job's skill was begun."""

    def __init__(self, worker):
        self.begun = Counter()

        @worker.skill
        async def work(job_id: str, seconds: float):
            self.begun[job_id] += 1
            await asyncio.sleep(seconds)
            return {"job": job_id}

        @worker.skill(events={"step": {"type": "object"}})
        async def flaky(job_id: str, ctx: TaskContext):
            self.begun[job_id] += 1
            ctx.send_event("step", {"begun": self.begun[job_id]})
            if self.begun[job_id] == 1:
                raise TransientError("the first time never works")
            return {"job": job_id}


@pytest.fixture
def runs(worker):
    return Runs(worker)


def a_fault(chance):
    return Fault(
        call=chance.choice(CALLS),
        kind=chance.choice(KINDS),
        times=chance.randint(1, 4),
        status=chance.choice(STATUSES),
        retry_after=chance.choice([None, 0.05, 0.2]),
        delay=chance.choice([0.0, 0.02, 0.3]),
    )


async def away(orchestrator, seconds):
    await orchestrator.stop()
    await asyncio.sleep(seconds)
    await orchestrator.start()


async def storm(orchestrator, chance):
    """Let everything go wrong for a while, and then be fine weather again."""
    for step in itertools.count():
        await asyncio.sleep(chance.uniform(0.01, 0.05))
        orchestrator.inject(a_fault(chance))
        match step:
            case 10 | 35 | 50:  # behind the worker's clock, with it, and far ahead of it
                # Never back: what was handed out before would not time out while the test waits.
                orchestrator.clock_offset += chance.uniform(70, 3000)
            case 25:
                orchestrator.forget_workers()
            case 30:
                await away(orchestrator, 0.3)
            case 60:
                orchestrator.forget_workers()
                await away(orchestrator, 2.0)
            case 70:
                orchestrator.clear_faults()
                return


def all_ended_well(jobs, runs):
    """Check that every job was finished once, and run again only when the orchestrator had handed it out again."""
    assert Counter(job.state for job in jobs) == {JobState.FINISHED: len(jobs)}
    assert [job.result for job in jobs] == [{"job": job.job_id} for job in jobs]
    for job in jobs:
        taken = [r.message["status"] for r in job.results_received if r.status == "accepted"]
        assert taken.count("success") == 1
        assert len(taken) <= job.attempts
        assert 1 <= runs.begun[job.job_id] <= job.attempts


@pytest.mark.parametrize(("seed", "durability"), [(0, "on_failure"), (1, "always"), (2, "always"), (3, "on_failure")])
async def test_in_a_storm_every_job_is_finished_and_none_is_run_twice_unasked(worker, runs, caplog, seed, durability):
    chance = random.Random(seed)
    version = ["1.0b7", "1.0b11", "1.0b14", "1.0b17"][seed]
    patience = {"task_timeout": 2.0, "lease": 60.0, "max_attempts": 20}
    async with (
        EmbeddedOrchestrator(version=version, poll_time=0.3, **patience) as orchestrator,
        running(worker, orchestrator, max_concurrent_tasks=10, heartbeat_interval=0.5, result_durability=durability),
    ):
        orchestrator.clock_offset = -3000.0
        bad_weather = asyncio.create_task(storm(orchestrator, chance))
        jobs = []
        for number in range(JOBS):
            skill = "flaky" if number % 6 == 0 else "work"
            jobs.append(orchestrator.submit(skill, {"seconds": chance.choice([0.0, 0.02, 0.2])}))
            await asyncio.sleep(0.02)
        await bad_weather
        for job in jobs:
            await job.done(timeout=30)
        all_ended_well(jobs, runs)
    assert not actions(caplog, "result_lost")
    assert not actions(caplog, "outbox_left")
    assert worker.ending.lost == 0


@pytest.mark.parametrize("retry_after", [None, 0.3])
async def test_a_worker_that_is_asked_to_slow_down_gets_everything_done(worker, runs, retry_after):
    """Every other call is refused; no call is made before the requested time has passed."""
    turn = itertools.count()
    limited = [
        Fault(call=call, status=429, retry_after=retry_after, times=20, when=lambda _call: next(turn) % 2 == 0)
        for call in ("poll", "result")
    ]
    async with (
        EmbeddedOrchestrator(poll_time=0.5, task_timeout=30) as orchestrator,
        running(worker, orchestrator, max_concurrent_tasks=10),
    ):
        orchestrator.inject(*limited)
        jobs = [orchestrator.submit("work", {"seconds": 0.0}) for _ in range(40)]
        for job in jobs:
            await job.done(timeout=60)
        all_ended_well(jobs, runs)
        assert {job.attempts for job in jobs} == {1}
        assert all(fault.used for fault in limited)


def results_answered(orchestrator):
    """Return the results that have been answered, accepted or not."""
    return [call.json for call in orchestrator.requests if call.call == "result" and call.status == 200]


@pytest.mark.parametrize("later", ["1.0b7", "1.0b17"])
async def test_an_orchestrator_replaced_by_one_that_knows_nothing_gets_the_worker_at_once(caplog, later):
    """Results for the one that is gone are not wanted any more; the other may speak another version."""
    worker = Worker()
    runs = Runs(worker)
    async with EmbeddedOrchestrator(version="1.0b13", poll_time=0.5) as first:
        async with running(worker, first, heartbeat_interval=0.5):
            old = [first.submit("work", {"seconds": 0.7}) for _ in range(5)]
            await first.wait_for(lambda: len(runs.begun) == 5)
            await first.stop()
            async with EmbeddedOrchestrator(version=later, port=first.port, poll_time=0.5) as second:
                await second.wait_for_worker("w1", timeout=10)
                jobs = [second.submit("work", {"seconds": 0.0}) for _ in range(20)]
                for job in jobs:
                    await job.done(timeout=10)
                all_ended_well(jobs, runs)
                unknown = {job.job_id for job in old}
                await second.wait_for(lambda: unknown <= {each["job_id"] for each in results_answered(second)})
                assert list(second.problems) == []
        assert not actions(caplog, "outbox_left")


async def test_workers_that_notice_the_same_break_come_back_spread_over_a_while():
    workers = 8
    async with EmbeddedOrchestrator(poll_time=5.0) as orchestrator, contextlib.AsyncExitStack() as stack:
        for number in range(workers):
            worker = Worker()
            worker.skill("nothing")(lambda: None)
            delays = {"registration_retry_initial_delay": 1.0, "registration_retry_max_delay": 1.0}
            await stack.enter_async_context(running(worker, orchestrator, worker_id=f"spread-{number}", **delays))
        # What they notice is the end of their WebSockets; one without would learn of it with its next heartbeat.
        await orchestrator.wait_for(lambda: all(worker.connected for worker in orchestrator.workers.values()))
        before = len(orchestrator.requests)
        await orchestrator.stop()
        orchestrator.forget_workers()
        await orchestrator.start()
        await orchestrator.wait_for(lambda: len(orchestrator.workers) == workers, timeout=15)
        came = [call.time for call in list(orchestrator.requests)[before:] if call.call == "register"]
    assert max(came) - min(came) > 0.1  # eight of them within a tenth of the second would be one in 10^6 runs


async def test_a_limit_of_polls_that_holds_back_a_worker_with_work_is_reported(worker, runs, caplog):
    limited = Fault(call="poll", kind="status", status=429, when=lambda _call: len(runs.begun) >= 12)
    async with EmbeddedOrchestrator(poll_time=0.2) as orchestrator:
        orchestrator.inject(limited)
        jobs = [orchestrator.submit("work", {"seconds": 0.0}) for _ in range(15)]
        async with running(worker, orchestrator, max_concurrent_tasks=1, rate_limit_wait=0.05):
            for job in jobs:  # the last ones come with polls that follow the refused one
                await job.done(timeout=30)
    assert limited.used == 1
    (said,) = actions(caplog, "polls_limited")
    assert "RATE_LIMIT_POLL_LIMIT" in said


async def test_a_limit_of_polls_that_an_idle_worker_meets_is_not_reported(worker, runs, caplog):
    limited = Fault(call="poll", kind="status", status=429, times=2)
    async with (
        EmbeddedOrchestrator(poll_time=0.01) as orchestrator,
        running(worker, orchestrator, rate_limit_wait=0.05),
    ):
        for _ in range(12):  # one poll brings the task, others bring nothing
            await orchestrator.submit("work", {"seconds": 0.05}).done(timeout=30)
        orchestrator.inject(limited)
        await orchestrator.wait_for(lambda: limited.used == 2)
    assert not actions(caplog, "polls_limited")
