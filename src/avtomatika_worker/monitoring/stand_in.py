"""The heartbeat process's work: it stands in for a worker that does not get to run.

The worker writes a line of JSON every `PULSE` seconds: the messages for each orchestrator, and its health. While those
lines arrive, this process does nothing. Without one for `SILENT_AFTER` seconds, the worker is blocked (something holds
the GIL); then it sends the heartbeats that are due, and accepts the connections that the worker leaves waiting at the
health server. It writes the answers back, for the worker to read when it runs again.

It imports only the standard library and modules of the package that need nothing else, and no user code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final, NoReturn, TypedDict

from avtomatika_worker.monitoring.heartbeat_calls import Form, Message, Orchestrator
from avtomatika_worker.monitoring.probe_server import PATHS, Answer, Connections, health_answer

PULSE: Final = 0.2
"""Seconds between the worker's lines."""

SILENT_AFTER: Final = 0.6
"""Seconds without a line after which the worker counts as blocked."""

LONGEST_LINE: Final = 2**24
"""The longest line in bytes, in either direction."""

_ACCEPT_AFTER: Final = 0.1
"""The least time the worker has to accept a connection, in seconds."""

_LOOK_AT_PARENT: Final = 0.5
_LONGEST_PAUSE: Final = 300.0
_LIMITED: Final = 429


class Health(TypedDict):
    """The worker's own view of its health."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, object]


class StandIn:
    """The worker's last report, and the actions in its place while it is silent.

    ``limit``: seconds of silence after which it counts as dead, and nothing more is done in its place.
    """

    def __init__(self, setup: Message, listener: socket.socket | None, writer: asyncio.StreamWriter) -> None:
        self._orchestrators = [Orchestrator(each, setup["tls"], setup["user_agent"]) for each in setup["orchestrators"]]
        self._limit: float = setup["limit"]
        self._has_metrics: bool = setup["metrics"]
        self._listener = listener
        self._writer = writer
        self._threads = ThreadPoolExecutor(max(1, len(self._orchestrators)), "beat")
        self._forms: list[Form | None] = [None] * len(self._orchestrators)
        self._health: Health = {"not_live": None, "not_ready": "starting", "details": {}}
        self._heard = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the worker's last line."""
        return time.monotonic() - self._heard

    @property
    def stands_in(self) -> bool:
        """Whether the worker is blocked, but may return."""
        return SILENT_AFTER <= self.silence <= self._limit

    def hear(self, line: Message) -> None:
        """Process a line from the worker, and answer."""
        self._heard = time.monotonic()
        for number, form in line["forms"]:
            self._forms[number] = form
        self._health = line["health"] or self._health
        self._say({"echo": line["pulse"]})

    def _say(self, message: Message) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    # ------------------------------------------------------------------------------------------ heartbeats

    async def beat(self, number: int) -> NoReturn:
        """Send an orchestrator the heartbeats that are due while the worker is silent, until cancelled."""
        not_before = 0.0
        while True:
            form, now = self._forms[number], time.monotonic()
            wait = PULSE if form is None or not self.stands_in else max(form["due"], not_before) - now
            if form is None or wait > 0:
                await asyncio.sleep(min(wait, PULSE / 2))
                continue
            loop = asyncio.get_running_loop()
            report = await loop.run_in_executor(self._threads, self._orchestrators[number].beat, form)
            not_before = now + form["interval"] + _asked_pause(report)
            self._say({"report": {**report, "orchestrator": number}})

    # ------------------------------------------------------------------------------------------ health

    def serve(self) -> None:
        """Answer the connections that the worker leaves waiting from now on."""
        if self._listener is None:
            return
        connections = Connections(self.answer)
        loop, listener = asyncio.get_running_loop(), self._listener

        def knock() -> None:
            loop.remove_reader(listener)
            loop.call_later(_ACCEPT_AFTER, accept)

        def accept() -> None:
            if self.silence >= SILENT_AFTER:
                with contextlib.suppress(OSError):  # there are none left
                    while True:
                        accepted = listener.accept()[0]
                        accepted.setblocking(False)
                        accepting.add(task := loop.create_task(connect(accepted)))
                        task.add_done_callback(accepting.discard)
            loop.add_reader(listener, knock)

        async def connect(accepted: socket.socket) -> None:
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(connections.make, accepted)

        accepting: set[asyncio.Task[None]] = set()
        loop.add_reader(listener, knock)

    def answer(self, path: str) -> Answer:
        """Return the answer to a request for ``path``, based on the worker's last report."""
        if path == "/metrics" and self._has_metrics:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, b'{"error":"the worker is held up; its metrics are its own"}')
        if path not in PATHS:
            return Answer(HTTPStatus.NOT_FOUND, b'{"error":"not found"}')
        silence, said = self.silence, self._health
        held = f"the worker has been held up for {silence:.0f} s, by code that holds the GIL or as it is stopped"
        return health_answer(
            path,
            not_live=held if silence > self._limit else said["not_live"],
            not_ready=held if silence >= SILENT_AFTER else said["not_ready"],
            details={**said["details"], "held_up_seconds": round(silence, 1) if silence >= SILENT_AFTER else 0.0},
            encode=lambda value: json.dumps(value, separators=(",", ":")).encode(),
        )


def _asked_pause(report: Message) -> float:
    """Return the wait requested by an orchestrator, in seconds."""
    text = report.get("headers", {}).get("retry-after", "") if report.get("status") == _LIMITED else ""
    return min(float(text), _LONGEST_PAUSE) if text.isdigit() else 0.0


async def stand_in(pipe: socket.socket, listener: socket.socket | None, parent: int) -> None:
    """Stand in for the worker at the other end of ``pipe``, until it ends or closes that."""
    reader, writer = await asyncio.open_unix_connection(sock=pipe, limit=LONGEST_LINE)
    setup = json.loads(await reader.readline() or b"null")
    if setup is None:
        return
    standing = StandIn(setup, listener, writer)
    standing.serve()
    async with asyncio.TaskGroup() as group:
        for number in range(len(setup["orchestrators"])):
            group.create_task(standing.beat(number))
        group.create_task(_end_without(parent))
        while line := await reader.readline():
            standing.hear(json.loads(line))
        os._exit(0)  # threads may be waiting for an orchestrator


async def _end_without(parent: int) -> NoReturn:
    """End with the worker, although a process that it has forked may hold its end of the pipe open."""
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(_LOOK_AT_PARENT)
    os._exit(0)


def main(arguments: list[str]) -> NoReturn:
    """Run the process: with the descriptors of the pipe and of the health server's socket (or -1), and the worker's id.

    The worker starts it with the terminating signals blocked: it ends when the worker does.
    """
    descriptor, listening, parent = map(int, arguments)
    pipe = socket.socket(fileno=descriptor)
    listener = None
    if listening >= 0:
        listener = socket.socket(fileno=listening)
        listener.setblocking(False)
    try:
        asyncio.run(stand_in(pipe, listener, parent))
    except BaseException:  # noqa: BLE001 - the last boundary: the worker logs it
        fault = json.dumps({"fault": traceback.format_exc()}).encode() + b"\n"
        with contextlib.suppress(OSError):
            pipe.setblocking(True)
            pipe.sendall(fault)
        os._exit(1)
    os._exit(0)
