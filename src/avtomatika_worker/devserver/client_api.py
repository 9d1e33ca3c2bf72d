"""The client side of the orchestrator: a small JSON API for curl, scripts and the live display.

| call | answer |
|---|---|
| `GET /` | what this is, and the calls |
| `GET /openapi.json` | the same for machines |
| `POST /api/jobs` `{"skill", "params"?, "priority"?, "deadline"?, "metadata"?}` | 202 `{"job_id"}`; 400 says what is wrong and lists the known skills; with `?validate=1` params that violate the skill's input schema give 422 (listed in `problems`; by default they go to the worker, as with any orchestrator); with `?wait=SECONDS` (at most 600) the job as `GET` gives it: 200 once it has ended, however it ended, or 202 if the time is up first |
| `GET /api/jobs` | the latest jobs, newest first; `?state=`, `?skill=`, `?limit=` (100) |
| `GET /api/jobs/{id}` | the job with its events; `?wait=SECONDS` first waits for its end (at most 600) |
| `POST /api/jobs/{id}/cancel` | 202 `{"job_id", "state"}`; 409 if it has ended |
| `GET /api/jobs/{id}/events` | the job's changes until its end, as server-sent events; it starts with the job as it is |
| `GET /api/events` | every change, as server-sent events |
| `GET /api/workers`, `GET /api/skills` | the registered workers, and their skills |

Errors are `{"error": text}`. There is no authentication, and no CORS.
"""  # noqa: E501 - a table

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from avtomatika_worker.devserver.changes import Change, Hub, Subscription
from avtomatika_worker.devserver.jobs import NewJob
from avtomatika_worker.devserver.openapi import description
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.snapshots import JobRecord
from avtomatika_worker.devserver.sse import EventStream
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text
from avtomatika_worker.skills.validation import describe

_LONGEST_WAIT: Final = 600.0
_JOBS_SHOWN: Final = 100
_FIELDS: Final = frozenset({"skill", "params", "priority", "deadline", "metadata"})
_CALLS: Final = (
    "POST /api/jobs",
    "GET /api/jobs",
    "GET /api/jobs/{id}",
    "POST /api/jobs/{id}/cancel",
    "GET /api/jobs/{id}/events",
    "GET /api/events",
    "GET /api/workers",
    "GET /api/skills",
    "GET /openapi.json",
)


class ClientError(Exception):
    """A request answered with an error."""

    def __init__(self, status: int, text: str, **more: Any) -> None:
        self.status = status
        self.more: dict[str, Any] = more
        super().__init__(text)


def json_answer(value: object, status: int = 200) -> web.Response:
    """Answer with JSON that people can read too."""
    body = orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE, default=str)
    return web.Response(status=status, body=body, content_type="application/json")


