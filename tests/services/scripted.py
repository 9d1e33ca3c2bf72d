"""An orchestrator on raw sockets that answers each call as a test says: with any status, header and body, or never."""

import asyncio
import contextlib
import inspect
import json
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field

VERSION = "1.0b17"
GOOD = {
    "register": {"status": "registered", "version": VERSION},
    "heartbeat": {"status": "ok"},
    "result": {"status": "accepted"},
    "event": {"status": "event_accepted"},
}


@dataclass(frozen=True)
class Call:
    """A call as it came; ``number`` counts those of its kind from 1, ``at`` is in monotonic seconds."""

    kind: str
    number: int
    body: dict
    at: float


@dataclass(frozen=True)
class Answer:
    """What is answered. ``announced``: with the header that orchestrators have; ``date`` is in that header."""

    status: int = 200
    body: bytes = b""
    announced: bool = True
    headers: dict = field(default_factory=dict)

    def encode(self):
        headers = {"Content-Type": "application/json", **self.headers}
        if self.announced:
            headers["X-RXON-Version"] = VERSION
        if self.status >= 200 and self.status not in {204, 304}:
            headers["Content-Length"] = str(len(self.body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Whatever\r\n{lines}\r\n".encode() + self.body


NEVER = object()
"""The call is not answered."""

RESET = object()
"""Its connection is closed."""


class Scripted:
    """``script(call)`` returns an `Answer`, `NEVER` or `RESET`, None for a good one, or an awaitable of these.

    ``keep_alive``: seconds after which connections are closed that are idle.
    """

    def __init__(self, script=lambda call: None):
        self.script = script
        self.calls = defaultdict(list)
        self.tasks = deque()
        self.polls_held = 0
        self.poll_time = 20.0
        self.keep_alive = None
        self.port = 0
        self.changed = asyncio.Condition()
        self._server = None
        self._connections = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    token = "token"

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self.stop()

    async def start(self):
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self):
        """Stop listening, and break every connection."""
        self._server.close()
        for serving in list(self._connections):
            serving.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def hand_out(self, *tasks):
        self.tasks.extend({"job_id": f"job-{task['task_id']}", "params": {}, **task} for task in tasks)
        await self.touch()

    async def touch(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition, timeout=15.0):
        async with asyncio.timeout(timeout), self.changed:
            await self.changed.wait_for(condition)

    async def wait_for_worker(self, _worker_id, timeout):
        await self.until(lambda: self.calls["register"], timeout)

    def results(self):
        """Return each task's last result."""
        return {call.body["task_id"]: call.body for call in self.calls["result"]}

    async def _connected(self, reader, writer):
        serving = asyncio.current_task()
        self._connections.add(serving)
        try:
            while await self._serve(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(serving)
            writer.transport.abort()

    async def _serve(self, reader, writer):
        async with asyncio.timeout(self.keep_alive):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        method, path, _ = head.split("\r\n")[0].split(" ", 2)
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        kind = kind_of(method, path)
        call = Call(kind, len(self.calls[kind]) + 1, json.loads(body) if body else {}, time.monotonic())
        self.calls[kind].append(call)
        await self.touch()
        answer = self.script(call)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            answer = await self._good(kind)
        if answer is NEVER:
            await reader.read()
            return False
        if answer is RESET:
            return False
        writer.write(answer.encode())
        await writer.drain()
        return answer.status >= 200

    async def _good(self, kind):
        if kind in GOOD:
            return Answer(body=json.dumps(GOOD[kind]).encode())
        if kind != "poll":
            return Answer(404, announced=False)
        self.polls_held += 1
        await self.touch()
        try:
            with contextlib.suppress(TimeoutError):
                await self.until(lambda: self.tasks, timeout=self.poll_time)
        finally:
            self.polls_held -= 1
        return Answer(body=json.dumps(self.tasks.popleft()).encode()) if self.tasks else Answer(204)


def kind_of(method, path):
    if method == "PATCH":
        return "heartbeat"
    ends = {"/tasks/result": "result", "/workers/register": "register", "/_worker/events": "event"}
    found = next((kind for end, kind in ends.items() if path.endswith(end)), None)
    return found or ("poll" if "/tasks/next" in path else "other")
