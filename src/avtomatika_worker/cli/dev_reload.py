"""``worker dev --reload``: the orchestrator stays, with its tasks and the open console; the worker comes and goes.

The process that watches the files has the orchestrator. Each process of the worker connects to it, sends its skills and
what it logs, or why it cannot be loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from avtomatika_worker._boundaries import caught
from avtomatika_worker._sockets import socket_directory
from avtomatika_worker._waiting import finish, first_of
from avtomatika_worker.cli.dev_shutdown import say_what_is_awaited
from avtomatika_worker.cli.production_limits import warn_of_production_limits
from avtomatika_worker.cli.reload import Reloader, need_watchfiles
from avtomatika_worker.cli.worker_app import UsageProblem
from avtomatika_worker.devserver import EmbeddedOrchestrator, TaskLogs
from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.devserver.console.task_logs import Line
from avtomatika_worker.errors import ResourceError, SkillLoadError
from avtomatika_worker.execution.tracebacks import folded_traceback
from avtomatika_worker.observability.host import listener_at
from avtomatika_worker.worker.program import USAGE_ERRORS

_VARIABLE: Final = "AVTOMATIKA_WORKER_DEV"
_LOOK: Final = 1.0
"""Seconds between two looks at the worker's slots."""

_FIRST: Final = b"first"
_OURS: Final = (str(Path(__file__).parents[1]), str(Path(os.__file__).with_name("importlib")), "<frozen importlib")


