"""Who gets which job when, and what becomes of it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from avtomatika_worker.protocol.messages import FileMetadata, ResultError, SkillInfo, WorkerStatus
from devserver.support import ECHO, Start, WorkerClient

PICKY = SkillInfo(name="picky", type="picky", output_statuses=("needs_review",))


async def test_the_highest_priority_goes_first_and_then_the_oldest(start: Start) -> None:
    orchestrator, worker = await start(skills=(ECHO, PICKY))
    low, first = orchestrator.submit("echo"), orchestrator.submit("picky", priority=5)
    second = orchestrator.submit("echo", priority=5)
    assert [(await worker.task())["job_id"] for _ in range(3)] == [first.job_id, second.job_id, low.job_id]


async def test_only_skills_of_the_worker_are_handed_out(start: Start) -> None:
    orchestrator, worker = await start()
    other = orchestrator.submit("other")
    assert (await worker.poll()).status == 204
    assert other.state == "queued"


async def test_a_job_may_be_for_one_worker_only(start: Start, session: Any) -> None:
    orchestrator, worker = await start()
    second = WorkerClient(orchestrator, session, worker_id="w2")
    await second.register()
    job = orchestrator.submit("echo", worker_id="w2")
    assert (await worker.poll()).status == 204
    assert (await second.task())["job_id"] == job.job_id
    assert job.worker_id == "w2"


@pytest.mark.parametrize("status", [WorkerStatus.DRAINING, WorkerStatus.OFFLINE])
async def test_a_worker_that_goes_gets_nothing(start: Start, status: WorkerStatus) -> None:
    orchestrator, worker = await start()
    await worker.heartbeat(status)
    job = orchestrator.submit("echo")
    assert (await worker.poll()).status == 204
    await worker.heartbeat()
    assert (await worker.task())["job_id"] == job.job_id


async def test_an_unregistered_worker_gets_nothing(start: Start) -> None:
    orchestrator, worker = await start(register=False)
    orchestrator.submit("echo")
    assert (await worker.poll()).status == 204
    assert (await worker.heartbeat()).json == {"status": "ok"}
    assert not orchestrator.workers


async def test_a_waiting_poll_is_answered_at_once(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30)
    poll = asyncio.create_task(worker.task())
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 1)
    job = orchestrator.submit("echo")
    assert (await poll)["job_id"] == job.job_id
    assert orchestrator.workers["w1"].polls == 0


async def test_a_waiting_poll_holds_up_none_that_asks_for_other_skills(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30, skills=(ECHO, PICKY))
    polls: list[asyncio.Task[Any]] = []
    for number, skill in enumerate(("echo", "picky", "echo"), start=1):
        polls.append(asyncio.create_task(worker.poll(skill)))
        await orchestrator.wait_for(lambda count=number: orchestrator.workers["w1"].polls == count)
    picky = orchestrator.submit("picky")
    assert (await polls[1]).json["job_id"] == picky.job_id
    echoes = [orchestrator.submit("echo") for _ in range(2)]
    assert [(await polls[number]).json["job_id"] for number in (0, 2)] == [job.job_id for job in echoes]


async def test_waiting_workers_take_turns(start: Start, session: Any) -> None:
    orchestrator, worker = await start(poll_time=30)
    second = WorkerClient(orchestrator, session, worker_id="w2")
    await second.register()
    polls = [asyncio.create_task(client.task()) for client in (worker, worker, second, second)]
    await orchestrator.wait_for(lambda: sum(each.polls for each in orchestrator.workers.values()) == 4)
    jobs = [orchestrator.submit("echo") for _ in range(4)]
    await asyncio.gather(*polls)
    owners = [job.worker_id for job in jobs]
    assert owners in (["w1", "w2", "w1", "w2"], ["w2", "w1", "w2", "w1"])


async def test_a_poll_that_waits_is_answered_when_its_worker_is_back(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30)
    orchestrator.forget_workers()
    orchestrator.submit("echo")
    polls: list[str] = []
    orchestrator.inject(Fault("poll", "delay", when=lambda call: bool(polls.append(call.path))))  # only looks
    poll = asyncio.create_task(worker.poll())
    await orchestrator.wait_for(lambda: polls)
    await worker.register()
    assert (await poll).status == 200


async def test_a_dropped_poll_takes_no_task_and_is_a_problem(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30)
    poll = asyncio.create_task(worker.poll())
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 1)
    poll.cancel()
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 0)
    assert "dropped" in orchestrator.problems[0].text
    job = orchestrator.submit("echo")
    assert job.state == "queued"


async def test_a_worker_that_announced_draining_may_drop_its_polls(start: Start) -> None:
    orchestrator, worker = await start(poll_time=30)
    poll = asyncio.create_task(worker.poll())
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 1)
    await worker.heartbeat(WorkerStatus.DRAINING)
    poll.cancel()
    await orchestrator.wait_for(lambda: orchestrator.workers["w1"].polls == 0)
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize(
    "code",
    [
        "TRANSIENT_ERROR",
        "RESOURCE_EXHAUSTED_ERROR",
        "TIMEOUT_ERROR",
        "INTERNAL_ERROR",
        "DEPENDENCY_MISSING_ERROR",
        "A_NEW_ERROR",
    ],
)
async def test_some_failures_are_retried_and_then_quarantined(start: Start, code: str) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    tasks = []
    for _ in range(4):
        assert job.state == "queued"
        tasks.append(await worker.task())
        assert (await worker.failure(tasks[-1], code)).json["status"] == "accepted"
    assert job.state == "quarantined"
    assert job.attempts == 4
    assert job.error == {"code": code, "message": "it went wrong"}
    assert len({task["task_id"] for task in tasks}) == 4
    assert len({task["job_id"] for task in tasks}) == 1


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("PERMANENT_ERROR", "quarantined"),
        ("SECURITY_ERROR", "quarantined"),
        ("DEPENDENCY_ERROR", "quarantined"),
        ("CONTRACT_VIOLATION_ERROR", "quarantined"),
        ("INVALID_INPUT_ERROR", "failed"),
        ("INTEGRITY_MISMATCH_ERROR", "failed"),
    ],
)
async def test_other_failures_are_final(start: Start, code: str, state: str) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    await worker.failure(await worker.task(), code)
    assert job.state == state
    assert job.result_status == "failure"


async def test_a_retry_waits_for_its_delay(start: Start) -> None:
    orchestrator, worker = await start(retry_delay=20, clock=lambda: 1e9)
    job = orchestrator.submit("echo")
    await worker.failure(await worker.task(), "TRANSIENT_ERROR")
    assert (await worker.poll()).status == 204
    orchestrator.clock_offset = 20
    assert (await worker.task())["job_id"] == job.job_id


async def test_a_short_retry_delay_ends_by_itself(start: Start) -> None:
    orchestrator, worker = await start(retry_delay=0.02, poll_time=5)
    orchestrator.submit("echo")
    await worker.failure(await worker.task(), "TRANSIENT_ERROR")
    assert (await worker.poll()).status == 200


async def test_a_success_after_a_failure_clears_the_error(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    await worker.failure(await worker.task(), "TRANSIENT_ERROR")
    await worker.result(await worker.task(), data={"x": 1})
    assert (job.state, job.error, job.attempts) == ("finished", None, 2)


async def test_custom_statuses_finish_the_job(start: Start) -> None:
    orchestrator, worker = await start(skills=(PICKY,))
    job = orchestrator.submit("picky", {"x": 1})
    await worker.result(await worker.task(), "needs_review", data={"why": "blurred"})
    assert (job.state, job.result_status, job.result) == ("finished", "needs_review", {"why": "blurred"})
    assert list(orchestrator.problems) == []


async def test_costs_and_file_metadata_are_kept(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo", metadata={"k": "v"})
    file = FileMetadata(uri="s3://b/k", size=3, etag="e")
    costs = {"execution_time_seconds": 0.25}
    await worker.result(await worker.task(), data_metadata={"f": file}, metadata={"m": 1}, costs=costs)
    assert job.costs == costs
    assert job.data_metadata == {"f": {"uri": "s3://b/k", "size": 3, "etag": "e"}}
    assert job.result_metadata == {"m": 1}


async def test_result_metadata_for_a_task_without_fails_permanently(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    task = await worker.task()
    for _ in range(2):
        assert (await worker.result(task, metadata={"m": 1})).status == 500
    assert job.state == "running"
    assert {problem.status for problem in orchestrator.problems} == {500}
    assert (await worker.result(task)).status == 200


# ------------------------------------------------------------------------------------------------- ignored results


async def reason(worker: WorkerClient, task: dict[str, Any], status: str = "success") -> str:
    reply = (await worker.result(task, status)).json
    assert reply["status"] == "ignored", reply
    assert reply["message"]
    answer: str = reply["reason"]
    return answer


async def test_a_second_result_is_ignored(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    task = await worker.task()
    await worker.result(task, data={"first": True})
    assert await reason(worker, task) == "job_already_terminated"
    assert job.result == {"first": True}
    assert [(received.status, received.reason) for received in job.results_received] == [
        ("accepted", None),
        ("ignored", "job_already_terminated"),
    ]


async def test_a_result_of_an_earlier_attempt_is_ignored(start: Start) -> None:
    orchestrator, worker = await start()
    orchestrator.submit("echo")
    first = await worker.task()
    await worker.failure(first, "TRANSIENT_ERROR")
    assert await reason(worker, first) == "stale_task"
    await worker.task()
    assert await reason(worker, first) == "stale_task"


async def test_a_result_for_nothing_is_ignored(start: Start) -> None:
    _, worker = await start()
    assert await reason(worker, {"job_id": "none", "task_id": "none"}) == "job_not_found"


async def test_a_result_of_another_worker_is_ignored(start: Start, session: Any) -> None:
    orchestrator, worker = await start()
    other = WorkerClient(orchestrator, session, worker_id="w2")
    await other.register()
    orchestrator.submit("echo", worker_id="w1")
    assert await reason(other, await worker.task()) == "worker_mismatch"


async def test_a_result_after_a_cancellation_is_ignored_unless_it_says_so(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    task = await worker.task()
    assert orchestrator.cancel(job.job_id)
    assert await reason(worker, task) == "job_cancelled"
    assert (await worker.result(task, "cancelled")).json["status"] == "accepted"
    assert job.cancel_confirmed
    assert await reason(worker, task, "cancelled") == "job_already_terminated"
    assert job.state == "cancelled"


async def test_a_worker_may_cancel_by_itself(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    await worker.result(await worker.task(), "cancelled", error=ResultError(code="X", message="y"))
    assert (await job.done(1)).state == "cancelled"


# ------------------------------------------------------------------------------------------------- time


async def test_a_job_past_its_deadline_is_not_handed_out(start: Start) -> None:
    orchestrator, worker = await start(clock=lambda: 1e9)
    job = orchestrator.submit("echo", deadline=orchestrator.now() + 10)
    orchestrator.clock_offset = 10
    assert (await worker.poll()).status == 204
    assert job.state == "failed"


async def test_a_result_past_the_deadline_is_ignored(start: Start) -> None:
    orchestrator, worker = await start(clock=lambda: 1e9)
    job = orchestrator.submit("echo", deadline=orchestrator.now() + 10)
    task = await worker.task()
    orchestrator.clock_offset = 11
    assert await reason(worker, task) == "deadline_exceeded"
    assert job.result is None


async def test_a_deadline_passes_by_itself(start: Start) -> None:
    orchestrator, _ = await start()
    job = orchestrator.submit("echo", deadline=orchestrator.now() + 0.03)
    assert (await job.done(5)).error == {"code": "TIMEOUT_ERROR", "message": "the deadline passed"}


async def test_a_lost_lease_gives_the_tasks_to_others(start: Start, session: Any) -> None:
    orchestrator, worker = await start(lease=60, clock=lambda: 1e9)
    other = WorkerClient(orchestrator, session, worker_id="w2")
    job = orchestrator.submit("echo")
    first = await worker.task()
    orchestrator.clock_offset = 59
    assert "w1" in orchestrator.workers
    await other.register()
    orchestrator.clock_offset = 60
    assert list(orchestrator.workers) == ["w2"]
    assert job.state == "queued"
    second = await other.task()
    assert second["job_id"] == first["job_id"]
    assert await reason(worker, first) == "stale_task"
    assert (await worker.heartbeat()).json == {"status": "ok"}  # it is not notified


async def test_heartbeats_keep_the_lease(start: Start) -> None:
    orchestrator, worker = await start(lease=60, clock=lambda: 1e9)
    for minute in range(1, 4):
        orchestrator.clock_offset = minute * 50
        await worker.heartbeat()
    assert "w1" in orchestrator.workers


async def test_a_task_that_no_heartbeat_lists_is_queued_again(start: Start) -> None:
    orchestrator, worker = await start(task_timeout=300, lease=1000, clock=lambda: 1e9)
    lost, known = orchestrator.submit("echo"), orchestrator.submit("echo")
    await worker.task()
    await worker.task()
    await worker.heartbeat(current_tasks=(known.job_id,))
    orchestrator.clock_offset = 299
    assert lost.state == "running"
    orchestrator.clock_offset = 300
    assert (lost.state, known.state) == ("queued", "running")


async def test_ended_jobs_are_forgotten_after_a_while(start: Start) -> None:
    orchestrator, worker = await start(history=2)
    jobs = [orchestrator.submit("echo") for _ in range(4)]
    for _ in range(3):
        await worker.result(await worker.task())
    assert list(orchestrator.jobs) == [job.job_id for job in jobs[1:]]


async def test_full_sync_is_asked_for_when_the_hash_is_another(start: Start) -> None:
    orchestrator, worker = await start()
    assert (await worker.heartbeat(skills_hash="new")).json == {"status": "ok", "require_full_sync": True}
    assert (await worker.heartbeat(skills_hash="new", catalogue=worker.skills)).json == {"status": "ok"}
    orchestrator.request_full_sync("w1")
    assert (await worker.heartbeat(skills_hash="new")).json["require_full_sync"] is True


@pytest.mark.parametrize("options", [{"params": {"x": object()}}, {"priority": float("nan")}, {"priority": 1e30}])
async def test_what_cannot_be_sent_is_refused_at_submission(options: dict[str, Any]) -> None:
    orchestrator = EmbeddedOrchestrator()
    with pytest.raises(ValueError, match=r"sent|finite"):
        orchestrator.submit("echo", **options)
    assert not orchestrator.jobs


async def test_job_ids_are_unique() -> None:
    orchestrator = EmbeddedOrchestrator()
    orchestrator.submit("echo", job_id="a")
    with pytest.raises(ValueError, match="already"):
        orchestrator.submit("echo", job_id="a")


async def test_waiting_for_a_job_ends_with_a_time_out_that_says_where_it_stands() -> None:
    orchestrator = EmbeddedOrchestrator()
    with pytest.raises(TimeoutError, match="queued"):
        await orchestrator.submit("echo").done(0.01)


@pytest.mark.parametrize("collection", [{"ab"}, frozenset({"ab"}), deque(["ab"])], ids=str)
async def test_a_collection_in_params_is_an_array(start: Start, collection: Any) -> None:
    orchestrator, worker = await start()
    orchestrator.submit("echo", {"names": collection, "many": [collection]})
    assert (await worker.task())["params"] == {"names": ["ab"], "many": [["ab"]]}


async def test_what_json_has_not_is_refused_wherever_it_is(start: Start) -> None:
    @dataclass
    class Point:
        x: float

    orchestrator, _ = await start()
    for value in (Point(math.nan), {math.inf}):
        with pytest.raises(ValueError, match="does not exist in JSON"):
            orchestrator.submit("echo", {"value": value})
    with pytest.raises(ValueError, match="map is not JSON-able"):
        orchestrator.submit("echo", {"value": map(str, [1])})
