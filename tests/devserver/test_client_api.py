"""The clients' calls, as curl makes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator
from avtomatika_worker.protocol.messages import SkillInfo
from devserver.support import ECHO, Start, WorkerClient

STRICT = SkillInfo(
    name="strict",
    type="strict",
    description="wants x",
    input_schema={"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
)


async def call(worker: WorkerClient, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
    url = worker.orchestrator.url + path
    async with worker.session.request(method, url, data=data, headers=headers) as response:
        assert response.content_type == "application/json"
        assert "Access-Control-Allow-Origin" not in response.headers
        return response.status, orjson.loads(await response.read())


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Read server-sent events until the stream ends."""
    assert response.content_type == "text/event-stream"
    name = ""
    async for line in response.content:
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, orjson.loads(value)


async def test_a_job_from_submission_to_its_result(start: Start) -> None:
    orchestrator, worker = await start()
    submission = {"skill": "echo", "params": {"x": 1}, "priority": 2, "metadata": {"k": "v"}}
    status, reply = await call(worker, "POST", "/api/jobs", submission)
    assert status == 202
    path = f"/api/jobs/{reply['job_id']}"
    _, job = await call(worker, "GET", path)
    assert (job["state"], job["priority"], job["metadata"], job["result"]) == ("queued", 2, {"k": "v"}, None)

    task = await worker.task()
    await worker.event(task, "progress", {"progress": 0.5, "message": "half"})
    await worker.result(task, data={"y": 2})
    _, job = await call(worker, "GET", path)
    assert (job["state"], job["status"], job["result"]) == ("finished", "success", {"y": 2})
    assert [event["event_type"] for event in job["events"]] == ["progress"]
    _, listed = await call(worker, "GET", "/api/jobs")
    assert [job["job_id"] for job in listed["jobs"]] == [reply["job_id"]]
    assert (await call(worker, "GET", "/api/jobs?state=queued"))[1] == {"jobs": []}
    assert list(orchestrator.problems) == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        ([], "object"),
        ({}, "skill is required"),
        ({"skill": 1}, "skill is required"),
        ({"skill": "nope"}, "known skills: echo, strict"),
        ({"skill": "echo", "params": []}, "params"),
        ({"skill": "echo", "metadata": 1}, "metadata"),
        ({"skill": "echo", "priority": "high"}, "priority"),
        (b'{"skill": "echo", "deadline": 1e300}', "64 bits"),
        ({"skill": "echo", "parms": {}}, "unknown field 'parms'"),
        ({"skill": "echo", "params": {"x": 1e30}}, "64 bits"),
        (b'{"skill": "echo", "params": ' + b'{"a":' * 900 + b"1" + b"}" * 901, "nested too deeply"),
    ],
)
async def test_wrong_submissions_are_refused_with_the_reason(start: Start, body: Any, words: str) -> None:
    orchestrator, worker = await start(skills=(ECHO, STRICT))
    status, reply = await call(worker, "POST", "/api/jobs", body)
    assert status == 400
    assert words in reply["error"]
    assert not orchestrator.jobs


async def test_without_a_worker_no_skill_is_known(start: Start) -> None:
    _, worker = await start(register=False)
    status, reply = await call(worker, "POST", "/api/jobs", {"skill": "echo"})
    assert status == 400
    assert "no worker" in reply["error"]


async def test_params_are_validated_on_request_only(start: Start) -> None:
    orchestrator, worker = await start(skills=(STRICT,))
    broken = {"skill": "strict", "params": {"x": "one"}}
    status, reply = await call(worker, "POST", "/api/jobs?validate=1", broken)
    assert status == 422
    assert "params.x" in reply["error"]
    assert (await call(worker, "POST", "/api/jobs?validate=0", broken))[0] == 202
    assert (await call(worker, "POST", "/api/jobs", broken))[0] == 202
    assert len(orchestrator.jobs) == 2


