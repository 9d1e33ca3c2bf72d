"""The heartbeat process: run as a script, it stands in for a worker that does not get to run.

The worker writes a line of JSON every `PULSE` seconds: what to send to each orchestrator, and what it knows of its
health. While those lines come, this process does nothing. Without one for `SILENT_AFTER` seconds, the worker is held up
(something holds the GIL); then it sends the heartbeats that are due, and accepts the connections to the health server
that the worker leaves waiting. What it is answered it writes back, for the worker to read when it runs again.

It imports the standard library and modules of the package that need no more, and none of the user's code.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import ssl
import sys
import time
import traceback
import types
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypedDict
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from avtomatika_worker.services.probe_server import Answer

PULSE: Final = 0.2
"""Seconds between two of the worker's lines."""

SILENT_AFTER: Final = 0.6
"""Seconds without a line after which the worker is taken to be held up."""

LONGEST_LINE: Final = 2**24
"""Bytes that a line may have, in either direction."""

_ACCEPT_AFTER: Final = 0.1
"""Seconds that the worker has for accepting a connection at least."""

_LOOK_AT_PARENT: Final = 0.5
_TIMEOUT: Final = 10.0
_LONGEST_ANSWER: Final = 2**20
_LONGEST_PAUSE: Final = 300.0
_UNAUTHORIZED: Final = 401
_LIMITED: Final = 429
_PROBLEM: Final = 200
_WANTED_HEADERS: Final = ("x-rxon-version", "date", "retry-after")
_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)

Message = dict[str, Any]


class Form(TypedDict):
    """`services.keepalive.KeepAlive`, as it comes."""

    path: str
    parts: tuple[str, str, str]
    headers: dict[str, str]
    headers_again: dict[str, str] | None
    signer_id: str
    key: str | None
    ahead: float
    due: float
    interval: float
    registrations: int


class Proxy(TypedDict):
    """The proxy on the way to an orchestrator."""

    url: str
    headers: dict[str, str]


class Place(TypedDict):
    """Where an orchestrator is."""

    url: str
    proxy: Proxy | None


class Tls(TypedDict):
    """Paths of PEM files."""

    ca: str | None
    cert: str | None
    key: str | None


class Health(TypedDict):
    """What the worker knows of its own health."""

    not_live: str | None
    not_ready: str | None
    details: dict[str, object]


def steady() -> float:
    """Return what `services.clock.steady` returns in the worker."""
    return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)


def sealed(form: Form) -> bytes:
    """Return the body of a heartbeat: with a new nonce, the orchestrator's time, and a signature over both."""
    before, between, after = form["parts"]
    canonical = f"{before}{os.urandom(12).hex()}{between}{int(steady() + form['ahead'])}{after}".encode()
    if form["key"] is None:
        return canonical
    signature = hmac.new(form["key"].encode(), canonical, hashlib.sha256).hexdigest()
    security = f',"security":{{"signature":"{signature}","signer_id":"{form["signer_id"]}"}}}}'
    return canonical[:-1] + security.encode()


