"""What a skill promised, held against what comes."""

from __future__ import annotations

from typing import Any

import pytest

from avtomatika_worker.protocol.messages import ResultError, SkillInfo
from devserver.support import Start

PICKY = SkillInfo(
    name="picky",
    type="picky",
    input_schema={"type": "object", "required": ["x"]},
    output_schema={"type": "object", "required": ["y"]},
    events_schema={"alert": {"type": "object", "required": ["level"]}},
    output_statuses=("needs_review",),
)


@pytest.mark.parametrize(
    ("params", "data", "status", "expected"),
    [
        ({"x": 1}, {"y": 1}, "success", None),
        ({}, {"y": 1}, "success", "input schema: params.x"),
        ({"x": 1}, {}, "success", "data.y"),
        ({"x": 1}, {}, "needs_review", None),
        ({"x": 1}, {}, "unheard_of", "output_statuses"),
        ({}, {}, "failure", None),
    ],
)
async def test_broken_promises_are_problems(
    start: Start, params: dict[str, Any], data: dict[str, Any], status: str, expected: str | None
) -> None:
    orchestrator, worker = await start(skills=(PICKY,))
    job = orchestrator.submit("picky", params)
    error = ResultError(code="INVALID_INPUT_ERROR", message="x") if status == "failure" else None
    assert (await worker.result(await worker.task(), status, data=data, error=error)).status == 200
    texts = [problem.text for problem in orchestrator.problems]
    assert len(texts) == (0 if expected is None else 1)
    assert expected is None or expected in texts[0]
    assert (job.state.value == "quarantined") == (expected == "data.y")


async def test_data_that_break_the_announced_schema_quarantine_the_job(start: Start) -> None:
    orchestrator, worker = await start(skills=(PICKY,))
    job = orchestrator.submit("picky", {"x": 1})
    reply = await worker.result(await worker.task(), data={"z": 1})
    assert reply.json == {"status": "accepted", "transition": "failure_handled"}
    assert (job.state.value, job.result, job.result_status) == ("quarantined", None, "failure")
    assert job.error is not None
    assert job.error["code"] == "CONTRACT_VIOLATION_ERROR"
    assert "data.y" in job.error["message"]


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("progress", {"progress": 0.5, "message": "half"}, None),
        ("progress", {"progress": 1.5}, "payload of progress"),
        ("alert", {"level": 1}, None),
        ("alert", {}, "payload of alert"),
        ("undeclared", {}, None),
    ],
)
async def test_broken_events_are_problems(
    start: Start, name: str, payload: dict[str, Any], expected: str | None
) -> None:
    orchestrator, worker = await start(skills=(PICKY,))
    job = orchestrator.submit("picky", {"x": 1})
    reply = (await worker.event(await worker.task(), name, payload)).json
    if expected == "payload of alert":
        assert (reply["status"], reply["code"]) == ("error", "CONTRACT_VIOLATION_ERROR")
        assert job.events == []
    else:
        assert reply == {"status": "event_accepted"}
        assert job.events[0]["payload"] == payload
    texts = [problem.text for problem in orchestrator.problems]
    assert len(texts) == (0 if expected is None else 1)
    assert expected is None or expected in texts[0]


async def test_an_event_for_an_unknown_job_is_accepted_and_a_problem(start: Start) -> None:
    orchestrator, worker = await start()
    reply = await worker.event({"job_id": "none", "task_id": "none"}, "alert", {})
    assert (reply.status, reply.json) == (200, {"status": "event_accepted"})
    assert ["event 'alert' of a job that is not known here" in each.text for each in orchestrator.problems] == [True]


async def test_invalid_schemas_are_problems_at_registration(start: Start) -> None:
    broken = SkillInfo(name="broken", type="broken", input_schema={"type": "no such type"})
    remote = SkillInfo(name="remote", type="remote", output_schema={"$ref": "http://localhost/schema"})
    orchestrator, _ = await start(skills=(broken, remote))
    assert [problem.text.split()[1] for problem in orchestrator.problems] == ["broken:", "remote:"]
