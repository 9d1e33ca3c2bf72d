"""The console's calls, without a browser."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from avtomatika_worker.devserver import Console, FileRoom, TaskLogs
from avtomatika_worker.protocol.messages import SkillInfo, WorkerStatus
from avtomatika_worker.protocol.redis_safe_schema import storable_schema
from avtomatika_worker.skills.contract import SkillContract
from devserver.support import ECHO, Start, WorkerClient

Get = Callable[..., Any]
OUTSIDE = re.compile(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w+")
UNSAFE = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:|srcdoc")


async def fetch(worker: WorkerClient, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
    url = worker.orchestrator.url + path
    async with worker.session.get(url, headers=headers, allow_redirects=False) as response:
        return response, await response.read()


async def send(worker: WorkerClient, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = io.BytesIO(body) if isinstance(body, bytes) else None if body is None else orjson.dumps(body)
    url = worker.orchestrator.url + path
    async with worker.session.request(method, url, data=data, headers=headers) as response:
        return response.status, orjson.loads(await response.read())


def content_of(uri: str) -> bytes:
    return Path(uri.removeprefix("file://")).read_bytes()


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


async def parts(worker: WorkerClient) -> dict[str, str]:
    """Return the page and all that it loads, following what each part names."""
    found: dict[str, str] = {}
    wanted = [""]
    while wanted:
        name = wanted.pop()
        response, body = await fetch(worker, f"/console/{name}")
        assert response.status == 200, name
        found[name] = body.decode()
        named = re.findall(r"""(?:src|href|from|import)[= ]\(?["'](?:\./)?([\w-]+\.(?:js|css|svg))["']""", found[name])
        wanted += [each for each in named if each not in found and each not in wanted]
    return found


# ---------------------------------------------------------------------------------------------------- the page


async def test_browsers_are_led_to_the_page_and_others_get_the_calls(start: Start) -> None:
    _, worker = await start(console=Console())
    response, _ = await fetch(worker, "/", Accept="text/html,*/*")
    assert (response.status, response.headers["Location"]) == (302, "/console/")
    response, body = await fetch(worker, "/", Accept="*/*")
    assert response.status == 200
    assert "POST /api/jobs" in orjson.loads(body)["calls"]
    response, _ = await fetch(worker, "/console")
    assert response.headers["Location"] == "/console/"


async def test_there_is_no_console_unless_requested(start: Start) -> None:
    orchestrator, worker = await start()
    assert orchestrator.console_url is None
    assert (await fetch(worker, "/console/"))[0].status == 404
    assert (await fetch(worker, "/", Accept="text/html"))[0].status == 200


async def test_the_page_is_complete_and_takes_nothing_from_elsewhere(start: Start) -> None:
    orchestrator, worker = await start(console=Console())
    found = await parts(worker)
    assert {"", "style.css", "app.js", "form.js", "values.js", "icon.svg"} <= found.keys()
    assert orchestrator.console_url == f"{orchestrator.url}/console/"
    for name, text in found.items():
        assert OUTSIDE.findall(text) == [], name
        assert UNSAFE.findall(text) == [], name
        assert " style=" not in text, name  # the policy would drop it


async def test_the_pages_policy_allows_its_own_parts_only(start: Start) -> None:
    _, worker = await start(console=Console())
    for name in await parts(worker):
        response, _ = await fetch(worker, f"/console/{name}")
        policy = dict(each.partition(" ")[::2] for each in response.headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert response.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["__init__.py", "nothing.js", "..%2Fconsole.py", "%2e%2e%2fconsole.py", "static"])
async def test_nothing_but_the_parts_of_the_page_is_served(start: Start, name: str) -> None:
    _, worker = await start(console=Console())
    assert (await fetch(worker, f"/console/{name}"))[0].status == 404


CHANGES = [
    ("POST", "/api/jobs"),
    ("POST", "/console/api/faults"),
    ("DELETE", "/console/api/faults"),
    ("POST", "/console/api/restart"),
    ("POST", "/console/api/files?name=a"),
]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_pages_of_others_can_change_nothing(
    start: Start, tmp_path: Path, method: str, path: str, origin: str
) -> None:
    orchestrator, worker = await start(console=Console(file_room=FileRoom(tmp_path, as_uris=True)))
    body = {"skill": "echo", "call": "any", "kind": "reset"}
    status, answer = await send(worker, method, path, body, Origin=origin)
    assert (status, "origin" in answer["error"]) == (403, True)
    status, _ = await send(worker, method, path, body, Host="evil.example")
    assert status == 403
    assert not orchestrator.jobs
    assert not files_below(tmp_path)
    assert (await worker.poll()).status == 204  # no fault, not forgotten


async def test_the_page_itself_may_change_things(start: Start) -> None:
    orchestrator, worker = await start(console=Console())
    assert (await send(worker, "POST", "/api/jobs", {"skill": "echo"}, Origin=orchestrator.url))[0] == 202


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example:80", 403), ("10.1.2.3:80", 200), ("dev:80", 200), ("me.local", 200)]
)
async def test_bound_to_all_addresses_names_that_the_public_dns_can_give_are_refused(
    start: Start, host: str, status: int
) -> None:
    _, worker = await start(console=Console(), host="0.0.0.0", register=False)
    for path in ("/", "/api/jobs", "/console/", "/openapi.json"):
        assert (await fetch(worker, path, Host=host))[0].status == status
    assert (await worker.send(worker.registration(), {"Host": host})).status == status


# ---------------------------------------------------------------------------------------------------- the stream


class Stream:
    """The console's stream, as the page reads it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def until(self, found: Callable[[str, dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first message that is meant."""
        name = ""
        async for line in self._response.content:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                message = orjson.loads(value)
                self.seen.append((name, message))
                if found(name, message):
                    return message
        raise AssertionError(f"the stream ended after {self.seen}")


@pytest.fixture
async def follow() -> AsyncIterator[Callable[[WorkerClient], Any]]:
    opened: list[aiohttp.ClientSession | aiohttp.ClientResponse] = []

    async def begin(worker: WorkerClient) -> Stream:
        session = aiohttp.ClientSession(read_bufsize=2**22)
        opened.append(session)
        response = await session.get(f"{worker.orchestrator.url}/console/api/stream")
        opened.append(response)
        assert response.content_type == "text/event-stream"
        return Stream(response)

    yield begin
    for each in reversed(opened):
        if isinstance(each, aiohttp.ClientResponse):
            each.close()
        else:
            await each.close()


async def test_the_stream_starts_with_the_whole_state(start: Start, follow: Get) -> None:
    orchestrator, worker = await start(console=Console())
    job = orchestrator.submit("echo", {"text": "x" * 100, "number": 5, "list": [1], "none": {}})
    stream = await follow(worker)
    everything = await stream.until(lambda name, _: name == "all")
    (row,) = everything["jobs"]
    assert (row["job_id"], row["state"]) == (job.job_id, "queued")
    assert row["hint"] == f"text: {'x' * 40}…, number: 5, list: […], none: empty"
    assert "params" not in row
    assert [skill["name"] for skill in everything["skills"]] == ["echo"]
    (shown,) = everything["workers"]
    assert (shown["worker_id"], shown["slots"], shown["running"]) == ("w1", 2, 0)
    assert everything["about"] == {"protocol": orchestrator.version, "files": False, "limits": False}


async def test_the_stream_reports_what_happens_to_a_task(start: Start, follow: Get) -> None:
    orchestrator, worker = await start(console=Console())
    stream = await follow(worker)
    await stream.until(lambda name, _: name == "all")
    job = orchestrator.submit("echo", {})
    task = await worker.task()
    busy = await stream.until(lambda _, news: any(each["running"] == 1 for each in news.get("workers", [])))
    assert busy["now"] > 0
    await worker.event(task, "progress", {"progress": 0.5, "message": "half"})
    await worker.event(task, "alert", {"level": 1})
    await stream.until(lambda _, news: any(row["progress"]["progress"] for row in news.get("jobs", [])))
    await worker.result(task, data={"y": 2})
    await stream.until(lambda _, news: any(row["state"] == "finished" for row in news.get("jobs", [])))
    events = [event for _, news in stream.seen for event in news.get("events", [])]
    assert {event["job_id"] for event in events} == {job.job_id}
    assert [event["event"]["payload"] for event in events] == [{"level": 1}]
    rows = [row for _, news in stream.seen for row in news.get("jobs", [])]
    assert {row["progress"]["progress"] for row in rows} >= {0.5}
    began, reported = job.handed_out_at, job.progress_at
    ends = [row["ends_at"] for row in rows if row["state"] == "running" and row["progress"]["progress"]]
    assert ends
    assert ends == [pytest.approx(began + 2 * (reported - began))] * len(ends)  # half of the work was done by then
    assert {row["ends_at"] for row in rows if row["state"] == "finished"} == {None}


async def test_many_changes_become_few_messages(start: Start, follow: Get) -> None:
    orchestrator, worker = await start(console=Console())
    stream = await follow(worker)
    await stream.until(lambda name, _: name == "all")
    jobs = [orchestrator.submit("echo", {}) for _ in range(500)]
    seen: set[str] = set()

    def all_there(_: str, news: dict[str, Any]) -> bool:
        seen.update(row["job_id"] for row in news.get("jobs", []))
        return len(seen) == len(jobs)

    await stream.until(all_there)
    assert len(stream.seen) < 20


async def test_the_stream_reports_heartbeats_calls_problems_and_faults(start: Start, follow: Get) -> None:
    _, worker = await start(console=Console())
    stream = await follow(worker)
    await stream.until(lambda name, _: name == "all")
    await worker.heartbeat(WorkerStatus.IDLE)
    await stream.until(lambda _, news: any(each["heartbeats"] == 1 for each in news.get("workers", [])))
    await send(worker, "POST", "/console/api/faults", {"call": "heartbeat", "kind": "status", "status": 429})
    await stream.until(lambda _, news: news.get("faults"))
    await worker.heartbeat(WorkerStatus.IDLE)
    await stream.until(lambda _, news: news.get("faults") == [])
    calls = [call for _, news in stream.seen for call in news.get("calls", [])]
    assert [(call["call"], call["status"], call["fault"]) for call in calls] == [
        ("register", 200, None),
        ("heartbeat", 200, None),
        ("heartbeat", 429, "status"),
    ]
    await worker.heartbeat(WorkerStatus.IDLE, current_tasks=("no such",), skills_hash="")
    await worker.result({"job_id": "j", "task_id": "t"}, "success", data={})
    answer = await worker.send(worker.beat(WorkerStatus.IDLE), {"X-Worker-Token": "wrong"})
    assert answer.status == 403
    await stream.until(lambda _, news: news.get("problems"))


@pytest.mark.parametrize("anything", [{"default": None}, {}], ids=["a default that is not sent", "no empty schema"])
async def test_a_skill_has_its_fields_in_their_authors_order(start: Start, follow: Get, anything: Any) -> None:
    written = {"type": "object", "properties": {"z": anything, "a": {"type": "string"}}, "required": ["z"]}
    sent = {} if anything else storable_schema({})
    announced = {"properties": {"a": {"type": "string"}, "z": sent}, "required": ["z"], "type": "object"}
    contracts = [SkillContract(name="echo", type="echo", input_schema=written)]
    echo = SkillInfo(name="echo", type="echo", input_schema=announced)
    _, worker = await start(console=Console(contracts=contracts), skills=(echo,))
    stream = await follow(worker)
    everything = await stream.until(lambda name, _: name == "all")
    assert list(everything["skills"][0]["input_schema"]["properties"]) == ["z", "a"]


# ---------------------------------------------------------------------------------------------------- one task


async def test_a_task_is_shown_with_events_results_and_logs(start: Start) -> None:
    logs = TaskLogs()
    orchestrator, worker = await start(console=Console(logs=logs), max_attempts=2)
    job = orchestrator.submit("echo", {"x": 1})
    await worker.failure(await worker.task(), "TRANSIENT_ERROR")
    task = await worker.task()
    await worker.event(task, "alert", {"level": 1})
    await worker.result(task, data={"y": 2})
    _, body = await fetch(worker, f"/console/api/jobs/{job.job_id}")
    shown = orjson.loads(body)
    assert (shown["params"], shown["result"], shown["attempts"]) == ({"x": 1}, {"y": 2}, 2)
    assert [event["event_type"] for event in shown["events"]] == ["alert"]
    assert [(each["status"], each["answer"]) for each in shown["results"]] == [
        ("failure", "accepted"),
        ("success", "accepted"),
    ]
    assert shown["results"][0]["error"]["code"] == "TRANSIENT_ERROR"
    assert shown["logs"] == []
    assert (await fetch(worker, "/console/api/jobs/none"))[0].status == 404


async def test_problems_of_params_are_reported_with_their_paths(start: Start) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x", "y"]}
    _, worker = await start(skills=(SkillInfo(name="strict", type="strict", input_schema=schema),))
    status, reply = await send(worker, "POST", "/api/jobs?validate=1", {"skill": "strict", "params": {"x": "1"}})
    assert status == 422
    assert sorted(reply["problems"], key=lambda each: each["path"]) == [
        {"path": "$.x", "problem": "expected integer, got string"},
        {"path": "$.y", "problem": "is required"},
    ]


# ---------------------------------------------------------------------------------------------------- faults


async def test_a_fault_happens_as_often_as_requested(start: Start) -> None:
    _, worker = await start(console=Console())
    fault = {"call": "heartbeat", "kind": "status", "status": 429, "retry_after": 7, "times": 2}
    status, answer = await send(worker, "POST", "/console/api/faults", fault)
    assert status == 201
    assert [each["left"] for each in answer["faults"]] == [2]
    replies = [await worker.heartbeat(WorkerStatus.IDLE) for _ in range(3)]
    assert [reply.status for reply in replies] == [429, 429, 200]
    assert replies[0].headers["Retry-After"] == "7"


async def test_faults_are_cleared(start: Start) -> None:
    _, worker = await start(console=Console())
    await send(worker, "POST", "/console/api/faults", {"call": "any", "kind": "reset", "times": 5})
    assert await send(worker, "DELETE", "/console/api/faults") == (200, {"faults": []})
    assert (await worker.heartbeat(WorkerStatus.IDLE)).status == 200


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        ([], "object"),
        ({"call": "nothing", "kind": "reset"}, "call should be one of any, event"),
        ({"call": ["any"], "kind": "reset"}, "call should be one of"),
        ({"call": "any", "kind": "explode"}, "kind should be one of answer_late"),
        ({"call": "any", "kind": "status", "status": 200}, "status should be a number from 400 to 599"),
        ({"call": "any", "kind": "delay", "delay": 1e9}, "delay should be a number from 0 to 600"),
        ({"call": "any", "kind": "reset", "times": "x"}, "times should be"),
        ({"call": "any", "kind": "status", "retry_after": -1}, "retry_after should be"),
    ],
)
async def test_wrong_faults_are_refused_with_the_reason(start: Start, body: Any, words: str) -> None:
    _, worker = await start(console=Console())
    status, answer = await send(worker, "POST", "/console/api/faults", body)
    assert status == 400
    assert words in answer["error"]