async def test_waiting_for_the_end_of_a_job(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    assert (await call(worker, "GET", f"/api/jobs/{job.job_id}?wait=0.01"))[1]["state"] == "queued"
    waiting = asyncio.create_task(call(worker, "GET", f"/api/jobs/{job.job_id}?wait=20"))
    await worker.result(await worker.task())
    assert (await waiting)[1]["state"] == "finished"
    assert (await call(worker, "GET", f"/api/jobs/{job.job_id}?wait=20"))[1]["state"] == "finished"
    assert (await call(worker, "GET", f"/api/jobs/{job.job_id}?wait=soon"))[0] == 400


async def test_a_submission_may_wait_for_its_job(start: Start) -> None:
    orchestrator, worker = await start()
    status, job = await call(worker, "POST", "/api/jobs?wait=0.01", {"skill": "echo"})
    assert (status, job["state"]) == (202, "queued")
    assert orchestrator.cancel(job["job_id"])
    waiting = asyncio.create_task(call(worker, "POST", "/api/jobs?wait=20", {"skill": "echo"}))
    await worker.result(await worker.task(), data={"y": 2})
    status, job = await waiting
    assert (status, job["state"], job["result"]) == (200, "finished", {"y": 2})
    assert job["events"] == []
    jobs = len(orchestrator.jobs)
    for wrong in ("soon", "-1", "nan", "inf"):
        status, reply = await call(worker, "POST", f"/api/jobs?wait={wrong}", {"skill": "echo"})
        assert (status, reply) == (400, {"error": "wait should be a non-negative number"})
    assert len(orchestrator.jobs) == jobs  # none was submitted


async def test_cancelling(start: Start) -> None:
    orchestrator, worker = await start()
    job = orchestrator.submit("echo")
    path = f"/api/jobs/{job.job_id}/cancel"
    assert await call(worker, "POST", path) == (202, {"job_id": job.job_id, "state": "cancelled"})
    assert (await call(worker, "POST", path))[0] == 409


async def test_the_changes_of_a_job_are_streamed_until_its_end(start: Start) -> None:
    orchestrator, worker = await start(max_attempts=2)
    job, other = orchestrator.submit("echo"), orchestrator.submit("echo", priority=-1)
    async with worker.session.get(f"{orchestrator.url}/api/jobs/{job.job_id}/events") as response:
        stream = events(response)
        assert (await anext(stream))[0] == "job"
        await worker.failure(await worker.task(), "TRANSIENT_ERROR")
        task = await worker.task()
        await worker.event(task, "progress", {"progress": 0.5})
        await worker.event(task, "alert", {"level": 1})
        await worker.result(task)
        rest = [event async for event in stream]
    assert [name for name, _ in rest] == ["running", "retrying", "running", "progress", "event", "finished"]
    assert {data["job_id"] for _, data in rest} == {job.job_id}
    assert rest[4][1]["payload"] == {"level": 1}
    assert rest[-1][1]["state"] == "finished"
    assert other.state == "queued"

    async with worker.session.get(f"{orchestrator.url}/api/jobs/{job.job_id}/events") as response:
        assert [name async for name, _ in events(response)] == ["job"]


async def test_everything_is_streamed(start: Start) -> None:
    orchestrator, worker = await start()
    async with worker.session.get(f"{orchestrator.url}/api/events") as response:
        orchestrator.submit("echo")
        await worker.result(await worker.task())
        await worker.register()
        stream = events(response)
        names = [(await anext(stream))[0] for _ in range(4)]
        assert names == ["queued", "running", "finished", "worker_registered"]
        await orchestrator.stop()
        assert [event async for event in stream] == []


async def test_workers_and_their_skills_are_listed(start: Start) -> None:
    _, worker = await start(skills=(STRICT, ECHO))
    _, workers = await call(worker, "GET", "/api/workers")
    assert [(each["worker_id"], each["skills"]) for each in workers["workers"]] == [("w1", ["echo", "strict"])]
    _, skills = await call(worker, "GET", "/api/skills")
    assert [skill["name"] for skill in skills["skills"]] == ["echo", "strict"]
    assert skills["skills"][1]["description"] == "wants x"
    _, index = await call(worker, "GET", "/")
    assert "POST /api/jobs" in index["calls"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/jobs/none", 404),
        ("GET", "/api/jobs/none/events", 404),
        ("POST", "/api/jobs/none/cancel", 404),
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/jobs", 405),
    ],
)
async def test_errors_are_json(start: Start, method: str, path: str, status: int) -> None:
    _, worker = await start()
    got, reply = await call(worker, method, path)
    assert got == status
    assert reply["error"]


async def test_requests_are_bounded(start: Start) -> None:
    _, worker = await start(max_body=1000)
    assert (await call(worker, "POST", "/api/jobs", {"skill": "echo", "params": {"x": "a" * 1000}}))[0] == 413


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "10.0.0.1", "127.0.0.1.evil.example", "[", "[::2]"]
)
async def test_other_hosts_are_refused(start: Start, host: str) -> None:
    _, worker = await start()
    status, reply = await call(worker, "GET", "/api/jobs", Host=host)
    assert status == 403
    assert "loopback" in reply["error"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.1.2.3:80", "[::1]:80", "a.localhost"]
)
async def test_loopback_hosts_are_answered(start: Start, host: str) -> None:
    _, worker = await start()
    assert (await call(worker, "GET", "/api/jobs", Host=host))[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_pages_of_other_origins_are_refused(start: Start, origin: str) -> None:
    orchestrator, worker = await start()
    assert (await call(worker, "POST", "/api/jobs", {"skill": "echo"}, Origin=origin))[0] == 403
    assert not orchestrator.jobs
    assert (await call(worker, "POST", "/api/jobs", {"skill": "echo"}, Origin=orchestrator.url))[0] == 202


async def test_bound_to_all_addresses_any_host_is_answered(session: aiohttp.ClientSession) -> None:
    async with (
        EmbeddedOrchestrator(host="0.0.0.0") as orchestrator,
        session.get(orchestrator.url + "/", headers={"Host": "build-machine:8080"}) as response,
    ):
        assert response.status == 200
