"""One process for skills, as the worker sees it. Used on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from functools import cached_property, partial
from typing import Any, Final

from avtomatika_worker.errors import (
    InternalError,
    ProcessStartError,
    ResourceError,
    ResourceExhaustedError,
    SkillDefinitionError,
    TransientError,
    WorkerError,
)
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.outcome import Outcome
from avtomatika_worker.execution.processes.calls import answer, tell
from avtomatika_worker.execution.processes.channel import Channel
from avtomatika_worker.execution.processes.recipe import Recipe
from avtomatika_worker.execution.processes.wire import CANNOT_ENCODE, Message, decode_outcome, encode, error_parts

_log: Final = logging.getLogger("avtomatika_worker.processes")

_PROGRAM: Final = """
import sys
sys.path += [each for each in sys.argv.pop().splitlines() if each not in sys.path]
from avtomatika_worker.execution.processes.child import main
main()
"""

KILL_TIMEOUT: Final = 1.0
"""Seconds in which a process that was killed is expected to be gone."""

_LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds for what a process had written before it ended; its own children may hold the socket open for longer."""


class Process:
    """A process. ``on_exit`` is called when it has ended, whatever ended it, unless it never came up."""

    def __init__(self, on_exit: Callable[[Process], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.spent: bool = False
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._popen: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._channel: Channel | None = None
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._done: asyncio.Future[Outcome | None] | None = None
        self._ctx: TaskContext | None = None
        self._number = 0
        self._killed = False
        self._answers: set[asyncio.Task[None]] = set()
        self._last_words: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid if self._popen is not None else 0

    @property
    def alive(self) -> bool:
        """Whether it can take a task."""
        return self._up.done() and not self._exited.done() and self._channel is not None and not self._channel.closed

    # -------------------------------------------------------------------------------------------------- life

    async def start(self, recipe: Recipe, spawner: Executor) -> None:
        """Start it, and wait until it is ready. It is gone when this raises.

        ``spawner`` runs in a thread that lives as long as the process shall: the system kills it when that ends.
        Raises `SkillDefinitionError`, `ResourceError` or `ProcessStartError`.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        spawning = self._loop.run_in_executor(spawner, self._spawn, theirs)
        try:
            await asyncio.shield(spawning)
        except BaseException as error:
            ours.close()
            self._up.cancel()
            self._given_up = True
            self.kill()
            if isinstance(error, OSError):
                raise ProcessStartError(f"a process for skills cannot be started: {error}") from error
            raise
        channel = self._channel = Channel(self._take, self._hear_no_more)
        try:
            await self._loop.create_unix_connection(lambda: channel, sock=ours)
            channel.send(encode("setup", recipe.message()))
            await self._up
        except BaseException:
            await self.put_down()
            raise

    def _spawn(self, theirs: socket.socket) -> None:
        """Start it, in a thread that the loop may not outlive: whoever starts a process sees to its end."""
        popen = _start_interpreter(theirs)
        threading.Thread(target=self._reap, args=(popen,), name=f"reap {popen.pid}", daemon=True).start()
        self._popen = popen
        if self._given_up:  # read after the line above, and set before the other side reads that one
            self.kill()

    async def end(self, timeout: float) -> None:
        """Let it close its resources and exit; kill it when it has not after so many seconds."""
        if self._channel is not None and not self._channel.closed:
            self._channel.send(encode("end"))
            await asyncio.wait({self._exited}, timeout=timeout)
            if not self._exited.done():
                _log.error(
                    "process %d for skills did not close its resources within %g s and is killed",
                    self.pid,
                    timeout,
                    extra={"action": "skill_process_close_failed", "pid": self.pid},
                )
        await self.put_down()

    def kill(self) -> None:
        """Kill it, and what it has started."""
        if self._popen is not None and not self._exited.done():
            self._killed = True
            _kill_group(self._popen.pid)

    async def put_down(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        await asyncio.wait({self._exited}, timeout=KILL_TIMEOUT)
        if self._channel is not None:
            self._channel.close()
        self._up.cancel()

    # -------------------------------------------------------------------------------------------------- tasks

    async def run(self, ctx: TaskContext, grace: float) -> Outcome:
        """Run a task to its outcome. Cancelled, the skill has ``grace`` seconds to end before the process is killed.

        Raises a `TaskError` when the process ends, and ``CancelledError``. On return it is free, or dead.
        """
        assert self._channel is not None  # noqa: S101 - it was started
        try:
            task = encode("task", self._number + 1, _facts(ctx))
        except CANNOT_ENCODE as error:
            raise InternalError(
                f"the task cannot be sent to a process (did a middleware change it?): {error}"
            ) from None
        self._ctx, self._done = ctx, self._loop.create_future()
        self._number += 1
        self.counts[ctx.skill] += 1
        try:
            self._channel.send(task)
            outcome = await self._outcome(self._done, ctx, grace)
        finally:
            for each in self._answers:
                each.cancel()
            if not self._done.done():
                self.kill()
                await asyncio.wait({self._exited}, timeout=KILL_TIMEOUT)
                if self._done.done():
                    self._done.exception()  # of a crash that we have made: nobody else will look at it
            self._ctx = self._done = None
        if outcome is None:
            raise asyncio.CancelledError("the skill ended because it was cancelled")
        return outcome

    async def _outcome(self, done: asyncio.Future[Outcome | None], ctx: TaskContext, grace: float) -> Outcome | None:
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError:
            if ctx.cancel_reason is None or self._channel is None:
                raise
            self._channel.send(encode("cancel", ctx.cancel_reason.value))
            await asyncio.wait({done}, timeout=grace)
            if not done.done():
                _log.warning(
                    "skill %s did not stop within %g s (task %s: %s); its process %d is killed",
                    ctx.skill,
                    grace,
                    ctx.task_id,
                    ctx.cancel_reason,
                    self.pid,
                    extra={"action": "skill_process_killed", "skill": ctx.skill, "pid": self.pid},
                )
                raise
        return done.result()

    # -------------------------------------------------------------------------------------------------- what it says

    def _take(self, message: Message) -> None:
        """Do what a message says. Raises ValueError or TypeError when it says nothing that is known."""
        verb, *told = message
        handle = self._verbs.get(verb)
        if handle is None:
            raise ValueError(f"a process said {message!r:.200}")
        handle(*told)

    @cached_property
    def _verbs(self) -> dict[str, Callable[..., None]]:
        return {
            "log": _write,
            "tell": self._told,
            "call": self._called,
            "done": self._finished,
            "cancelled": partial(self._settle, None),
            "ready": self._ready,
            "failed": self._failed,
        }

    def _ready(self) -> None:
        if not self._up.done():
            self._up.set_result(None)

    def _failed(self, kind: str, name: str, problem: str) -> None:
        self._refuse(_start_error(kind, name, problem))

    def _told(self, task: int, verb: str, arguments: list[Any]) -> None:
        if self._ctx is not None and task == self._number:
            tell(self._ctx, verb, arguments)

    def _called(self, task: int, number: int, verb: str, arguments: list[Any]) -> None:
        ctx = self._ctx if task == self._number else None
        answering = self._loop.create_task(self._answer(ctx, number, verb, arguments))
        self._answers.add(answering)
        answering.add_done_callback(self._answers.discard)

    def _finished(self, kind: str, parts: dict[str, Any], spent: bool) -> None:
        self.spent = self.spent or spent
        self._settle(decode_outcome(kind, parts))

    def _hear_no_more(self) -> None:
        """Kill it when it goes on without a connection: nobody could tell it anything any more."""
        self._loop.call_later(_LAST_WORDS_TIMEOUT, self.kill)

    def _settle(self, outcome: Outcome | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(outcome)

    def _refuse(self, error: WorkerError) -> None:
        if not self._up.done():
            self._up.set_exception(error)

    async def _answer(self, ctx: TaskContext | None, number: int, verb: str, arguments: list[Any]) -> None:
        try:
            if ctx is None:
                raise InternalError("the task has ended")
            reply = encode("answer", number, True, await answer(ctx, verb, arguments))
        except Exception as error:  # noqa: BLE001 - it is raised over there, in the skill
            reply = encode("answer", number, False, error_parts(error))
        if self._channel is not None and not self._channel.closed:
            self._channel.send(reply)

    # -------------------------------------------------------------------------------------------------- its end

    def _reap(self, popen: subprocess.Popen[bytes]) -> None:
        """Wait for its end, in a thread: what it left of its own children goes with it."""
        code = popen.wait()
        _kill_group(popen.pid)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._take_leave, code)

    def _take_leave(self, code: int) -> None:
        self._last_words.append(self._loop.create_task(self._leave(code)))

    async def _leave(self, code: int) -> None:
        """Hear what it had said before it ended, and tell those who wait."""
        if self._channel is not None:
            await self._channel.wait_closed(_LAST_WORDS_TIMEOUT)
            self._channel.close()
        self._exited.set_result(code)
        came_up = self._up.done() and not self._up.cancelled() and self._up.exception() is None
        self._refuse(ProcessStartError(f"a process for skills ended before it was ready: {_ending(code)}"))
        if self._done is not None and not self._done.done():
            self._done.set_exception(_crash(code, killed=self._killed))
        if came_up:
            self._on_exit(self)


def _start_interpreter(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start a fresh interpreter that holds the other end of the socket pair."""
    with theirs:
        # The package is found there as here; but what it imports itself is never a file of the project's that is called
        # like a module of the standard library.
        path = "\n".join(each or os.getcwd() for each in sys.path)  # noqa: PTH109
        return subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid()), path],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # it can be killed with all that it starts, and Ctrl+C at the terminal is the worker's
        )


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left (macOS: only zombies are)
        os.killpg(pid, signal.SIGKILL)