class Host:
    """The orchestrator, on a thread of its own, and the messages from the worker's processes.

    ``place`` is for the worker's files where its settings name no directory.
    """

    def __init__(self, orchestrator: EmbeddedOrchestrator, program: Program, logs: TaskLogs, place: Path) -> None:
        self._orchestrator = orchestrator
        self._program = program
        self._logs = logs
        self._place = place
        self._key = secrets.token_bytes(32)
        self._directory = socket_directory()
        self._listener = Listener(str(Path(self._directory.name, "reload.sock")), authkey=self._key)
        self._loop = asyncio.new_event_loop()
        self._closed = False
        self._greeted = False
        self._worker: tuple[str, float] | None = None
        self._up: Future[None] = Future()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="orchestrator", daemon=True)

    def __enter__(self) -> Self:
        """Start the orchestrator. Raises OSError if it cannot listen."""
        self._thread.start()
        self._up.result()
        threading.Thread(target=self._accept, name="reload-accept", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.close()
        self._directory.cleanup()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def run(self, environ: Mapping[str, str]) -> int:
        """Run the worker's command in process after process until a signal arrives; return the last exit code."""
        facts = {
            "address": str(self._listener.address),
            "key": self._key.hex(),
            "url": self._orchestrator.url,
            "console": self._orchestrator.console_url,
            "token": self._orchestrator.token,
            "place": str(self._place),
        }
        arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
        reloader = Reloader(arguments, Path.cwd(), {**environ, _VARIABLE: json.dumps(facts)}, self._ended, self._asked)
        return reloader.run()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        with caught(Exception) as kept:
            await self._orchestrator.start()
        finish(self._up, kept.error)
        if kept.error is not None:
            return
        try:
            if self._orchestrator.settings.rate_limits is None:
                await first_of(self._stop.wait, partial(warn_of_production_limits, self._orchestrator))
            await self._stop.wait()
        finally:
            await self._orchestrator.stop()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (AuthenticationError, EOFError, OSError):  # the process has ended, or the listener is closed
                if self._closed:
                    return
                continue
            threading.Thread(target=self._listen, args=(connection,), name="reload-listen", daemon=True).start()

    def _listen(self, connection: Connection[Any, Any]) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            while True:
                self._take(json.loads(connection.recv_bytes()), connection)

    def _take(self, message: dict[str, Any], connection: Connection[Any, Any]) -> None:
        if "line" in message:
            self._logs.take(message["line"])
        elif "slots" in message:
            used, total = message["slots"]
            slots = {message["worker_id"]: (used, total)}
            self._program.slots = lambda: slots
        elif "problem" in message:
            self._program.problem = message["problem"]
        else:
            self._program.started(message["skills"])
            self._program.slots = dict  # until it reports its own
            self._worker = message["worker_id"], message["shutdown_timeout"]
            # Until here the one before is known, so that tasks can be sent, and wait.
            self._loop.call_soon_threadsafe(self._orchestrator.forget_workers)
            asyncio.run_coroutine_threadsafe(self._report_registration(connection), self._loop)

    async def _report_registration(self, connection: Connection[Any, Any]) -> None:
        await self._orchestrator.wait_for_worker(timeout=None)
        with contextlib.suppress(OSError):  # it has ended
            connection.send_bytes(b"again" if self._greeted else _FIRST)
            self._greeted = True

    def _asked(self, times: int) -> None:
        """Say what the worker's process waits for before it ends, on a signal to both."""
        self._loop.call_soon_threadsafe(self._say_what_is_awaited, times)

    def _say_what_is_awaited(self, times: int) -> None:
        if self._worker is not None:
            say_what_is_awaited(self._orchestrator.jobs.values(), *self._worker, times)

    def _ended(self, code: int) -> None:
        """Say in the console that the worker's process ended by itself."""
        self._program.slots = dict
        self._program.problem = self._program.problem or f"The program ended with exit code {code}; see the terminal."


def hosted(
    orchestrator: EmbeddedOrchestrator, program: Program, logs: TaskLogs, place: Path, environ: Mapping[str, str]
) -> NoReturn:
    """Serve the orchestrator and run the worker beside it until a signal arrives."""
    need_watchfiles()
    with contextlib.ExitStack() as stack:
        try:
            host = stack.enter_context(Host(orchestrator, program, logs, place))
        except OSError as error:
            raise UsageProblem(cannot_listen(orchestrator.port, error)) from error
        code = host.run(environ)
    sys.exit(code)


def cannot_listen(port: int, error: OSError) -> str:
    """Return why the orchestrator could not be started, and what is using its port."""
    owner = listener_at(port) if error.errno == errno.EADDRINUSE else None
    reason = f"--port {port}: the embedded orchestrator cannot listen: {(error.strerror or str(error)).lower()}"
    return f"{reason}{f' by {owner}' if owner else ''}; choose another --port or --host"


class HostLink:
    """A worker process's connection to its `Host`, with the orchestrator's address."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.url: str = facts["url"]
        self.console_url: str | None = facts["console"]
        self.token: str = facts["token"]
        self.place: Path = Path(facts["place"])
        self._guard = threading.Lock()
        self._connection = Client(facts["address"], authkey=bytes.fromhex(facts["key"]))

    @classmethod
    def from_environment(cls) -> HostLink | None:
        """Return the link of a process that a `Host` has started; None in any other."""
        facts = os.environ.pop(_VARIABLE, "")  # the user's child processes must not see it
        return cls(json.loads(facts)) if facts else None

    def send(self, **message: Any) -> None:
        """Send one message; nothing if the host has ended."""
        data = json.dumps(message, default=str).encode()
        with self._guard, contextlib.suppress(OSError):
            self._connection.send_bytes(data)

    @contextlib.contextmanager
    def reporting(self) -> Generator[None]:
        """Send what keeps the program from being loaded."""
        try:
            yield
        except BaseException as error:
            self.send(problem=_explanation(error))
            raise

    def report_slots(self, worker_id: str, read: Callable[[], tuple[int, int]]) -> None:
        """Send the worker's slots whenever they have changed; ``read`` is called on another thread."""

        def report() -> None:
            pause, last = threading.Event(), (0, 0)
            while True:
                if (now := read()) != last:
                    self.send(worker_id=worker_id, slots=now)
                    last = now
                pause.wait(_LOOK)

        threading.Thread(target=report, name="reload-slots", daemon=True).start()

    def when_registered(self, then: Callable[[bool], None]) -> None:
        """Call ``then`` on another thread once the worker is registered, with whether it is the host's first."""

        def wait() -> None:
            with contextlib.suppress(EOFError, OSError):
                then(self._connection.recv_bytes() == _FIRST)

        threading.Thread(target=wait, name="reload-registered", daemon=True).start()


class SentLogs(TaskLogs):
    """Sends the records of tasks to the console instead of keeping them."""

    def __init__(self, link: HostLink) -> None:
        super().__init__()
        self._link = link

    def take(self, line: Line) -> None:
        """Send a line."""
        self._link.send(line=line)


def _explanation(error: BaseException) -> str:
    """Return the traceback of the user's mistake, without our own frames, or the message of one without a traceback."""
    cause = error.__cause__
    if isinstance(cause, SkillLoadError | ResourceError):
        cause = cause.__cause__ or cause
    if cause is None:
        return getattr(error, "message", None) or f"{type(error).__name__}: {error}"
    if not isinstance(cause, USAGE_ERRORS):
        return folded_traceback(cause)
    theirs = cause.__traceback__
    while theirs is not None and theirs.tb_frame.f_code.co_filename.startswith(_OURS):
        theirs = theirs.tb_next
    return "".join(traceback.format_exception(type(cause), cause, theirs))
