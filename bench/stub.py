"""A stub orchestrator that is never the limit: hand-made responses over an asyncio protocol.

It speaks enough of RXON for a worker to register, poll, send results, events and heartbeats, and counts everything.
What it hands out is set over HTTP too (``POST /_bench/plan``), and what it counted is read there (``/_bench/stats``).
Run as ``python -m bench.stub PORT``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final, cast

from avtomatika_worker.protocol import dialects
from avtomatika_worker.protocol.signing import Signer, verify_message

HOLD: Final = 30.0
"""Seconds for which a poll without a task is held, as orchestrators do by default."""

TICK: Final = 0.002
"""Seconds between two looks at what is due while tasks come at a rate."""

VERIFY_EVERY: Final = 200
"""One of so many results is verified in full; the rest is only checked for a signature's presence."""

TOKEN: Final = "bench-token"

_REPLIES: Final = {
    b"/_worker/tasks/result": b'{"status":"accepted","transition":"success_transition"}',
    b"/_worker/events": b'{"status":"event_accepted"}',
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is handed out: ``rate`` 0 answers every poll at once; ``limit`` tasks at most; ``size`` of the params."""

    version: str = "1.0b17"
    skill: str = "echo"
    rate: float = 0.0
    limit: int = 0
    size: int = 16


@dataclass(slots=True)
class Stats:
    """What was counted since the last reset. Latencies are in seconds."""

    since: float = field(default_factory=time.perf_counter)
    handed: int = 0
    results: int = 0
    unknown_results: int = 0
    polls: int = 0
    heartbeats: int = 0
    events: int = 0
    other: int = 0
    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    verified: int = 0
    wrong: int = 0
    latencies: list[float] = field(default_factory=list[float])
    totals: list[float] = field(default_factory=list[float])


class Stub:
    """The orchestrator's state. One worker at a time."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.stats = Stats()
        self.registered_at = 0.0
        self.polled_at = 0.0
        self._ids = itertools.count(1)
        self._handed: dict[bytes, tuple[float, float]] = {}
        self._waiting: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._released = 0
        self._rate_since = 0.0
        self._signer = Signer(TOKEN)
        self._dialect = dialects.NEWEST
        self._second = 0
        self._head = b""
        self._task: tuple[bytes, bytes] = (b"", b"")
        self.tick_second()

    # ------------------------------------------------------------------------------------------------ plans

    def set_plan(self, plan: Plan) -> None:
        """Hand out by ``plan`` from now on; what was handed out before is forgotten."""
        self.plan = plan
        self._dialect = dialects.choose(plan.version).dialect
        self._handed.clear()
        self._due.clear()
        self._released, self._rate_since = 0, time.perf_counter()
        self._second = 0
        self.tick_second()
        self.release()

    def reset(self) -> None:
        """Count from zero."""
        self.stats = Stats()

    def tick_second(self) -> None:
        """Renew what changes once a second: the Date header and the tasks' timestamp."""
        now = int(time.time())
        if now == self._second:
            return
        self._second = now
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"X-RXON-Version: {self.plan.version}\r\nDate: {formatdate(now, usegmt=True)}\r\nServer: stub\r\n"
            "Content-Length: "
        )
        self._head = head.encode()
        self._task = _task_parts(self.plan, now)

    def _next_id(self) -> bytes:
        # As long as a UUID: some workers keep ids, and sizes should be real.
        return b"%08x-0000-4000-8000-000000000000" % next(self._ids)

    # ------------------------------------------------------------------------------------------------ polls

    def poll(self, connection: Connection) -> None:
        """Answer a poll, now or later."""
        self.stats.polls += 1
        if not self.polled_at:
            self.polled_at = time.time()
        if self.plan.rate:
            if self._due:
                self._hand_out(connection, self._due.popleft())
                return
        elif self._released < self.plan.limit:
            self._released += 1
            self._hand_out(connection, time.perf_counter())
            return
        connection.held_since = time.monotonic()
        self._waiting.append(connection)

    def release(self) -> None:
        """Hand out what is due to the polls that wait, and end those that have waited long enough."""
        now = time.perf_counter()
        plan = self.plan
        if plan.rate:
            while self._released < min(plan.limit, int((now - self._rate_since) * plan.rate)):
                self._released += 1
                self._due.append(self._rate_since + self._released / plan.rate)
        while self._waiting:
            if plan.rate and self._due:
                since = self._due.popleft()
            elif not plan.rate and self._released < plan.limit:
                self._released += 1
                since = now
            else:
                break
            connection = self._waiting.popleft()
            if connection.alive:
                self._hand_out(connection, since)
            elif plan.rate:
                self._due.appendleft(since)
            else:
                self._released -= 1
        oldest = time.monotonic() - HOLD
        while self._waiting and (self._waiting[0].held_since < oldest or not self._waiting[0].alive):
            self._waiting.popleft().no_task()

    def _hand_out(self, connection: Connection, due: float) -> None:
        task_id = self._next_id()
        before, after = self._task
        self._handed[task_id] = (time.perf_counter(), due)
        self.stats.handed += 1
        connection.answer(before.replace(b"$ID", task_id) + after)

    # ------------------------------------------------------------------------------------------------ the rest

    def result(self, body: bytes) -> None:
        """Take a result."""
        stats = self.stats
        stats.results += 1
        at = body.rfind(b'"task_id":')
        start = body.find(b'"', at + 10) + 1
        handed = self._handed.pop(body[start : start + 36], None)
        if handed is None:
            stats.unknown_results += 1
        else:
            now = time.perf_counter()
            stats.latencies.append(now - handed[0])
            stats.totals.append(now - handed[1])
        if stats.results % VERIFY_EVERY == 1:
            stats.verified += 1
            message: dict[str, Any] = json.loads(body)
            echoed = len(message.get("data", {}).get("text", "")) == _text_length(self.plan)
            stats.wrong += not (echoed and verify_message(message, self._signer, self._dialect))

    def figures(self) -> dict[str, Any]:
        """Return what was counted."""
        stats = self.stats
        figures = {name: getattr(stats, name) for name in Stats.__slots__ if name not in {"latencies", "totals"}}
        figures["seconds"] = time.perf_counter() - figures.pop("since")
        figures["outstanding"] = len(self._handed)
        figures["waiting_polls"] = len(self._waiting)
        figures["registered_at"], figures["polled_at"] = self.registered_at, self.polled_at
        figures["latency"] = _percentiles(stats.latencies)
        figures["total"] = _percentiles(stats.totals)
        return figures

    def control(self, path: bytes, body: bytes) -> bytes:
        """Do what the harness asks for."""
        if path == b"/_bench/plan":
            self.set_plan(Plan(**json.loads(body)))
        elif path == b"/_bench/reset":
            self.reset()
        elif path == b"/_bench/new":
            self.registered_at = self.polled_at = 0.0
            self._waiting.clear()
            self.set_plan(Plan(**json.loads(body)))
            self.reset()
        return json.dumps(self.figures()).encode()

    def respond(self, connection: Connection, method: bytes, path: bytes, body: bytes, size: int) -> None:
        """Answer one request, of ``size`` bytes with its head."""
        stats = self.stats
        if method == b"GET" and b"/tasks/next" in path:
            self.poll(connection)
        elif path == b"/_worker/tasks/result":
            self.result(body)
            connection.answer(_REPLIES[path])
        elif method == b"PATCH":
            stats.heartbeats += 1
            connection.answer(b'{"status":"ok"}')
        elif path == b"/_worker/workers/register":
            self.registered_at = time.time()
            connection.answer(b'{"status":"registered","version":"%s"}' % self.plan.version.encode())
        elif path == b"/_worker/events":
            stats.events += 1
            connection.answer(_REPLIES[path])
        elif path.startswith(b"/_bench/"):
            stats.connections -= 1  # the harness's own traffic is not what is measured
            stats.bytes_in -= size
            answer = self.control(path, body)
            counted = self.stats.bytes_out
            connection.answer(answer)
            self.stats.bytes_out = counted
        else:
            stats.other += 1
            connection.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    @property
    def head(self) -> bytes:
        """The head of every answer, up to the length."""
        return self._head


