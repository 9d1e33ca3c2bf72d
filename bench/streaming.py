"""Token streams: at released orchestrators with their default limits, as a client sees them, and at full speed.

    .venv/bin/python -m bench.streaming            # about five minutes; writes results/streaming.json
    .venv/bin/python -m bench.streaming 1.0b30     # some releases only; writes nothing

The client hears of chunks by the orchestrator's webhooks, and of the end of a job by them, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from avtomatika_worker.testing import WorkerHarness
from bench.apps.streaming_app import worker as app
from bench.machine import local_facts
from cluster.environments import python_of
from cluster.processes import ManagedProcess, free_port

ROOT: Final = Path(__file__).resolve().parents[1]
RELEASES: Final = ("1.0b21", "1.0b30")
COUNT, RATE = 300, 30.0
ENDS: Final = frozenset({"job_finished", "job_failed", "job_quarantined"})


@dataclass
class Stream:
    """What a client has received of one job: its chunks with their times, and its end."""

    submitted: float
    chunks: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    ended: float | None = None
    end: str = ""

    def figures(self, result: str | None) -> dict[str, Any]:
        """Return the figures; ``result`` is the job's, to compare the chunks with."""
        times = [at for at, _ in self.chunks]
        last = [payload for _, payload in self.chunks if payload["attempt"] == self.chunks[-1][1]["attempt"]]
        return {
            "end": self.end,
            "attempts": len({payload["attempt"] for _, payload in self.chunks}),
            "chunks": len(times),
            "first_chunk_s": round(times[0] - self.submitted, 3),
            "longest_gap_s": round(max(b - a for a, b in itertools.pairwise(times)), 3),
            "ended_s": round((self.ended or 0) - self.submitted, 3),
            "chunks_after_end": sum(at > (self.ended or 0) for at in times),
            "in_order": [payload["index"] for payload in last] == list(range(len(last))),
            "same_as_result": result is None or "".join(payload["data"] for payload in last) == result,
        }


class Client:
    """Submits jobs to an orchestrator and listens to its webhooks."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.webhook = ""
        self._url = url
        self._session = session
        self._streams: dict[str, Stream] = {}
        self._early: list[tuple[float, dict[str, Any]]] = []
        self._news = asyncio.Event()

    async def submit(self, count: int = COUNT, rate: float = RATE) -> str:
        """Begin a job of so many tokens."""
        data = {"skill": "tokens", "params": {"count": count, "rate": rate}}
        began = time.monotonic()
        body = {**data, "initial_data": data, "webhook_url": self.webhook}
        async with self._session.post(f"{self._url}/api/v1/jobs/task", json=body) as answer:
            job_id: str = (await answer.json(content_type=None))["job_id"]
        self._streams[job_id] = Stream(began)
        for at, call in self._early:
            self._take(at, call)
        return job_id

    async def ended(self, job_id: str, timeout: float = 200.0) -> Stream:
        """Wait for a job's end, and a moment longer."""
        stream = self._streams[job_id]
        async with asyncio.timeout(timeout):
            while stream.ended is None:
                self._news.clear()
                await self._news.wait()
        await asyncio.sleep(1.0)
        return stream

    async def result(self, job_id: str) -> str | None:
        """Return the text of a job's result; None where the release does not show it."""
        async with self._session.get(f"{self._url}/api/v1/jobs/{job_id}") as answer:
            job: dict[str, Any] = await answer.json(content_type=None)
        return (job.get("state_history") or {}).get("result")

    async def receive(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        at, call = time.monotonic(), await request.json()
        if call["job_id"] in self._streams:
            self._take(at, call)
        else:
            self._early.append((at, call))
        return web.Response()

    def _take(self, at: float, call: dict[str, Any]) -> None:
        stream = self._streams.get(call["job_id"])
        if stream is None:
            return
        if call["event"] == "worker_event:chunk":
            stream.chunks.append((at, call["result"]))
        elif call["event"] in ENDS:
            stream.ended, stream.end = at, call["event"]
        self._news.set()


class System:
    """One orchestrator and one worker, as processes."""

    def __init__(self, release: str, directory: Path, **overrides: Any) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._directory = directory
        settings = {"RATE_LIMITING_ENABLED": True, **overrides}
        env = {"PORT": str(port), "OVERRIDES": json.dumps(settings), "OTEL_SDK_DISABLED": "true"}
        program = ROOT / "tests" / "e2e" / "orchestrator_app.py"
        self._orchestrator = ManagedProcess(
            "orchestrator", [str(python_of(release)), str(program)], env=env, cwd=directory
        )
        self._orchestrator.wait_for_line(lambda line: line.startswith("READY"), timeout=30.0)
        self._workers: list[ManagedProcess] = []
        self.start_worker()

    def start_worker(self) -> None:
        """Start the worker, or another in its place."""
        env = {
            "PYTHONPATH": str(ROOT),
            "WORKER_ID": "bench-streaming",
            "WORKER_TOKEN": "worker-token",
            "ORCHESTRATOR_URL": self.url,
            "LOG_LEVEL": "DEBUG",
            "WORKER_STATE_DIR": str(self._directory / "state"),
            "TASK_FILES_DIR": str(self._directory / "files"),
        }
        command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "bench.apps.streaming_app:worker"]
        worker = ManagedProcess("worker", [*command, "--no-health-check"], env=env, cwd=self._directory)
        worker.wait_for_line(lambda line: "registered with" in line, timeout=30.0)
        self._workers.append(worker)

    def kill_worker(self) -> None:
        """Kill the worker as a crash would."""
        self._workers[-1].kill()

    @property
    def refusals(self) -> int:
        """How many calls of the workers were refused with 429."""
        return sum(worker.output().count("HTTP 429") for worker in self._workers)

    def stop(self) -> None:
        """End both."""
        for worker in self._workers:
            worker.kill()
        self._orchestrator.kill()


