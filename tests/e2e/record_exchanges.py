"""Records how a published orchestrator answers a worker's calls: ``python -m e2e.record_exchanges 1.0b21 …`` in tests/.

What it writes to data/exchanges/ is replayed against the embedded orchestrator by devserver/test_recorded_exchanges.py.
One JSON object a line: first what the orchestrator was started with, then calls with their answers, jobs that were
submitted, cancelled, and how they ended.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson

from avtomatika_worker.protocol.codec import REFRESH_PATH, TOKEN_PATH, VERSION_HEADER, Request
from avtomatika_worker.protocol.messages import SkillInfo
from devserver.support import Reply, WorkerClient, resigned, tampered
from e2e.client import Client
from e2e.fleet import WORKER_TOKEN, Fleet
from e2e.releases import PROTOCOLS

EXCHANGES: Final = Path(__file__).parents[1] / "data" / "exchanges"
TIMEOUT: Final = 2
LIMITS: Final = {"poll": 2, "heartbeat": 3, "result": 4, "event": 4, "register": 4, "token": 4, "ws": 4}
PERIOD: Final = 2
_TOKENS: Final = re.compile(r'("(?:access_token|refresh_token)": ?)"[^"]+"')
_HEADERS: Final = ("Retry-After", VERSION_HEADER)
_SKILL: Final = SkillInfo(
    name="echo",
    type="echo",
    events_schema={"note": {"type": "object", "required": ["text"]}},
    output_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
)


class _Server:
    """What `WorkerClient` needs of an orchestrator."""

    def __init__(self, version: str, url: str) -> None:
        self.version = PROTOCOLS[version]
        self.url = url

    def now(self) -> float:
        return time.time()


class Recorder(WorkerClient):
    """A worker whose calls are written down."""

    def __init__(self, server: Any, session: aiohttp.ClientSession, client: Client) -> None:
        super().__init__(server, session, token=WORKER_TOKEN, skills=(_SKILL,))
        self.lines: list[dict[str, Any]] = []
        self._client = client

    async def send(self, request: Request, headers: Mapping[str, str] | None = None) -> Reply:
        at = time.time()
        reply = await super().send(request, headers)
        sent = {**self.codec.headers(self.token, self.dialect), **(headers or {})}
        self.lines.append(
            {
                "what": "call",
                "at": round(at, 3),
                "method": request.method,
                "path": request.path,
                "headers": sent,
                "body": _shortened(request.body),
                "status": reply.status,
                "reply_headers": {name: reply.headers[name] for name in _HEADERS if name in reply.headers},
                "reply": _TOKENS.sub(r'\1"…"', reply.body.decode()),
            }
        )
        return reply

    async def submit(self, **params: Any) -> str:
        job_id = await self._client.submit("echo", params)
        self.lines.append({"what": "job", "at": round(time.time(), 3), "job_id": job_id, "params": params})
        return job_id

    async def cancel(self, job_id: str) -> None:
        await self._client.cancel(job_id)
        self.lines.append({"what": "cancel", "at": round(time.time(), 3), "job_id": job_id})

    async def ended(self, job_id: str, status: str) -> None:
        """Wait for a job's end: what depends on it follows."""
        await self._client.wait_until(job_id, lambda job: job.status == status)
        self.lines.append({"what": "end", "at": round(time.time(), 3), "job_id": job_id, "status": status})

    async def next_task(self) -> dict[str, Any]:
        """Poll until there is a task."""
        async with asyncio.timeout(10):
            while (reply := await self.poll()).status == 204:
                self.lines.pop()  # when it is there depends on the orchestrator's own clock
                await asyncio.sleep(0.05)
        task: dict[str, Any] = reply.json
        return task


def _shortened(body: bytes | None) -> str | None:
    """Return a body as text; one that is too large by design as its length."""
    if body is None or len(body) <= 2**20:
        return None if body is None else body.decode()
    return f"length:{len(body)}"


async def converse(worker: Recorder) -> None:
    """Everything but the rate limits."""
    await worker.register()
    beat = worker.beat()
    await worker.send(beat)
    await worker.send(beat)
    await worker.poll()
    await _a_task_with_events(worker)
    await _failures(worker)
    await _a_task_that_takes_too_long(worker)
    await _a_cancelled_task(worker)
    await _what_is_refused(worker)


async def _a_task_with_events(worker: Recorder) -> None:
    job_id = await worker.submit(text="hello", list=[1, 2.5, None])
    task = await worker.next_task()
    event = worker.happening(task, "progress", {"progress": 0.5, "message": "half"})
    await worker.send(event)
    await worker.send(event)
    await worker.event(task, "note", {"text": "for the client"})
    await worker.event(task, "note", {"number": 1})
    await worker.event({**task, "job_id": "no-such-job", "task_id": "no-such-task"}, "note", {"text": "?"})
    await worker.result({**task, "job_id": "no-such-job"})
    result = worker.outcome(task, data={"n": 1})
    await worker.send(result)
    await worker.ended(job_id, "finished")
    await worker.send(result)
    await worker.result(task, data={"n": 1})
    await worker.submit()
    await worker.result(await worker.next_task(), data={"n": "not an integer"})


