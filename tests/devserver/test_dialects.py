"""One orchestrator of each release, and a worker that speaks its dialect."""

from __future__ import annotations

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.protocol.dialects import DIALECTS
from avtomatika_worker.protocol.messages import SkillInfo
from avtomatika_worker.protocol.signing import Signer, verified_task
from devserver.support import ECHO, Start, resigned

VERSIONS = [dialect.version for dialect in DIALECTS]
every_version = pytest.mark.parametrize("version", VERSIONS)


def number(version: str) -> int:
    return int(version.removeprefix("1.0b"))


@every_version
async def test_a_job_goes_all_the_way(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    assert (await worker.heartbeat()).json == {"status": "ok"}
    job = orchestrator.submit("echo", {"x": 1.5, "nested": {"list": [1, None]}})
    task = await worker.task()
    assert task["params"]["x"] == 1.5
    assert job.state == "running"

    event = await worker.event(task, "progress", {"progress": 0.5, "message": "half"})
    assert event.json == {"status": "event_accepted"}
    assert job.progress == (0.5, "half")

    reply = await worker.result(task, data={"answer": [1, 2.5, "é"], "whole": 2.0})
    assert reply.json == {"status": "accepted", "transition": "success_transition"}
    assert (await job.done(1)).state == "finished"
    assert job.result == {"answer": [1, 2.5, "é"], "whole": 2.0}
    assert list(orchestrator.problems) == []
    assert {call.status for call in orchestrator.requests} == {200}


@every_version
async def test_every_answer_announces_the_version(start: Start, version: str) -> None:
    _, worker = await start(version=version)
    registered = await worker.register()
    assert registered.json["version"] == version
    refused = await worker.send(worker.beat(), {"X-Worker-Token": "wrong"})
    for reply in (registered, refused, await worker.poll(), await worker.heartbeat()):
        assert reply.headers["X-RXON-Version"] == version


@every_version
async def test_tasks_have_the_form_that_the_release_gives_them(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version, secret_key="secret")
    job = orchestrator.submit("echo", {"x": 1}, priority=2)
    task = await worker.task()
    assert (task["task_id"] == task["job_id"]) is (number(version) <= 10)
    assert ("deadline" in task) is (number(version) <= 9)  # null
    expected = type(None) if number(version) <= 9 else float if number(version) <= 16 else int
    assert type(task.get("timestamp")) is expected
    assert job.task_id == task["task_id"]
    assert ("sig" in task) is (version == "1.0b17")
    if "sig" in task:
        assert task["step"] == 1
        assert verified_task(task, Signer("secret"), worker.dialect)
        assert not verified_task({**task, "params": {"x": 2}}, Signer("secret"), worker.dialect)


@every_version
async def test_optional_parts_of_a_task_arrive(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version)
    files = {"source": {"uri": "s3://bucket/key", "size": 3}}
    orchestrator.submit(
        "echo",
        deadline=orchestrator.now() + 60,
        metadata={"k": "v"},
        tracing_context={"traceparent": "00-1-2-01"},
        policy={"allowed_skills": ["echo"]},
        params_metadata=files,
        job_id="job-1",
    )
    task = await worker.task()
    assert task["job_id"] == "job-1"
    assert task["metadata"] == {"k": "v"}
    assert task["tracing_context"] == {"traceparent": "00-1-2-01"}
    assert task["policy"] == {"allowed_skills": ["echo"]}
    assert task["params_metadata"] == files
    assert task["deadline"] == pytest.approx(orchestrator.now() + 60, abs=5)


@pytest.mark.parametrize("version", ["1.0b7", "1.0b8"])
async def test_up_to_b8_the_catalogue_is_the_availability(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version, skills=(ECHO, SkillInfo(name="slow", type="slow")))
    assert orchestrator.workers["w1"].available == {"echo", "slow"}
    await worker.heartbeat(catalogue=worker.skills, available_skills=("slow",))
    assert orchestrator.workers["w1"].available == {"slow"}


async def test_from_b9_available_skills_say_what_can_start(start: Start) -> None:
    orchestrator, worker = await start(version="1.0b9", skills=(ECHO, SkillInfo(name="slow", type="slow")))
    await worker.heartbeat(available_skills=("slow",))
    assert orchestrator.workers["w1"].available == {"slow"}
    assert set(orchestrator.workers["w1"].skills) == {"echo", "slow"}
    job = orchestrator.submit("echo")
    assert (await worker.poll()).status == 204
    await worker.heartbeat()
    assert (await worker.poll("slow")).status == 204  # the poll's own list counts, too
    assert (await worker.task())["job_id"] == job.job_id


async def test_the_jitter_is_announced(start: Start) -> None:
    _, worker = await start(version="1.0b7", heartbeat_jitter_ms=-250)
    assert (await worker.heartbeat()).json == {"status": "ok", "next_heartbeat_jitter_ms": -250}


@pytest.mark.parametrize("version", ["1.0b7", "1.0b9", "1.0b10"])
async def test_missing_containers_are_a_problem_where_they_break_dispatch(start: Start, version: str) -> None:
    orchestrator, worker = await start(version=version, register=False)
    request = worker.registration()
    assert (await worker.send(resigned(worker, request, installed_software=None, capabilities={}))).status == 200
    texts = [problem.text for problem in orchestrator.problems]
    expected = [] if version == "1.0b10" else ["installed_software", "capabilities.cost_per_skill"]
    assert [text.split()[0] for text in texts] == expected


async def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"1\.0b99"):
        EmbeddedOrchestrator(version="1.0b99")