class Connection(asyncio.Protocol):
    """One connection: splits the bytes into requests, pipelined ones too."""

    __slots__ = ("_buffer", "_needed", "_stub", "_transport", "held_since")

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = bytearray()
        self._needed = 0
        self._transport: asyncio.Transport | None = None
        self.held_since = 0.0

    @property
    def alive(self) -> bool:
        """Whether anything can still be written."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class
        self._stub.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the transport."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer the requests that are complete."""
        self._stub.stats.bytes_in += len(data)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._needed = 0
        start, end = 0, len(data)
        while start < end:
            head_end = data.find(b"\r\n\r\n", start)
            if head_end < 0:
                break
            body_start = head_end + 4
            method, path, _ = data[start : data.find(b"\r", start)].split(b" ", 2)
            length = 0 if method == b"GET" else _content_length(data[start:head_end])
            if end - body_start < length:
                self._needed = body_start - start + length
                break
            first, start = start, body_start + length
            self._stub.respond(self, method, path, data[body_start:start], start - first)
        if start < end:
            self._buffer += data[start:]

    def answer(self, body: bytes) -> None:
        """Write an answer with status 200."""
        self.write(b"%s%d\r\n\r\n%s" % (self._stub.head, len(body), body))

    def no_task(self) -> None:
        """End a poll that was held long enough."""
        if self.alive:
            version = self._stub.plan.version.encode()
            self.write(b"HTTP/1.1 204 No Content\r\nX-RXON-Version: %s\r\n\r\n" % version)

    def write(self, data: bytes) -> None:
        """Write and count."""
        self._stub.stats.bytes_out += len(data)
        if self._transport is not None:
            self._transport.write(data)