class Orchestrator:
    """Sends heartbeats to one orchestrator; on a connection of its own each, with TLS files as they are then."""

    def __init__(self, place: Place, tls: Tls, user_agent: str) -> None:
        parts = urlsplit(place["url"])
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path.rstrip("/")
        self._place = parts.netloc.rpartition("@")[2]
        self._proxy = place["proxy"]
        self._tls = tls
        self._headers = {"User-Agent": user_agent, "Content-Type": "application/json"}
        if parts.username is not None:
            credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"

    def beat(self, form: Form) -> Message:
        """Send a heartbeat and return what there is to report. Blocks; raises nothing that the network may cause."""
        asked = steady()
        try:
            answer = self._send(form, form["headers"])
            if answer["status"] == _UNAUTHORIZED and form["headers_again"] is not None:
                answer = self._send(form, form["headers_again"])
        except (OSError, http.client.HTTPException, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"[:_PROBLEM]
            answer = {"problem": problem, "timed_out": isinstance(error, TimeoutError)}
        return {**answer, "asked": asked, "at": time.monotonic(), "registrations": form["registrations"]}

    def _send(self, form: Form, headers: Mapping[str, str]) -> Message:
        connection, target = self._connection()
        path = f"{target}{self._prefix}{form['path']}"
        extra = self._proxy["headers"] if self._proxy is not None and not self._secure else {}
        try:
            connection.request("PATCH", path, sealed(form), {**self._headers, **extra, **headers})
            answer = connection.getresponse()
            body = answer.read(_LONGEST_ANSWER + 1)
        finally:
            connection.close()
        if len(body) > _LONGEST_ANSWER:
            raise ValueError(f"the answer is longer than {_LONGEST_ANSWER} bytes")
        found = {name: value for name in _WANTED_HEADERS if (value := answer.getheader(name)) is not None}
        good = {name: value for name, value in found.items() if value.isascii() and value.isprintable()}
        return {"status": answer.status, "headers": good, "body": body.decode("latin-1")}

    def _connection(self) -> tuple[http.client.HTTPConnection, str]:
        """Return a connection, and what stands before the path in a request on it."""
        if self._proxy is None:
            if self._secure:
                return http.client.HTTPSConnection(
                    self._host, self._port, timeout=_TIMEOUT, context=self._tls_context()
                ), ""
            return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT), ""
        proxy = urlsplit(self._proxy["url"])
        host, port = proxy.hostname or "", proxy.port or (443 if proxy.scheme == "https" else 80)
        if self._secure:
            connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=self._tls_context())
            connection.set_tunnel(self._host, self._port, self._proxy["headers"])
            return connection, ""
        if proxy.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=context), f"http://{self._place}"
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT), f"http://{self._place}"

    def _tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._tls["ca"]:
            context.load_verify_locations(self._tls["ca"])
        if self._tls["cert"] and self._tls["key"]:
            context.load_cert_chain(self._tls["cert"], self._tls["key"], password=_no_password)
        return context


def _no_password() -> str:
    """Answer for the person whom OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted")


class StandIn:
    """What the worker has said, and what is done in its place while it says nothing.

    ``limit``: seconds of silence after which it counts as dead, and nothing is done in its place any more.
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
        """Whether the worker is held up, and may be back."""
        return SILENT_AFTER <= self.silence <= self._limit

    def hear(self, line: Message) -> None:
        """Take what the worker says, and answer."""
        self._heard = time.monotonic()
        for number, form in line["forms"]:
            self._forms[number] = form
        self._health = line["health"] or self._health
        self._say({"echo": line["pulse"]})

    def _say(self, message: Message) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    # ------------------------------------------------------------------------------------------ heartbeats

    async def beat(self, number: int) -> NoReturn:
        """Send an orchestrator the heartbeats that are due while the worker is silent; for ever."""
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
        """Answer from now on what the worker leaves waiting."""
        if self._listener is None:
            return
        from avtomatika_worker.services.probe_server import Connections

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
        """Return what a request for ``path`` is answered with, from what the worker said last."""
        from avtomatika_worker.services.probe_server import PATHS, Answer, health_answer

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
    """Return the seconds for which an orchestrator asks to be left alone."""
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
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_LOOK_AT_PARENT)
    os._exit(0)


def main(arguments: list[str]) -> NoReturn:
    """Run the process: with the descriptors of the pipe and of the health server's socket (or -1), and the worker's id.

    Signals are for the worker: this process ends when the worker does.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
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


def _leave_the_worker_out() -> None:
    """Let modules of the package be imported without its ``__init__``, which imports all that a worker needs."""
    package = types.ModuleType("avtomatika_worker")
    package.__path__ = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]  # noqa: PTH100, PTH120 - one import less
    sys.modules[package.__name__] = package


if __name__ == "__main__":
    _leave_the_worker_out()
    main(sys.argv[1:])
