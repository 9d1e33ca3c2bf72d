"""A proxy between a worker and an orchestrator that breaks calls, and writes down all that goes through it.

It is why a published orchestrator needs no records of its own: every hand-out, result, event and heartbeat passes here.
What it writes down are entries of a history (`avtomatika_worker.testing.history`), in Unix seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker.testing.history import Entry, Kind
from bench.soak import faults
from bench.soak.orchestrator import Request, read_request

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_COMMANDS: Final = b"/_worker/ws/"
_BROKEN: Final = (OSError, asyncio.IncompleteReadError)
_LOOKED: Final = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """An orchestrator's answer, its body whole."""

    head: bytes
    body: bytes
    status: int

    @property
    def bytes(self) -> bytes:
        """What goes to the worker."""
        length = b"" if self.status == 204 else b"Content-Length: %d\r\n" % len(self.body)
        return self.head + length + b"\r\n" + self.body

    @property
    def message(self) -> dict[str, Any]:
        """The body, read as JSON; empty where it is no object."""
        try:
            message = json.loads(self.body)
        except ValueError:
            return {}
        return message if isinstance(message, dict) else {}


@dataclass
class Wire:
    """The proxy. ``life`` names the worker's present process; entries have that name in place of the worker's id."""

    target: int
    version: str
    deck: faults.Deck
    chance: random.Random
    silence: float
    life: str = ""
    entries: list[Entry] = field(default_factory=list[Entry])
    broken: list[tuple[float, str, faults.Kind]] = field(default_factory=list[tuple[float, str, faults.Kind]])
    cuts: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    calls: Counter[str] = field(default_factory=Counter[str])
    honest: bool = False
    """No call breaks any more."""

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._connections: set[asyncio.Task[None]] = set()
        self._cut = False

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Listen inside the block; the value is the port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await self._reset()

    async def cut(self, seconds: float) -> None:
        """Reset every connection, and each new one, for that long."""
        began, self._cut = time.time(), True
        try:
            await self._reset()
            await asyncio.sleep(seconds)
        finally:
            self._cut = False
            self.cuts.append((began, time.time()))

    async def _reset(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        life, opened = self.life, list[asyncio.StreamWriter]()
        try:
            if not self._cut:
                upstream = await asyncio.open_connection("127.0.0.1", self.target)
                opened.append(upstream[1])
                while await self._exchange(life, (reader, writer), upstream):
                    pass
        except (asyncio.CancelledError, *_BROKEN):
            pass  # the server's own callback would log a cancellation
        finally:
            self._connections.discard(task)
            for each in (writer, *opened):
                each.transport.abort()

    async def _exchange(self, life: str, worker: Streams, upstream: Streams) -> bool:
        """Pass a call on, or break it; return whether the connection can go on."""
        request = await read_request(worker[0])
        if request is None:
            return False
        if _COMMANDS in request.head.split(b"\r\n", 1)[0]:
            upstream[1].write(request.head)
            await _both_ways(worker, upstream)
            return False
        fault = None if self.honest or request.call == "other" else self.deck.deal()
        fields = self._sent(life, request)
        answer, known = None, False
        try:
            if fault is None or faults.processed(fault):
                answer = await _asked(request, worker[0], upstream)
                if answer is None:
                    return False
                self._handed_out(fields, request, answer, fault)
            if fault != "silence":  # what follows from an answer comes after it
                known = True
                self._answered(fields, request, answer or _REFUSALS.get(fault or ""), fault)
            return await self._answer(fault, answer, worker)
        finally:
            if not known:
                self._answered(fields, request, answer, fault)

    async def _answer(self, fault: faults.Kind | None, answer: Answer | None, worker: Streams) -> bool:
        right = answer.bytes if answer is not None else b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        if fault is None:
            worker[1].write(right)
            await worker[1].drain()
            return True
        noise = self.chance.randbytes(200)
        return await faults.answer_broken(fault, right, worker, self.silence, noise, self.version)

    def _sent(self, life: str, request: Request) -> dict[str, Any]:
        self.calls[request.call] += 1
        message = request.message if request.body else {}
        facts: dict[str, Any] = {"call": request.call, "number": next(self._numbers)}
        facts |= {name: message.get(name) for name in _FACTS_OF.get(request.call, ())}
        fields = {
            "worker_id": life,
            "job_id": str(message.get("job_id") or message.get("target_job_id") or ""),
            "task_id": str(message.get("task_id") or message.get("origin_task_id") or ""),
        }
        self._add(Kind.CALL_SENT, **fields, facts=facts)
        return {**fields, "facts": facts}

    def _answered(
        self, fields: dict[str, Any], request: Request, answer: Answer | None, fault: faults.Kind | None
    ) -> None:
        """Write down what the orchestrator answered, whether or not that arrives."""
        if fault is not None:
            self.broken.append((time.time(), request.call, fault))
        facts = {**fields["facts"], "code": answer.status if answer else 0, "fault": fault}
        if request.call in {"result", "event"}:
            message = answer.message if answer and answer.status == 200 else {}
            facts["answer"] = message.get("status")
            facts["reason"] = message.get("reason")
        elif request.call == "register":
            facts["slots"] = (request.message.get("resources") or {}).get("max_concurrent_tasks")
        self._add(Kind.CALL_ANSWERED, **{**fields, "facts": facts})

    def _handed_out(self, fields: dict[str, Any], request: Request, answer: Answer, fault: faults.Kind | None) -> None:
        task = answer.message if request.call == "poll" and answer.status == 200 else {}
        if "task_id" in task:
            handed = {"skill": task["type"], "params": task.get("params"), "fault": fault}
            ids = {"worker_id": fields["worker_id"], "job_id": task["job_id"], "task_id": task["task_id"]}
            self._add(Kind.HANDED_OUT, **ids, facts=handed)

    def _add(self, kind: Kind, **fields: Any) -> None:
        self.entries.append(Entry(at=time.time(), kind=kind, orchestrator=str(self.target), **fields))


_FACTS_OF: Final = {
    "heartbeat": ("status",),
    "result": ("status", "data", "error"),
    "event": ("event_id", "event_type", "payload"),
}
_REFUSALS: Final = {
    "redirect_302": Answer(b"", b"", 302),
    "error_500": Answer(b"", b"", 500),
    "unavailable_503": Answer(b"", b"", 503),
    "limited_429": Answer(b"", b"", 429),
}


async def _asked(request: Request, worker: asyncio.StreamReader, upstream: Streams) -> Answer | None:
    """Return the orchestrator's answer; None when the worker is gone before."""
    kept = [line for line in request.head.split(b"\r\n") if not line.lower().startswith(b"accept-encoding:")]
    upstream[1].write(b"\r\n".join(kept) + request.body)
    await upstream[1].drain()
    asked = asyncio.ensure_future(_read_answer(upstream[0]))
    try:
        while not asked.done():
            if worker.at_eof() or worker.exception() is not None:
                return None
            await asyncio.wait([asked], timeout=_LOOKED)
        return asked.result()
    finally:
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    lines, length, chunked = list[bytes](), 0, False
    for line in head.split(b"\r\n"):
        name, _, value = line.lower().partition(b":")
        if name == b"content-length":
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif line:
            lines.append(line)
    body = await _read_chunks(reader) if chunked else await reader.readexactly(length)
    return Answer(b"\r\n".join(lines) + b"\r\n", body, int(head.split(b" ", 2)[1]))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()
    return body


async def _both_ways(worker: Streams, upstream: Streams) -> None:
    """Pass bytes until either side ends."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    directions = [
        asyncio.ensure_future(pass_on(worker[0], upstream[1])),
        asyncio.ensure_future(pass_on(upstream[0], worker[1])),
    ]
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