@asynccontextmanager
async def running(release: str, **overrides: Any) -> AsyncIterator[tuple[System, Client]]:
    """Provide a system and a client of it."""
    with tempfile.TemporaryDirectory() as directory:
        system = await asyncio.to_thread(System, release, Path(directory), **overrides)
        async with aiohttp.ClientSession(headers={"X-Client-Token": "client-token"}) as session:
            client = Client(system.url, session)
            server = web.Application()
            server.router.add_post("/", client.receive)
            runner = web.AppRunner(server)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                client.webhook = f"http://127.0.0.1:{runner.addresses[0][1]}/"
                yield system, client
            finally:
                await runner.cleanup()
                await asyncio.to_thread(system.stop)


async def one(release: str) -> dict[str, Any]:
    """One stream of 300 tokens at 30/s."""
    async with running(release) as (system, client):
        job = await client.submit()
        stream = await client.ended(job)
        return {**stream.figures(await client.result(job)), "refusals": system.refusals}


async def four(release: str) -> dict[str, Any]:
    """Four of them at once."""
    async with running(release) as (system, client):
        jobs = [await client.submit() for _ in range(4)]
        streams = [await client.ended(job) for job in jobs]
        figures = [stream.figures(await client.result(job)) for job, stream in zip(jobs, streams, strict=True)]
        return {"streams": figures, "refusals": system.refusals}


async def killed(release: str) -> dict[str, Any]:
    """One whose worker is killed after four seconds; the orchestrator gives tasks up after eight instead of 300."""
    async with running(release, WORKER_TIMEOUT_SECONDS=8, WATCHER_INTERVAL_SECONDS=2) as (system, client):
        job = await client.submit(150)
        await asyncio.sleep(4.0)
        await asyncio.to_thread(system.kill_worker)
        await asyncio.to_thread(system.start_worker)
        stream = await client.ended(job)
        return {**stream.figures(await client.result(job)), "refusals": system.refusals}


async def full_speed(skill: str) -> float:
    """Return the seconds that 10,000 tokens at 1,000/s take at the embedded orchestrator, which has no limits."""
    async with WorkerHarness(app, own_thread=True) as harness:
        result = await harness.run(skill, {"count": 10_000, "rate": 1_000.0}, timeout=60)
        assert result.ok, result.error
        return float(result.costs["execution_time_seconds"])


async def main(releases: list[str]) -> None:
    """Measure, print, and write the results where all was measured."""
    results: dict[str, Any] = {"machine": local_facts(), "tokens": COUNT, "rate": RATE}
    for release in releases or RELEASES:
        for scenario in (one, four, killed):
            figures = results.setdefault(release, {})[scenario.__name__] = await scenario(release)
            print(release, scenario.__name__, json.dumps(figures), flush=True)
    speeds = {skill: round(await full_speed(skill), 3) for skill in ("tokens_at_once", "tokens")}
    results["ten_thousand_tokens_s"] = speeds
    print(json.dumps(speeds))
    if not releases:
        target = Path(__file__).parent / "results" / "streaming.json"
        target.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
