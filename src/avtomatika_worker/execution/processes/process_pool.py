"""The worker's processes for skills: started when they are needed, kept, and replaced when they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from avtomatika_worker.errors import InternalError, ProcessStartError, ResourceExhaustedError, TaskError, WorkerError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.outcome import Outcome
from avtomatika_worker.execution.processes.process import KILL_TIMEOUT, Process
from avtomatika_worker.execution.processes.process_spec import ProcessSpec
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT
from avtomatika_worker.files.disk import EXHAUSTED
from avtomatika_worker.skills.skill import Skill

_log: Final = logging.getLogger("avtomatika_worker.processes")


class NoProcessError(Exception):
    """There is no process in which a batch could run. Its cause is each task's failure."""


class Processes:
    """At most ``size`` processes, each with one task at a time. Without a spec no skill needs any.

    With ``prestart`` the first one is started by `open`, else by the first task that needs it.
    """

    def __init__(self, spec: ProcessSpec | None, size: int, *, prestart: bool = True) -> None:
        self._spec = spec
        self._prestart = prestart
        self._size = size
        self._spawner: ThreadPoolExecutor | None = None
        self._all: set[Process] = set()
        self._idle: list[Process] = []
        self._starting = Children()
        self._children = Children()
        self._waiting: deque[asyncio.Future[Process]] = deque()
        self._closed = False
        self._prestarting = asyncio.Lock()

    async def open(self) -> None:
        """Get ready, and start the first process, unless that is left to the first task.

        Raises `SkillDefinitionError`, `ResourceError` or `ProcessStartError`.
        """
        if self._spec is None:
            return
        if sys.platform == "win32":
            raise ProcessStartError("skills with executor='process' need a Unix system")
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
        if self._prestart:
            await self.prestart()

    async def prestart(self) -> None:
        """Start the first process, if there is none: it shows whether skills and resources work there.

        Raises `SkillDefinitionError`, `ResourceError` or `ProcessStartError`.
        """
        async with self._prestarting:
            if self._spawner is not None and not self._all and not self._starting:
                self._offer(await self._start())

    async def run(self, skill: Skill, controls: Controls) -> Outcome:
        """Run a task in a process. Raises a `TaskError` when there is none, or it ends, and ``CancelledError``."""
        async with self._taken(skill) as process:
            return await process.run(controls, skill.options.cancel_grace)

    async def run_batch(self, skill: Skill, batch: Sequence[Controls]) -> list[Outcome | None]:
        """Run tasks in one call, and return their outcomes: None for one that ended because it was cancelled.

        Raises `NoProcessError` when there is no process, `CallFailedError` when the call fails, a `TaskError` when the
        process ends, and ``CancelledError``.
        """
        async with self._taken(skill, batch=True) as process:
            return await process.run_all(batch, skill.options.cancel_grace)

    @contextlib.asynccontextmanager
    async def _taken(self, skill: Skill, *, batch: bool = False) -> AsyncGenerator[Process]:
        """Hold a process; one that is spent, or has had as many tasks as it may, is replaced afterwards."""
        try:
            process = await self._take()
        except TaskError as error:
            if batch:
                raise NoProcessError from error
            raise
        try:
            yield process
        finally:
            most = skill.options.max_tasks_per_child
            if process.spent or (most is not None and process.counts[skill.contract.name] >= most):
                self._retire(process)
            else:
                self._offer(process)

    async def close(self) -> None:
        """End all, in at most `CLOSE_TIMEOUT`; those that run a task are killed."""
        self._closed = True
        for process in self._all - set(self._idle):
            process.kill()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._starting.cancel(CLOSE_TIMEOUT))
            for process in self._idle:
                group.create_task(process.end(CLOSE_TIMEOUT))
        await self.kill()

    async def kill(self) -> None:
        """Kill what is left, and wait until it is gone, along with whatever was started for it."""
        self._closed = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._starting.cancel(KILL_TIMEOUT))
            for process in self._all:
                group.create_task(process.put_down())
        await self._children.cancel(KILL_TIMEOUT)
        if self._spawner is not None:
            self._spawner.shutdown(wait=False)

    # -------------------------------------------------------------------------------------------------- inside

    async def _take(self) -> Process:
        """Return a process that is free; start one, or wait for one."""
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
        place: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        if len(self._starting) < len(self._waiting):  # else one is on its way that nobody else waits for
            self._grow()
        try:
            return await place
        except asyncio.CancelledError:
            if place in self._waiting:
                self._waiting.remove(place)
            if place.done() and not place.cancelled() and place.exception() is None:
                self._offer(place.result())
            raise
        except WorkerError as error:
            cause = error.__cause__
            short = isinstance(cause, OSError) and cause.errno in EXHAUSTED
            raise (ResourceExhaustedError if short else InternalError)(f"no process for the skill: {error}") from error

    def _offer(self, process: Process) -> None:
        """Give a process to whoever has waited longest, or keep it."""
        if not process.alive or self._closed:
            return
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(process)
                return
        self._idle.append(process)

    def _grow(self) -> None:
        """Start another process if there may be one."""
        if self._closed or len(self._all) + len(self._starting) >= self._size:
            return
        self._starting.start_alone(self._start_for_who_waits(), name="start a process for skills")

    async def _start_for_who_waits(self) -> None:
        """Start a process. A start that fails fails one task, that which it was for.

        The others wait for processes that there are, or on their way; where there are none, each has its own attempt.
        """
        while True:
            try:
                self._offer(await self._start())
            except WorkerError as error:
                _log.error(
                    "a process for skills did not start: %s", error, extra={"action": "skill_process_start_failed"}
                )
                self._fail_the_first(error)
                if self._waiting and not self._all and len(self._starting) == 1:
                    continue
            return

    def _fail_the_first(self, error: WorkerError) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)
                return

    async def _start(self) -> Process:
        assert self._spec is not None  # noqa: S101
        assert self._spawner is not None  # noqa: S101
        process = Process(self._ended, self._children)
        await process.start(self._spec, self._spawner)
        if not process.alive:
            raise ProcessStartError("a process for skills ended right after its start")
        self._all.add(process)
        _log.debug(
            "process %d for skills is up", process.pid, extra={"action": "skill_process_started", "pid": process.pid}
        )
        return process

    def _retire(self, process: Process) -> None:
        """Replace a process; the new one is started as soon as the old one is gone."""
        self._children.start_alone(process.end(CLOSE_TIMEOUT), name="end a process for skills")

    def _ended(self, process: Process) -> None:
        """Replace a process that has ended. One that had run nothing is replaced only when a task needs it.

        Otherwise one that cannot live would be restarted indefinitely.
        """
        self._all.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        _log.debug(
            "process %d for skills is gone", process.pid, extra={"action": "skill_process_gone", "pid": process.pid}
        )
        if self._waiting or process.counts:
            self._grow()