def _facts(ctx: TaskContext) -> dict[str, Any]:
    return {
        "skill": ctx.skill,
        "task_id": ctx.task_id,
        "job_id": ctx.job_id,
        "params": ctx.params,
        "priority": ctx.priority,
        "deadline": ctx.deadline,
        "metadata": ctx.metadata,
        "security": ctx.security,
        "tracing_context": ctx.tracing_context,
        "params_metadata": ctx.params_metadata,
        "costs": ctx.costs,
    }


def _crash(code: int, *, killed: bool) -> ResourceExhaustedError | TransientError:
    details = {"signal": _signal_name(-code)} if code < 0 else {"exit_code": code}
    if code == -signal.SIGKILL and not killed:  # what the kernel does when memory runs out
        problem = f"the process of the skill was killed ({_signal_name(-code)}); most likely memory ran out"
        return ResourceExhaustedError(problem, details)
    return TransientError(f"the process of the skill ended: {_ending(code)}", details)


def _ending(code: int) -> str:
    return f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _start_error(kind: str, name: str, problem: str) -> WorkerError:
    if kind == "skill":
        return SkillDefinitionError(name, problem)
    return ResourceError(name, problem) if kind == "resource" else ProcessStartError(problem)


def _write(fields: dict[str, Any]) -> None:
    """Hand a record of the process to the worker's loggers."""
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
