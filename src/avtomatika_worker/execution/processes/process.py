"""One skill process, as the worker sees it. Used on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Final

from avtomatika_worker.errors import (
    InternalError,
    ProcessStartError,
    TransientError,
    WorkerError,
)
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.outcome import CancelReason, Failed, Outcome
from avtomatika_worker.execution.processes.calls import answer, notify
from avtomatika_worker.execution.processes.endings import CallFailedError, crash, ending, start_error
from avtomatika_worker.execution.processes.interpreter import kill_group, send_signal, start_interpreter
from avtomatika_worker.execution.processes.parent_channel import ParentChannel
from avtomatika_worker.execution.processes.process_spec import ProcessSpec
from avtomatika_worker.execution.processes.wire import CANNOT_ENCODE, Message, decode_outcome, encode, error_parts

_log: Final = logging.getLogger("avtomatika_worker.processes")

KILL_TIMEOUT: Final = 1.0
"""Seconds within which a killed process is expected to be gone."""

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LAST_WORDS_TIMEOUT: Final = 1.0
"""Seconds to read what a process wrote before it ended; its children may hold the socket open for longer."""


class Process:
    """A skill process. ``on_exit`` is called once it has ended, for whatever reason, unless it never became ready."""

    def __init__(self, on_exit: Callable[[Process], None], children: Children | None = None) -> None:
        """``children`` are those of the owner, which waits for what this process leaves running."""
        self.counts: Counter[str] = Counter()
        self.spent: bool = False
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._popen: subprocess.Popen[bytes] | None = None
        self._given_up = False
        self._channel: ParentChannel | None = None
        self._up: asyncio.Future[None] = self._loop.create_future()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._done: asyncio.Future[None] | None = None
        self._tasks: dict[int, Controls] = {}
        self._outcomes: dict[int, Outcome | None] = {}
        self._last = 0
        self._killed = False
        self._answers = Children()
        self._children = children or Children()

    @property
    def pid(self) -> int:
        """The process id; its guard's until the process has sent something."""
        if self._channel is not None and self._channel.pid:
            return self._channel.pid
        return self._popen.pid if self._popen is not None else 0

    @property
    def alive(self) -> bool:
        """Whether it can take a task."""
        if self._killed or self._exited.done() or not self._up.done():
            return False
        return self._channel is not None and not self._channel.closed

    # -------------------------------------------------------------------------------------------------- life

    async def start(self, spec: ProcessSpec, spawner: Executor, environ: Mapping[str, str] = _NOTHING) -> None:
        """Start it, and wait until it is ready. It is gone when this raises.

        ``spawner`` runs in a thread that lives as long as the process: the system kills the process when that thread
        ends. ``environ`` are variables that it has besides the worker's. Raises `SkillDefinitionError`, `ResourceError`
        or `ProcessStartError`.
        """
        try:
            await self._come_up(spec, spawner, environ)
        except BaseException as error:
            await self.put_down()
            if isinstance(error, WorkerError) or not isinstance(error, Exception):
                raise
            text = f"a skill process cannot be started: {type(error).__name__}: {error}"
            raise ProcessStartError(text) from error

    async def _come_up(self, spec: ProcessSpec, spawner: Executor, environ: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            await self._spawned(theirs, spawner, environ)
            channel = ParentChannel(
                self._take, self._disconnected, on_garbled=self._garbled, on_stranger=self._heard_stranger
            )
            self._channel = channel
            await self._loop.create_unix_connection(lambda: channel, sock=ours)
        except BaseException:
            ours.close()  # nothing else may; if the channel has it, it is closed twice, which is harmless
            raise
        channel.send(encode("setup", spec.message(environ)))
        await self._up

    async def _spawned(self, theirs: socket.socket, spawner: Executor, environ: Mapping[str, str]) -> None:
        try:
            spawning = self._loop.run_in_executor(spawner, self._spawn, theirs, environ)
        except BaseException:
            theirs.close()
            raise
        try:
            await asyncio.shield(spawning)
        except asyncio.CancelledError:
            self._given_up = True
            self.kill()
            await asyncio.wait({spawning}, timeout=KILL_TIMEOUT)
            raise

    def _spawn(self, theirs: socket.socket, environ: Mapping[str, str]) -> None:
        """Start it, in a thread that the loop may not outlive: whoever starts a process sees to its end."""
        popen = start_interpreter(theirs, environ)
        try:
            threading.Thread(target=self._reap, args=(popen,), name=f"reap {popen.pid}", daemon=True).start()
        except BaseException:  # no more threads can be started: nothing else would wait for its end
            popen.kill()
            popen.wait()
            raise
        self._popen = popen
        if self._given_up:  # read after the line above; the other thread sets it before reading `_popen`
            self.kill()

    async def end(self, timeout: float) -> None:
        """Let it close its resources and exit; kill it after ``timeout`` seconds."""
        if self._channel is not None and not self._channel.closed:
            self._channel.send(encode("end"))
            await asyncio.wait({self._exited}, timeout=timeout)
            if not self._exited.done():
                _log.error(
                    "skill process %d did not close its resources within %g s; killing it",
                    self.pid,
                    timeout,
                    extra={"action": "skill_process_close_failed", "pid": self.pid},
                )
        await self.put_down()

    def kill(self) -> None:
        """Kill it and whatever it has started."""
        if self._popen is not None and not self._exited.done():
            self._killed = True
            send_signal(self._popen.pid, signal.SIGTERM)  # its guard kills it and everything it started

    async def put_down(self) -> None:
        """Kill it, and wait until it is gone."""
        self.kill()
        if self._popen is not None:
            await asyncio.wait({self._exited}, timeout=KILL_TIMEOUT)
            if not self._exited.done():
                send_signal(self._popen.pid, signal.SIGKILL)
        await self._answers.cancel(KILL_TIMEOUT)
        if self._channel is not None:
            self._channel.close()
        if not self._up.cancel() and not self._up.cancelled():
            self._up.exception()  # perhaps nothing has retrieved it

    # -------------------------------------------------------------------------------------------------- tasks

    async def run(self, controls: Controls, grace: float) -> Outcome:
        """Run a task and return its outcome. On cancellation the skill has ``grace`` seconds before a kill.

        Raises a `TaskError` if the process ends, and ``CancelledError``. On return the process is idle or dead.
        """
        (outcome,) = await self.run_all([controls], grace)
        if outcome is None:
            raise asyncio.CancelledError("the skill ended because it was cancelled")
        return outcome

    async def run_all(self, batch: Sequence[Controls], grace: float) -> list[Outcome | None]:
        """Run a task or a batch, and return the outcomes: None for a task that ended because it was cancelled.

        Like `run`, but also raises `CallFailedError` when the call for a batch fails.
        """
        assert self._channel is not None  # noqa: S101 - it was started
        first = self._last + 1
        task = _encoded(first, batch)
        self._tasks, self._outcomes, self._done = dict(enumerate(batch, first)), {}, self._loop.create_future()
        self._last += len(batch)
        self.counts.update(each.task.type for each in batch)
        try:
            self._channel.send(task)
            for number, controls in self._tasks.items():
                controls.preempting.forward = partial(self._channel.send, encode("preempt", number))
                controls.cancelling.forward(partial(self._cancel, number))
            await self._ended(self._done, grace)
            return [self._outcomes[number] for number in self._tasks]
        finally:
            for controls in batch:
                controls.preempting.forward = None
                controls.cancelling.forward(None)
            done, self._tasks, self._done = self._done, {}, None
            if not done.done():
                self.kill()
                await asyncio.wait({self._exited}, timeout=KILL_TIMEOUT)
            elif not done.cancelled():
                done.exception()  # retrieve it: a crash may coincide with a cancellation
            await self._answers.cancel(KILL_TIMEOUT)

    def _cancel(self, number: int, reason: CancelReason) -> None:
        if self._channel is not None:
            self._channel.send(encode("cancel", number, reason.value))

    async def _ended(self, done: asyncio.Future[None], grace: float) -> None:
        try:
            await asyncio.wait({done})
        except asyncio.CancelledError:
            if any(each.cancelling.reason is None for each in self._tasks.values()):
                raise
            await asyncio.wait({done}, timeout=grace)
            if not done.done():
                self._log_kill(grace)
                raise
        done.result()

    def _log_kill(self, grace: float) -> None:
        for controls in self._tasks.values():
            task, reason = controls.task, controls.cancelling.reason
            _log.warning(
                "skill %s did not stop within %g s (task %s: %s); killing its process %d",
                task.type,
                grace,
                task.task_id,
                reason,
                self.pid,
                extra={"action": "skill_process_killed", "skill": task.type, "pid": self.pid},
            )

    # -------------------------------------------------------------------------------------------------- what it says

    def _take(self, message: Message) -> None:
        """Handle a message. Raises ValueError or TypeError for an unknown one."""
        verb, *arguments = message
        handle = self._verbs.get(verb)
        if handle is None:
            raise ValueError(f"unknown message {message!r:.200}")
        handle(*arguments)

    @cached_property
    def _verbs(self) -> dict[str, Callable[..., None]]:
        return {
            "log": _write,
            "report": self._reported,
            "call": self._called,
            "done": self._finished,
            "cancelled": partial(self._settle, None),
            "broke": self._broke,
            "ready": self._ready,
            "failed": self._failed,
        }

    def _ready(self) -> None:
        if not self._up.done():
            self._up.set_result(None)

    def _failed(self, kind: str, name: str, problem: str) -> None:
        self._refuse(start_error(kind, name, problem))

    def _reported(self, task: int, verb: str, arguments: list[Any]) -> None:
        if (controls := self._tasks.get(task)) is not None:
            notify(controls, verb, arguments)

    def _called(self, task: int, number: int, verb: str, arguments: list[Any]) -> None:
        work = self._answer(self._tasks.get(task), number, verb, arguments)
        self._answers.start_alone(work, name=f"answer a process: {verb}")

    def _finished(self, task: int, kind: str, parts: dict[str, Any], spent: bool) -> None:
        self.spent = self.spent or spent
        self._settle(decode_outcome(kind, parts), task)

    def _broke(self, first: int, parts: dict[str, Any], short: bool, spent: bool) -> None:
        failure = decode_outcome(Failed.__name__, parts)
        assert isinstance(failure, Failed)  # noqa: S101 - as requested
        self.spent = self.spent or spent or first not in self._tasks
        if first in self._tasks and self._done is not None and not self._done.done():
            self._done.set_exception(CallFailedError(failure, short=short))

    def _garbled(self, problem: str) -> None:
        """Fail the task: there is no way to find the start of the next message."""
        self.spent = True
        if self._done is not None and not self._done.done():
            self._done.set_exception(
                TransientError("the skill's process wrote to the worker's socket", {"problem": problem[:200]})
            )
        self.kill()

    def _heard_stranger(self, pid: int) -> None:
        """Replace a process whose socket another process is using: messages from that one belong to no task."""
        if not self.spent:
            _log.warning(
                "process %d, forked by a skill, is using the socket of skill process %d; replacing the skill process",
                pid,
                self.pid,
                extra={"action": "skill_process_stranger", "pid": self.pid},
            )
        self.spent = True

    def _disconnected(self) -> None:
        """Kill it if it keeps running without a connection, as nothing could reach it."""
        self._loop.call_later(_LAST_WORDS_TIMEOUT, self.kill)

    def _settle(self, outcome: Outcome | None, task: int) -> None:
        if task not in self._tasks:
            self.spent = True  # the process is confused about what it runs
            return
        self._outcomes[task] = outcome
        if len(self._outcomes) == len(self._tasks) and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _refuse(self, error: WorkerError) -> None:
        if not self._up.done():
            self._up.set_exception(error)

    async def _answer(self, controls: Controls | None, number: int, verb: str, arguments: list[Any]) -> None:
        try:
            if controls is None:
                raise InternalError("the task has ended")
            reply = encode("answer", number, True, await answer(controls, verb, arguments))
        except Exception as error:  # noqa: BLE001 - re-raised in the skill, on the other side
            reply = encode("answer", number, False, error_parts(error))
        if self._channel is not None and not self._channel.closed:
            self._channel.send(reply)

    # -------------------------------------------------------------------------------------------------- its end

    def _reap(self, popen: subprocess.Popen[bytes]) -> None:
        """Wait for it to end, in a thread, and then kill the children that it left behind."""
        code = popen.wait()
        if self._channel is not None and self._channel.pid:  # in case the guard was killed
            kill_group(self._channel.pid)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is waiting
            self._loop.call_soon_threadsafe(self._take_leave, code)

    def _take_leave(self, code: int) -> None:
        self._children.start_alone(self._leave(code), name="read the last messages of a skill process")

    async def _leave(self, code: int) -> None:
        """Handle the messages that it sent before it ended, and wake the waiters."""
        if self._channel is not None:
            await self._channel.wait_closed(_LAST_WORDS_TIMEOUT)
            self._channel.close()
        self._exited.set_result(code)
        came_up = self._up.done() and not self._up.cancelled() and self._up.exception() is None
        self._refuse(ProcessStartError(f"a skill process ended before it was ready: {ending(code)}"))
        if self._done is not None and not self._done.done():
            self._done.set_exception(crash(code, killed=self._killed))
        if came_up:
            self._on_exit(self)


def _encoded(first: int, batch: Sequence[Controls]) -> bytes:
    """Return the message for tasks. Raises `InternalError` if they cannot be encoded."""
    facts = [{"task": each.task, "costs": each.costs, "preempted": each.preempting.noticed} for each in batch]
    try:
        return encode("task", first, facts)
    except CANNOT_ENCODE as error:
        raise InternalError(
            f"the task cannot be sent to a skill process (did a middleware change it?): {error}"
        ) from None


def _write(fields: dict[str, Any]) -> None:
    """Pass a record from the process to the worker's loggers."""
    record = logging.makeLogRecord(fields)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