class ClientApi:
    """Serves the clients' calls through `routes`. ``cancel`` cancels a job by its id; ``page`` is for browsers."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        hub: Hub,
        cancel: Callable[[str], bool],
        version: str,
        page: str | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._hub = hub
        self._cancel_job = cancel
        self._version = version
        self._page = page

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the client API."""
        return [
            web.get("/", self._index),
            web.get("/openapi.json", self._openapi),
            web.post("/api/jobs", self._submit),
            web.get("/api/jobs", self._jobs),
            web.get("/api/jobs/{job_id}", self._job),
            web.post("/api/jobs/{job_id}/cancel", self._cancel),
            web.get("/api/jobs/{job_id}/events", self._job_events, allow_head=False),
            web.get("/api/events", self._events, allow_head=False),
            web.get("/api/workers", self._workers),
            web.get("/api/skills", self._skills),
        ]

    async def _index(self, request: web.Request) -> web.Response:
        if self._page is not None and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
            return web.Response(status=302, headers={hdrs.LOCATION: self._page, hdrs.VARY: hdrs.ACCEPT})
        about = {
            "name": "embedded orchestrator of avtomatika-worker",
            "purpose": "development and tests: in memory, without authentication of clients",
            "protocol": self._version,
            "calls": _CALLS,
        }
        return json_answer(about)

    async def _openapi(self, _request: web.Request) -> web.Response:
        return json_answer(description(self._version))

    async def _submit(self, request: web.Request) -> web.Response:
        wait = _seconds(request.query.get("wait"), "wait")
        new = self._new_job(await request.read())
        skill = self._orchestrator.skill(new.skill)
        if skill is None:
            known = ", ".join(sorted(self._known_skills())) or "none, because no worker is registered"
            raise ClientError(400, f"unknown skill {new.skill!r}; known skills: {known}")
        if _flag(request.query.get("validate")):
            problems = self._orchestrator.contracts.input_complaints(skill, dict(new.params))
            if problems:
                listed = [{"path": each.path, "problem": each.problem} for each in problems]
                raise ClientError(422, describe(problems, "params"), problems=listed)
        try:
            job = self._orchestrator.submit(new)
        except ValueError as error:
            raise ClientError(400, str(error)) from None
        if wait is None:
            answer = json_answer({"job_id": job.job_id}, 202)
        else:
            await self._wait_for_end(job, wait)
            answer = _whole(job, 200 if job.state.final else 202)
        answer.headers["Location"] = f"/api/jobs/{job.job_id}"
        return answer

    def _new_job(self, body: bytes) -> NewJob:
        """Read a submission. Raises `ClientError`."""
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ClientError(400, f"the body is not JSON: {error}") from None
        if not is_dict(fields):
            raise ClientError(400, 'the body should be an object such as {"skill": "echo", "params": {}}')
        given = {name: value for name, value in fields.items() if value is not None}
        if unknown := sorted(given.keys() - _FIELDS):
            raise ClientError(400, f"unknown field {unknown[0]!r}; known fields: {', '.join(sorted(_FIELDS))}")
        skill = as_text(given.get("skill"))
        if not skill:
            raise ClientError(400, "skill is required: the name of a skill")
        for name in ("params", "metadata"):
            if not isinstance(given.get(name, {}), dict):
                raise ClientError(400, f"{name} should be an object")
        for name in ("priority", "deadline"):
            if name in given and as_number(given[name]) is None:
                raise ClientError(400, f"{name} should be a number")
        return NewJob(
            skill=skill,
            params=as_object(given.get("params")),
            priority=given.get("priority", 0.0),
            deadline=given.get("deadline"),
            metadata=given.get("metadata"),
        )

    def _known_skills(self) -> dict[str, dict[str, Any]]:
        workers = self._orchestrator.workers.values()
        return {name: skill for worker in workers for name, skill in worker.skills.items()}

    async def _jobs(self, request: web.Request) -> web.Response:
        state, skill = request.query.get("state"), request.query.get("skill")
        limit = int(_seconds(request.query.get("limit"), "limit") or _JOBS_SHOWN)
        newest_first = reversed(self._orchestrator.book.jobs.values())
        wanted = (job for job in newest_first if state in {None, job.state} and skill in {None, job.skill})
        return json_answer({"jobs": [job.to_json() for job in itertools.islice(wanted, limit)]})

    def _find(self, request: web.Request) -> JobRecord:
        job = self._orchestrator.book.jobs.get(request.match_info["job_id"])
        if job is None:
            raise ClientError(404, "no such job (only the latest ended jobs are kept)")
        return job

    async def _job(self, request: web.Request) -> web.Response:
        job = self._find(request)
        wait = _seconds(request.query.get("wait"), "wait")
        if wait is not None:
            await self._wait_for_end(job, wait)
        return _whole(job)

    async def _wait_for_end(self, job: JobRecord, seconds: float) -> None:
        """Return when the job has ended, the time is up or the orchestrator stops."""
        if not job.state.final:
            async with self._hub.subscribe(lambda change: change.job is job and job.state.final) as changes:
                await changes.next_within(min(seconds, _LONGEST_WAIT))

    async def _cancel(self, request: web.Request) -> web.Response:
        job = self._find(request)
        if not self._cancel_job(job.job_id):
            raise ClientError(409, f"the job has already ended: {job.state.value}")
        return json_answer({"job_id": job.job_id, "state": job.state.value}, 202)

    async def _job_events(self, request: web.Request) -> web.StreamResponse:
        job = self._find(request)

        async def write(stream: EventStream) -> None:
            await stream.send("job", job.to_json())
            if not job.state.final or changes.pending:
                await _forward(changes, stream, until_end_of=job)

        async with self._hub.subscribe(lambda change: change.job is job) as changes:
            return await EventStream.serve(request, write)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        async with self._hub.subscribe() as changes:
            return await EventStream.serve(request, partial(_forward, changes))

    async def _workers(self, _request: web.Request) -> web.Response:
        return json_answer({"workers": [worker.to_json() for worker in self._orchestrator.workers.values()]})

    async def _skills(self, _request: web.Request) -> web.Response:
        return json_answer({"skills": [skill for _, skill in sorted(self._known_skills().items())]})


async def _forward(changes: Subscription, stream: EventStream, until_end_of: JobRecord | None = None) -> None:
    """Send changes until there are no more, keeping the connection alive in between."""
    while True:
        change = await changes.next_within(stream.keep_alive_after)
        if change is None:
            if changes.ended:
                return
            await stream.keep_alive()
            continue
        await stream.send(change.kind, _shown(change), change.number)
        if until_end_of is not None and until_end_of.state.final and not changes.pending:
            return


def _whole(job: JobRecord, status: int = 200) -> web.Response:
    return json_answer({**job.to_json(), "events": job.events}, status)


def _shown(change: Change) -> dict[str, Any]:
    """Return a change's data with the job it belongs to."""
    return {"job_id": change.job.job_id, **change.data} if change.job is not None else change.data


def _flag(text: str | None) -> bool:
    return text is not None and text.lower() not in {"", "0", "false", "no"}


def _seconds(text: str | None, name: str) -> float | None:
    """Read a number from the query. Raises `ClientError`."""
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise ClientError(400, f"{name} should be a non-negative number")
    return number