async def test_a_seeming_restart_forgets_the_worker_and_ends_its_websocket(start: Start) -> None:
    orchestrator, worker = await start(console=Console())
    await worker.websockets_on()
    async with worker.websocket() as websocket:
        assert (await send(worker, "POST", "/console/api/restart"))[0] == 202
        assert (await websocket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert not orchestrator.workers


# ---------------------------------------------------------------------------------------------------- files


@pytest.fixture
def room(tmp_path: Path) -> FileRoom:
    return FileRoom(tmp_path / "files", as_uris=True)


async def test_an_upload_is_stored_and_shown_again(start: Start, room: FileRoom) -> None:
    _, worker = await start(console=Console(file_room=room), skills=(ECHO,))
    content = bytes(range(256)) * 20_000  # more than requests may otherwise have at once
    status, answer = await send(worker, "POST", "/console/api/files?name=a%20b.png", content)
    assert (status, answer["name"], answer["size"]) == (201, "a b.png", len(content))
    assert answer["value"] == answer["uri"]
    assert content_of(answer["uri"]) == content
    response, body = await fetch(worker, f"/console/api/file?uri={answer['uri'].replace(' ', '%20')}")
    assert (response.content_type, body) == ("image/png", content)
    assert response.headers["Content-Security-Policy"].startswith("sandbox")


async def test_a_worker_that_cannot_fetch_uris_gets_paths(start: Start, tmp_path: Path) -> None:
    _, worker = await start(console=Console(file_room=FileRoom(tmp_path, as_uris=False)))
    _, answer = await send(worker, "POST", "/console/api/files?name=a.txt", b"text")
    assert content_of(answer["value"]) == b"text"


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("C%3A%5Cdocs%5Cx.txt", "x.txt"),
        ("..", "file"),
        ("", "file"),
        ("a%00b%0Ac.txt", "abc.txt"),
        ("x" * 300 + ".png", "x" * 96 + ".png"),
    ],
)
async def test_names_of_uploads_cannot_lead_out(
    start: Start, room: FileRoom, tmp_path: Path, given: str, stored: str
) -> None:
    _, worker = await start(console=Console(file_room=room))
    status, answer = await send(worker, "POST", f"/console/api/files?name={given}", b"x")
    assert (status, answer["name"]) == (201, stored)
    (path,) = files_below(tmp_path / "files")
    assert path.name == stored
    assert files_below(tmp_path) == [path]


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "file:///etc/passwd", "ROOT/../secret.txt", "ROOT", "ROOT/link", "", "\0"]
)
async def test_only_files_below_the_root_are_shown(start: Start, room: FileRoom, tmp_path: Path, uri: str) -> None:
    _, worker = await start(console=Console(file_room=room))
    (tmp_path / "files").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret.txt")
    asked = uri.replace("ROOT", f"file://{tmp_path}/files").replace("\0", "%00")
    response, body = await fetch(worker, f"/console/api/file?uri={asked}")
    assert response.status == 404
    assert b"secret" not in body


async def test_a_page_of_a_task_is_offered_for_download_only(start: Start, room: FileRoom) -> None:
    _, worker = await start(console=Console(file_room=room))
    for name in ("evil.html", "evil.js", "evil.xml"):
        _, answer = await send(worker, "POST", f"/console/api/files?name={name}", b"<script>alert(1)</script>")
        response, _ = await fetch(worker, f"/console/api/file?uri={answer['uri']}")
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"].startswith("attachment")


async def test_a_missing_place_for_files_is_reported(start: Start) -> None:
    _, worker = await start(console=Console())
    status, answer = await send(worker, "POST", "/console/api/files?name=a", b"x")
    assert (status, "without a directory for files" in answer["error"]) == (404, True)
