"""A client of an orchestrator: its HTTP interface for jobs, and the webhooks that it calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

CLIENT_TOKEN = "client-token"
ENDED = frozenset({"finished", "failed", "quarantined"})
ENDS = frozenset({"job_finished", "job_failed", "job_quarantined"})
PAUSE = 0.03


@dataclass(frozen=True)
class Job:
    """What the orchestrator says of a job. Its status is "finished" only in the state of that name."""

    id: str
    status: str
    state: str | None
    data: dict[str, Any]
    error: str
    progress: float | None
    message: str | None
    retries: int

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Job:
        """Read the reply of either release."""
        return cls(
            id=raw["id"],
            status=raw["status"],
            state=raw.get("current_state"),
            data=raw.get("state_history") or {},
            error=raw.get("error_message") or "",
            progress=raw.get("progress"),
            message=raw.get("progress_message"),
            retries=raw.get("retry_count") or 0,
        )


class Client:
    """Submits jobs and looks at them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def submit(
        self,
        skill: str,
        params: Any = None,
        *,
        blueprint: str = "task",
        webhook_url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Submit a job and return its id. Older releases take the data at the top, later ones under initial_data."""
        data = {"skill": skill, "params": params or {}}
        body = {**data, "initial_data": data, **({"webhook_url": webhook_url} if webhook_url else {})}
        reply = await self._call("POST", f"/api/v1/jobs/{blueprint}", body, headers)
        job_id: str = reply["job_id"]
        return job_id

    async def job(self, job_id: str) -> Job:
        """Return the job as it is now."""
        return Job.read(await self._call("GET", f"/api/v1/jobs/{job_id}"))

    async def wait_until(self, job_id: str, holds: Callable[[Job], bool], *, timeout: float = 10.0) -> Job:
        """Return the job once ``holds`` is true of it. Raises AssertionError with its last state when it never is."""
        job = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    job = await self.job(job_id)
                    if holds(job):
                        return job
                    await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise AssertionError(f"not what is waited for in {timeout} s: {job}") from None

    async def wait(self, job_id: str, *, timeout: float = 10.0) -> Job:
        """Return the job once it has ended."""
        return await self.wait_until(job_id, lambda job: job.status in ENDED, timeout=timeout)

    async def wait_all(self, job_ids: Iterable[str], *, timeout: float) -> list[Job]:
        """Return the jobs once all have ended."""
        async with asyncio.timeout(timeout):
            return [await self.wait(job_id, timeout=timeout) for job_id in job_ids]

    async def run(self, skill: str, params: Any = None, *, timeout: float = 10.0) -> Job:
        """Submit a job and return it once it has ended."""
        return await self.wait(await self.submit(skill, params), timeout=timeout)

    async def cancel(self, job_id: str) -> None:
        """Cancel a job."""
        await self._call("POST", f"/api/v1/jobs/{job_id}/cancel")

    async def worker(self, worker_id: str) -> dict[str, Any] | None:
        """Return the orchestrator's record of a worker."""
        records: list[dict[str, Any]] = await self._call("GET", "/api/v1/workers")
        return next((record for record in records if record["worker_id"] == worker_id), None)

    async def _call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        async with self._session.request(method, self._url + path, json=body, headers=headers) as response:
            assert response.status < 300, f"{method} {path}: HTTP {response.status}: {await response.text()}"
            return await response.json(content_type=None)


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[Client]:
    """Provide a client of the orchestrator at ``url``."""
    headers = {"X-Client-Token": CLIENT_TOKEN}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=15)) as session:
        yield Client(session, url)


class Webhooks:
    """What an orchestrator has reported about jobs: their events, and their end."""

    def __init__(self) -> None:
        self.url = ""
        self._calls: list[dict[str, Any]] = []
        self._came = asyncio.Condition()

    async def until_ended(self, job_id: str, *, timeout: float = 10.0) -> str:
        """Wait for the call that reports the job's end, and return how it has ended: "job_finished", for example."""
        async with asyncio.timeout(timeout), self._came:
            await self._came.wait_for(lambda: self._end(job_id) is not None)
        end = self._end(job_id)
        assert end is not None
        return end

    def events(self, job_id: str, event_type: str) -> list[dict[str, Any]]:
        """Return the payloads of the job's events of this type."""
        wanted = (job_id, f"worker_event:{event_type}")
        return [call["result"] for call in self._calls if (call["job_id"], call["event"]) == wanted]

    async def until_events(self, job_id: str, event_type: str, count: int, *, timeout: float = 10.0) -> None:
        """Wait for so many events of a type."""
        async with asyncio.timeout(timeout), self._came:
            await self._came.wait_for(lambda: len(self.events(job_id, event_type)) >= count)

    def ended_last(self, job_id: str) -> bool:
        """Return whether the end of a job is the last thing that was reported of it."""
        return [call["event"] for call in self._calls if call["job_id"] == job_id][-1] in ENDS

    def _end(self, job_id: str) -> str | None:
        return next((call["event"] for call in self._calls if call["job_id"] == job_id and call["event"] in ENDS), None)

    async def receive(self, request: web.Request) -> web.Response:
        """Take a call."""
        call = await request.json()
        async with self._came:
            self._calls.append(call)
            self._came.notify_all()
        return web.Response()


@asynccontextmanager
async def listening_webhooks() -> AsyncIterator[Webhooks]:
    """Provide a server that takes webhooks."""
    webhooks = Webhooks()
    app = web.Application()
    app.router.add_post("/", webhooks.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        webhooks.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        yield webhooks
    finally:
        await runner.cleanup()