async def _failures(worker: Recorder) -> None:
    for code, status in (
        ("TRANSIENT_ERROR", "quarantined"),
        ("PERMANENT_ERROR", "quarantined"),
        ("INVALID_INPUT_ERROR", "failed"),
    ):
        job_id = await worker.submit()
        for _ in range(4 if code == "TRANSIENT_ERROR" else 1):
            await worker.failure(await worker.next_task(), code)
        await worker.ended(job_id, status)


async def _a_task_that_takes_too_long(worker: Recorder) -> None:
    """The first attempt's result arrives after the second attempt has begun, and before that."""
    keeps_id = worker.dialect.version in {"1.0b7", "1.0b10"}
    for second_begins in (True, False):
        job_id = await worker.submit()
        first = await worker.next_task()
        await asyncio.sleep(TIMEOUT + 1.5)
        second = await worker.next_task() if second_begins else first
        await worker.result(first)
        if not second_begins and not keeps_id:
            second = await worker.next_task()
        if second is not first:
            await worker.result(second)
        await worker.ended(job_id, "finished")
        if not second_begins and keeps_id:
            await worker.next_task()  # that of the ended job, which they hand out all the same
            worker.lines.pop()


async def _a_cancelled_task(worker: Recorder) -> None:
    job_id = await worker.submit()
    task = await worker.next_task()
    await worker.cancel(job_id)
    await worker.heartbeat(current_tasks=(job_id,))
    await worker.result(task, "cancelled")
    await worker.result(task)


async def _what_is_refused(worker: Recorder) -> None:
    path = worker.beat().path
    await worker.send(worker.beat(), {"X-Worker-Token": "wrong"})
    await worker.send(Request("PATCH", path, b"{"))
    await worker.send(Request("PATCH", path, b"[]"))
    await worker.send(tampered(worker.beat(), status="busy"))
    await worker.send(tampered(worker.beat(), security=None))
    await worker.send(resigned(worker, worker.beat(), timestamp=int(time.time()) - 100))
    await worker.send(worker.outcome({"job_id": "j", "task_id": "t"}, data={"text": "x" * 2**20}))
    await worker.send(Request("POST", TOKEN_PATH))
    await worker.send(Request("POST", REFRESH_PATH, b'{"refresh_token":"none"}'))


async def hurry(worker: Recorder) -> None:
    """Exceed the rate limits."""
    task = {"job_id": "j", "task_id": "t"}
    await worker.register()
    for number in range(6):
        await worker.poll()
        await worker.heartbeat()
        await worker.result(task)
        await worker.event(None, "note", {"text": str(number)})
        await worker.send(Request("POST", TOKEN_PATH))
    await asyncio.sleep(PERIOD + 0.3)
    for _ in range(6):
        await worker.heartbeat()
        await asyncio.sleep(PERIOD * 0.6)
    await asyncio.sleep(PERIOD + 0.3)
    await worker.send(worker.beat(), {"X-Worker-Token": "wrong"})
    await worker.send(Request("PATCH", worker.beat().path, b"{"))
    await worker.send(tampered(worker.beat(), status="busy"))
    for _ in range(4):
        await worker.heartbeat()


async def record(version: str, fleet: Fleet) -> None:
    """Write the file of one release."""
    quiet = {"WORKER_POLL_TIMEOUT_SECONDS": 1, "WORKER_TIMEOUT_SECONDS": TIMEOUT, "WATCHER_INTERVAL_SECONDS": 1}
    limited = {
        "WORKER_POLL_TIMEOUT_SECONDS": 0,
        "RATE_LIMITING_ENABLED": True,
        "RATE_LIMIT_PERIOD": PERIOD,
        "RATE_LIMIT_LIMIT": LIMITS["result"],
        "RATE_LIMIT_POLL_LIMIT": LIMITS["poll"],
        # Up to 1.0b23 heartbeats are counted with the general limit.
        "RATE_LIMIT_HEARTBEAT_LIMIT": LIMITS["heartbeat"],
    }
    for name, overrides, conversation in (("calls", quiet, converse), ("limits", limited, hurry)):
        server = await asyncio.to_thread(fleet.start_orchestrator, version, **overrides)
        connector = aiohttp.TCPConnector(force_close=True)
        token = {"X-Client-Token": "client-token"}
        async with aiohttp.ClientSession(connector=connector) as session, aiohttp.ClientSession(headers=token) as other:
            worker = Recorder(_Server(version, server.url), session, Client(other, server.url))
            await conversation(worker)
        server.process.kill()
        path = EXCHANGES / f"{version}-{name}.jsonl"
        path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in worker.lines))


async def main(versions: list[str]) -> None:
    """Record the releases named, or all."""
    EXCHANGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        fleet = Fleet(Path(directory))
        try:
            for version in versions or list(PROTOCOLS):
                await record(version, fleet)
        finally:
            fleet.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
