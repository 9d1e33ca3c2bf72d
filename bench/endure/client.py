"""A client of an orchestrator whose limits are on: jobs go in, webhooks say how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

from bench.endure.workload import Task

CLIENT_TOKEN: Final = "client-token"
_ENDS: Final = {"job_finished": "finished", "job_failed": "failed", "job_quarantined": "quarantined"}
_UNREACHABLE: Final = (aiohttp.ClientError, OSError, TimeoutError)
_PAUSE: Final = 0.5
_LIMITED: Final = 61.0


@dataclass
class Job:
    """A job as its client knows it. Times are Unix seconds; ``state`` is empty while it has not ended."""

    task: Task
    id: str
    submitted: float
    orchestrator: int
    """Which life of the orchestrator took it: with its memory it forgets its jobs."""
    state: str = ""
    ended: float = 0.0
    error: str = ""
    cancelled: float = 0.0


@dataclass
class Client:
    """Submits, cancels and follows jobs. ``life`` is the number of the orchestrator's present life."""

    url: str
    session: aiohttp.ClientSession
    jobs: dict[str, Job] = field(default_factory=dict[str, Job])
    life: int = 1
    _hook: str = ""

    async def submit(self, task: Task) -> Job | None:
        """Submit a job; None when the orchestrator did not take it."""
        data = {"skill": task.skill, "params": task.params}
        body = {**data, "initial_data": data, "webhook_url": self._hook}
        life, answer = self.life, await self._call("POST", f"/api/v1/jobs/{task.blueprint}", body)
        if "job_id" not in answer:
            return None
        job = Job(task, answer["job_id"], time.time(), life)
        return self.jobs.setdefault(job.id, job)

    async def cancel(self, job: Job) -> None:
        """Cancel a job."""
        answer = await self._call("POST", f"/api/v1/jobs/{job.id}/cancel", None)
        if answer:
            job.cancelled = time.time()

    async def look(self, job: Job) -> None:
        """Ask how a job is: its webhook may have been lost."""
        answer = await self._call("GET", f"/api/v1/jobs/{job.id}", None)
        if (status := answer.get("status")) in {*_ENDS.values(), "cancelled"}:
            job.state, job.ended = status, job.ended or time.time()
        job.error = str(answer.get("error_message") or job.error)

    async def _call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """Return the answer; nothing when there is none, or the orchestrator does not know the job."""
        try:
            async with self.session.request(method, self.url + path, json=body) as answer:
                if answer.status == 429:
                    await asyncio.sleep(float(answer.headers.get("Retry-After", _LIMITED)))
                if answer.status >= 300:
                    return {}
                found: dict[str, Any] = await answer.json(content_type=None)
                return found
        except _UNREACHABLE:
            await asyncio.sleep(_PAUSE)
            return {}

    async def _receive(self, request: web.Request) -> web.Response:
        call = await request.json()
        job = self.jobs.get(call.get("job_id", ""))
        if call.get("event") in _ENDS and job is not None and not job.state:
            job.state, job.ended, job.error = _ENDS[call["event"]], time.time(), str(call.get("error") or "")
        return web.Response()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take webhooks inside the block."""
        app = web.Application()
        app.router.add_post("/", self._receive)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._hook = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            yield
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    """Provide a client of the orchestrator at ``url``."""
    headers = {"X-Client-Token": CLIENT_TOKEN}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=15)) as session:
        client = Client(url, session)
        async with client.listening():
            yield client
