"""An orchestrator that can be killed at any moment, and that breaks a share of the calls.

    python -m bench.soak.orchestrator '{"directory": "…", "port": 8080, "seed": 1, …}'

It makes up the jobs itself, hands them out again when their outcome does not come in time, and keeps all of that in
`History`. As the real one does, it forgets who is registered when it restarts, answers heartbeats all the same, and
refuses messages that are not signed or that it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.protocol import dialects
from avtomatika_worker.protocol.signing import Signer, verify_message
from bench.soak import faults
from bench.soak.history import Handed, History
from bench.soak.jobs import EVENT, HISTORY, TOKEN, job_of

OPEN_JOBS: Final = 150
"""With as many jobs without an outcome no further ones are made."""

ENOUGH: Final = "enough"
"""With a file of this name in the directory no further jobs are made."""

LEASE: Final = 60.0
_TURN: Final = 0.05
_REASONS: Final = {200: "OK", 204: "No Content", 403: "Forbidden", 404: "Not Found"}


@dataclass(frozen=True, slots=True)
class Options:
    """How a soak's orchestrator behaves; times are in seconds."""

    directory: str
    port: int
    seed: int
    rate: float
    share: float
    patience: float
    hold: float = 5.0
    silence: float = 40.0


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the worker."""

    call: str
    body: bytes
    head: bytes = b""

    @property
    def message(self) -> dict[str, Any]:
        """The body, read as JSON."""
        message: dict[str, Any] = json.loads(self.body)
        return message


@dataclass(frozen=True, slots=True)
class Reply:
    """The right answer to a call."""

    status: int
    body: Any = None

    def encode(self) -> bytes:
        """Return the bytes of the answer."""
        body = b"" if self.body is None else json.dumps(self.body).encode()
        length = "" if self.status == 204 else f"Content-Length: {len(body)}\r\n"
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nX-RXON-Version: {dialects.NEWEST.version}\r\n"
            f"Date: {formatdate(usegmt=True)}\r\nContent-Type: application/json\r\n{length}\r\n"
        )
        return head.encode() + body


REPLAYED: Final = Reply(403, {"error": "replay"})


class Orchestrator:
    """The state of one run. One worker at a time."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._history = History(Path(options.directory) / HISTORY)
        self._chance = random.Random(f"{options.seed}/run/{self._history.run}")
        self._deck = faults.Deck(options.seed, options.share, self._history.faults())
        self._signer = Signer(TOKEN)
        self._waiting = deque(self._history.waiting())
        self._wake = asyncio.Condition()
        self._calls = Counter[str]()
        self._heard = 0.0
        self._takes_tasks = False

    # ------------------------------------------------------------------------------------------------ jobs

    async def make_jobs(self) -> None:
        """Make up jobs, and hand out again those whose outcome did not come, until cancelled."""
        number, turn = self._history.last_number(), 0
        self._history.mark("listening")
        while True:
            await asyncio.sleep(_TURN)
            turn += 1
            found = list[int]()
            if turn % 10 == 0:
                self._history.count_calls(self._calls)
                found += self._history.expire()
            for _ in range(self._due()):
                number += 1
                self._history.add_job(number)
                found.append(number)
            if found:
                self._waiting.extend(found)
                async with self._wake:
                    self._wake.notify_all()

    def _due(self) -> int:
        if (Path(self._options.directory) / ENOUGH).exists() or self._history.open_jobs() >= OPEN_JOBS:
            return 0
        return int(self._options.rate * _TURN + self._chance.random())

    def _next(self, fault: str | None) -> Handed | None:
        known = time.monotonic() - self._heard < LEASE
        if not (self._waiting and known and self._takes_tasks):
            return None
        job = job_of(self._options.seed, self._waiting.popleft())
        return self._history.hand_out(job, self._options.patience, fault)

    # ------------------------------------------------------------------------------------------------ calls

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls on one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while (request := await read_request(reader)) is not None:
                self._calls[request.call] += 1
                if not await self._answer(request, reader, writer):
                    break
        writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer a call; return whether another one may come on its connection."""
        fault = self._deck.deal()
        if fault is not None:
            self._history.add_fault(request.call, fault)
        answer = b""
        if fault is None or faults.processed(fault):
            reply = await self._process(request, fault, reader)
            if reply is None:
                return False
            answer = reply.encode()
        if fault is not None:
            noise = self._chance.randbytes(200)
            return await faults.answer_broken(fault, answer, (reader, writer), self._options.silence, noise)
        writer.write(answer)
        await writer.drain()
        return True

    async def _process(self, request: Request, fault: str | None, reader: asyncio.StreamReader) -> Reply | None:
        """Do what a call asks for; return None when the client is gone by then."""
        match request.call:
            case "poll":
                return await self._poll(fault, reader)
            case "other":
                return Reply(404, {"error": "no such route"})
        message = request.message
        ignored = frozenset({"bubbling_chain"}) if request.call == "event" else frozenset[str]()
        if not verify_message(message, self._signer, dialects.NEWEST, ignored):
            self._history.add_problem(f"a wrong signature: {request.call}")
            return Reply(403, {"error": "signature"})
        if self._heard or request.call == "register":
            self._heard = time.monotonic()
        match request.call:
            case "register":
                self._history.mark("registered")
                await self._take_tasks(True)
                return Reply(200, {"status": "registered", "version": dialects.NEWEST.version})
            case "heartbeat":
                await self._take_tasks(message["status"] not in {"draining", "offline"})
                return Reply(200, {"status": "ok"})
            case "event":
                return self._event(message)
            case _:
                return self._result(message, fault)

    async def _take_tasks(self, takes: bool) -> None:
        if takes and not self._takes_tasks:
            async with self._wake:
                self._wake.notify_all()
        self._takes_tasks = takes

    async def _poll(self, fault: str | None, reader: asyncio.StreamReader) -> Reply | None:
        """Wait for a task; a client that has gone away by then gets none."""
        self._history.mark("polled")
        ends = time.monotonic() + self._options.hold
        while not reader.at_eof() and reader.exception() is None:
            if (handed := self._next(fault)) is not None:
                return Reply(200, self._task(handed))
            left = ends - time.monotonic()
            if left <= 0:
                return Reply(204)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.5)), self._wake:
                    await self._wake.wait()
        return None

    def _task(self, handed: Handed) -> dict[str, Any]:
        job = job_of(self._options.seed, handed.number)
        return {
            "job_id": job.job_id, "task_id": handed.task, "type": job.skill, "params": job.params, "step": 1,
            "priority": 0, "timestamp": int(time.time()), "tracing_context": {},
        }  # fmt: skip

    def _event(self, message: dict[str, Any]) -> Reply:
        if message["event_type"] == EVENT:
            task = str(message.get("origin_task_id"))
            if not self._history.add_event(message["event_id"], task, message["payload"]["step"]):
                return REPLAYED
        return Reply(200, {"status": "event_accepted"})

    def _result(self, message: dict[str, Any], fault: str | None) -> Reply:
        if self._history.replayed(message["security"]["signature"]):
            self._history.add_problem(f"signed once and sent twice: the result of {message['task_id']}")
            return REPLAYED
        verdict, state = self._judge(message)
        self._history.add_result(message, verdict, state, fault)
        if state == "waiting":
            self._waiting.append(int(message["job_id"].rpartition("-")[2]))
        if verdict in {"accepted", "handed_back"}:
            return Reply(200, {"status": "accepted", "transition": "success_transition"})
        return Reply(200, {"status": "ignored", "reason": verdict, "message": verdict})

    def _judge(self, message: dict[str, Any]) -> tuple[str, str | None]:
        """Return what a result is taken for, and the state of its job from now on."""
        found = self._history.job_of_task(message["task_id"])
        if found is None:
            return "job_not_found", None
        _, state, newest = found
        if state in {"done", "failed"}:
            return "job_already_terminated", None
        if newest != message["task_id"] or state != "running":
            return "stale_task", None
        if message["status"] == "success":
            return "accepted", "done"
        if (message.get("error") or {}).get("code") == "TRANSIENT_ERROR":  # the worker has shut down
            return "handed_back", "waiting"
        return "accepted", "failed"


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """Read the next request; return None when there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return Request(_call(method, path), await reader.readexactly(length), head)


def _call(method: str, path: str) -> str:
    if method == "PATCH":
        return "heartbeat"
    ends = {"/tasks/next": "poll", "/tasks/result": "result", "/register": "register", "/_worker/events": "event"}
    return next((call for end, call in ends.items() if path.partition("?")[0].endswith(end)), "other")


async def run(options: Options) -> None:
    """Serve until the process is ended."""
    orchestrator = Orchestrator(options)
    # The port is held by the process that starts this one, so that nothing else takes it after a kill.
    server = await asyncio.start_server(orchestrator.serve, "127.0.0.1", options.port, reuse_port=True, backlog=512)
    async with server:
        await orchestrator.make_jobs()


def command(options: Options) -> list[str]:
    """Return the command that runs such an orchestrator."""
    return [sys.executable, "-m", "bench.soak.orchestrator", json.dumps(asdict(options))]


if __name__ == "__main__":
    asyncio.run(run(Options(**json.loads(sys.argv[1]))))