def _content_length(head: bytes) -> int:
    at = head.lower().find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    at += 17
    end = head.find(b"\r", at)
    return int(head[at : end if end >= 0 else None])


def _text_length(plan: Plan) -> int:
    return max(0, plan.size - len('{"text":""}'))


def _task_parts(plan: Plan, now: int) -> tuple[bytes, bytes]:
    """Return a task in the form of ``plan.version``: ``$ID`` in the first part stands for its id."""
    dialect = dialects.choose(plan.version).dialect
    params = '"params":{"text":"' + "x" * _text_length(plan) + '"}'
    if not dialect.skill_names or not dialect.draining_status:  # up to 1.0b9: one id, nulls, no time
        before = f'{{"job_id":"$ID","task_id":"$ID","type":"{plan.skill}",'
        after = ',"tracing_context":{},"params_metadata":null,"priority":0.0,"deadline":null,"security":null,'
        return before.encode(), (params + after + '"metadata":null}').encode()
    timestamp = str(now) if dialect.signed_tasks else f"{now}.25"
    before = f'{{"job_id":"$ID","priority":0,"step":1,"task_id":"$ID","timestamp":{timestamp},'
    after = f',"tracing_context":{{}},"type":"{plan.skill}"}}'
    return before.encode(), (params + after).encode()


def _percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    return {name: ordered[int(share * (len(ordered) - 1))] for name, share in (("p50", 0.5), ("p99", 0.99))}


async def serve(port: int) -> None:
    """Serve on the loopback interface until cancelled."""
    loop = asyncio.get_running_loop()
    stub = Stub()
    server = await loop.create_server(lambda: Connection(stub), "127.0.0.1", port, backlog=1024)
    async with server:
        while True:
            stub.tick_second()
            stub.release()
            await asyncio.sleep(TICK if stub.plan.rate else 0.05)


def main() -> None:
    """Serve on the port that the command line names."""
    import gc

    import uvloop

    gc.freeze()
    uvloop.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
