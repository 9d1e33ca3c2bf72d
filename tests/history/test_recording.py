"""What `recording` sees of orchestrators and workers."""

from __future__ import annotations

import logging

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.testing import EmbeddedOrchestrator, Fault, WorkerHarness
from avtomatika_worker.testing.history import Kind, recording

pytestmark = pytest.mark.breaks_invariants("results_settled")  # the recordings here are checked by the tests


def a_worker() -> Worker:
    worker = Worker(worker_type="test")

    @worker.skill(events={"note": dict})
    async def note(text: str, *, ctx: TaskContext) -> dict[str, str]:
        await ctx.send_event("note", {"text": text})
        return {"text": text}

    return worker


async def test_the_course_of_a_task() -> None:
    with recording() as history:
        async with WorkerHarness(a_worker(), settings={"max_concurrent_tasks": 1}) as h:
            result = await h.run("note", {"text": "hello"})
    job = result.job
    of_task = [entry for entry in history.entries if entry.task_id == job.task_id and entry.kind is not Kind.CALL_SENT]
    kinds = [entry.kind for entry in of_task if entry.facts.get("call") != "event"]
    assert kinds == [Kind.HANDED_OUT, Kind.WORK_STARTED, Kind.WORK_ENDED, Kind.JOB_ENDED, Kind.CALL_ANSWERED]
    assert [entry.facts["call"] for entry in of_task if entry.kind is Kind.CALL_ANSWERED] == ["event", "result"]
    assert {(entry.worker_id, entry.job_id) for entry in of_task} == {("test-worker", job.job_id)}
    registered = next(entry for entry in history.entries if entry.facts.get("slots"))
    assert (registered.orchestrator, registered.facts["slots"]) == (h.orchestrator.url, 1)
    assert [history.entries[n].kind for n in (0, -1)] == [Kind.ORCHESTRATOR_STARTED, Kind.ORCHESTRATOR_STOPPED]
    assert history.violations() == []


async def test_a_result_that_never_arrives_is_seen_and_its_story_is_shown() -> None:
    with recording() as history:
        async with WorkerHarness(a_worker()) as h:
            h.orchestrator.inject(Fault("result", "status", status=503, times=None))
            task = h.submit("note", {"text": "hello"})
            await task.wait_for_event("note")
            await h.orchestrator.wait_for(lambda: any(each.call == "result" for each in h.orchestrator.requests))
    assert [violation.invariant for violation in history.violations()] == ["results_settled"]
    with pytest.raises(AssertionError, match=r"(?s)results_settled.*handed out.*work ended.*result_lost"):
        history.check()


async def test_records_below_the_level_of_the_log_are_recorded_but_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "avtomatika_worker")
    with recording() as history:
        async with WorkerHarness(a_worker()) as h:
            await h.run("note", {"text": "hello"})
    assert [entry.facts["status"] for entry in history.entries if entry.kind is Kind.WORK_ENDED] == ["success"]
    assert [record for record in caplog.records if record.levelno < logging.WARNING] == []
    assert len(logging.getLogger("avtomatika_worker.task").filters) == 1  # that of the test suite's own history


async def test_calls_whose_caller_is_gone_are_answered() -> None:
    with recording() as history:
        async with EmbeddedOrchestrator(poll_time=30.0) as orchestrator:
            h = WorkerHarness(a_worker(), orchestrator=orchestrator)
            async with h:
                await h.run("note", {"text": "hello"})
        sent = {entry.facts["number"] for entry in history.entries if entry.kind is Kind.CALL_SENT}
        answered = {entry.facts["number"] for entry in history.entries if entry.kind is Kind.CALL_ANSWERED}
    assert sent == answered
