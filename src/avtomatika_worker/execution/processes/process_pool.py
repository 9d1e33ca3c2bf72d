"""The worker's skill processes: started on demand, kept, and replaced when they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.errors import InternalError, ProcessStartError, ResourceExhaustedError, TaskError, WorkerError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.outcome import Outcome
from avtomatika_worker.execution.processes.process import KILL_TIMEOUT, Process
from avtomatika_worker.execution.processes.process_room import Holding, ProcessRoom
from avtomatika_worker.execution.processes.process_spec import ProcessSpec
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT
from avtomatika_worker.files.disk import EXHAUSTED
from avtomatika_worker.skills.skill import Skill

_log: Final = logging.getLogger("avtomatika_worker.processes")


class NoProcessError(Exception):
    """There is no process in which to run a batch. Its cause is the failure of each task."""


@dataclass(eq=False, slots=True)
class _Place:
    """A place in the line for a process that has ``gpus`` devices: 0 for one that is given none."""

    gpus: float
    process: asyncio.Future[Process]


class Processes:
    """The processes, each with one task at a time. Without a spec no skill needs any.

    ``specs`` say what to make a process of that is given so many devices, or none (0); there are as many as ``room``
    allows. With ``prestart`` the first one of each kind is started by `open`, as far as there is room, else by the
    first task that needs it. ``make`` makes a process that is not started yet.
    """

    def __init__(
        self,
        specs: Mapping[float, ProcessSpec],
        room: ProcessRoom,
        *,
        prestart: bool = True,
        make: Callable[[Callable[[Process], None], Children], Process] = Process,
    ) -> None:
        self._specs = specs
        self._room = room
        self._prestart = prestart
        self._make = make
        self._spawner: ThreadPoolExecutor | None = None
        self._all: dict[Process, Holding] = {}
        self._idle: list[Process] = []
        self._leaving: set[Process] = set()
        self._starting = Children()
        self._coming: Counter[float] = Counter()
        self._most: Counter[float] = Counter()
        self._children = Children()
        self._line: list[_Place] = []
        self._closed = False
        self._prestarting = asyncio.Lock()

    async def open(self) -> None:
        """Get ready, and start the first process of each kind, unless that is left to the first task.

        Raises `SkillDefinitionError`, `ResourceError` or `ProcessStartError`.
        """
        if not self._specs:
            return
        if sys.platform == "win32":
            raise ProcessStartError("skills with executor='process' need a Unix system")
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
        if self._prestart:
            await self.prestart()

    async def prestart(self) -> None:
        """Start the first process of each kind, if there is none: it shows whether skills and resources work there.

        Raises `SkillDefinitionError`, `ResourceError` or `ProcessStartError`.
        """
        async with self._prestarting:
            for gpus in self._specs if self._spawner is not None else ():
                if self._coming[gpus] or any(each.gpus == gpus for each in self._all.values()):
                    continue
                if (holding := self._room.take(gpus)) is None:  # others have the devices
                    continue
                try:
                    process = await self._start(holding)
                except BaseException:
                    self._serve()  # tasks that have come meanwhile
                    raise
                self._note_most(gpus)
                self._offer(process)

    async def run(self, skill: Skill, controls: Controls) -> Outcome:
        """Run a task in a process. Raises a `TaskError` if none can be started or it ends, and ``CancelledError``."""
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
        """Hold a process; afterwards, replace it if it is spent or has reached ``max_tasks_per_child``."""
        try:
            process = await self._take(skill.options.gpus or 0)
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
        """End all processes within `CLOSE_TIMEOUT`; kill those that are running a task."""
        self._closed = True
        ending = {*self._idle, *self._leaving}
        for process in self._all.keys() - ending:
            process.kill()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._starting.cancel(CLOSE_TIMEOUT))
            for process in ending:
                group.create_task(process.end(CLOSE_TIMEOUT))
        await self.kill()

    async def kill(self) -> None:
        """Kill all processes that are left, and wait until they and everything started for them are gone."""
        self._closed = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._starting.cancel(KILL_TIMEOUT))
            for process in self._all:
                group.create_task(process.put_down())
        await self._children.cancel(KILL_TIMEOUT)
        if self._spawner is not None:
            self._spawner.shutdown(wait=False)

    # -------------------------------------------------------------------------------------------------- inside

    async def _take(self, gpus: float) -> Process:
        """Return a process that is free; start one, or wait for one."""
        if not self._line and (process := self._pick(gpus)) is not None:
            return process
        place = _Place(gpus, asyncio.get_running_loop().create_future())
        self._line.append(place)
        self._serve()
        try:
            return await place.process
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            if place.process.done() and not place.process.cancelled() and place.process.exception() is None:
                self._offer(place.process.result())
            else:
                self._serve()  # others may have waited for what was kept for this one
            raise
        except WorkerError as error:
            cause = error.__cause__
            short = isinstance(cause, OSError) and cause.errno in EXHAUSTED
            raise (ResourceExhaustedError if short else InternalError)(f"no process for the skill: {error}") from error

    def _offer(self, process: Process) -> None:
        """Give a process to whoever has waited longest, or keep it."""
        if process.alive and not self._closed:
            self._idle.append(process)
            self._serve()

    def _serve(self, *, but: Iterable[float] = ()) -> bool:
        """Give those who wait the processes that are free, the first in line before others, and begin to start more.

        Nobody gets a device that someone before them waits for: processes that are not used make room. None with
        ``but`` devices is started. Return whether anyone waits for devices that others have.
        """
        if self._closed or not self._line:
            return False
        coming, blocked, unserved = self._coming.copy(), False, set(but)
        for place in [*self._line]:
            if len(unserved) == len(self._specs):
                break
            if place.process.done():  # cancelled
                self._line.remove(place)
            elif place.gpus in unserved:
                continue
            elif (process := self._pick(place.gpus)) is not None:
                self._line.remove(place)
                place.process.set_result(process)
            elif coming[place.gpus] > 0:
                coming[place.gpus] -= 1
            elif (place.gpus and blocked) or (holding := self._room.take(place.gpus)) is None:
                unserved.add(place.gpus)
                blocked = blocked or self._make_room(place.gpus)
            else:
                self._begin(holding)
        return blocked

    def _pick(self, gpus: float) -> Process | None:
        """Return a process that is free and has ``gpus`` devices: the one that was used last."""
        for process in reversed(self._idle):
            if process.alive and self._all[process].gpus == gpus:
                self._idle.remove(process)
                return process
        return None

    def _make_room(self, gpus: float) -> bool:
        """End processes that nobody uses, those that were used least recently first, as far as ``gpus`` need it.

        Return whether it is devices that are missing.
        """
        if not gpus:
            return False
        idle = [each for each in self._idle if self._all[each].gpus and each.alive]
        leaving = [of for each, of in self._all.items() if each in self._leaving or not each.alive]
        for position in self._room.reclaim(gpus, leaving, [self._all[each] for each in idle]):
            self._idle.remove(idle[position])
            self._retire(idle[position])
        return True

    def _begin(self, holding: Holding) -> None:
        gpus = holding.gpus
        self._coming[gpus] += 1
        self._note_most(gpus)
        self._starting.start_alone(self._start_for_who_waits(holding), name="start a skill process")

    def _note_most(self, gpus: float) -> None:
        self._most[gpus] = max(self._most[gpus], self._count(gpus))

    def _count(self, gpus: float) -> int:
        """Return how many processes there are with ``gpus`` devices, and are going to be, but for those that leave."""
        staying = self._all.keys() - self._leaving
        return self._coming[gpus] + sum(self._all[each].gpus == gpus for each in staying)

    async def _start_for_who_waits(self, holding: Holding) -> None:
        """Start a process. A start that fails fails one task, that which it was for.

        The other tasks wait for processes that exist or are starting; if there are none, each gets its own attempt.
        """
        gpus = holding.gpus
        try:
            process = await self._start(holding)
        except WorkerError as error:
            self._coming[gpus] -= 1
            _log.error("a skill process did not start: %s", error, extra={"action": "skill_process_start_failed"})
            self._fail_the_first(gpus, error)
            others = self._coming[gpus] or any(each.gpus == gpus for each in self._all.values())
            self._serve(but=[gpus] if others else [])
        except BaseException:
            self._coming[gpus] -= 1
            raise
        else:
            self._coming[gpus] -= 1
            self._offer(process)

    def _fail_the_first(self, gpus: float, error: WorkerError) -> None:
        for place in [each for each in self._line if each.gpus == gpus]:
            self._line.remove(place)
            if not place.process.done():
                place.process.set_exception(error)
                return

    async def _start(self, holding: Holding) -> Process:
        """Start a process that has this. Raises what `Process.start` raises; it is gone, and has nothing, then."""
        assert self._spawner is not None  # noqa: S101
        process = self._make(self._ended, self._children)
        try:
            await process.start(self._specs[holding.gpus], self._spawner, holding.environ)
            if not process.alive:
                await process.put_down()  # it may be there still, on its devices
                raise ProcessStartError("a skill process ended right after its start")
        except BaseException:
            self._room.give_back(holding)
            raise
        self._all[process] = holding
        _log.debug(
            "skill process %d is up",
            process.pid,
            extra={"action": "skill_process_started", "pid": process.pid, "devices": [*holding.labels]},
        )
        return process

    def _retire(self, process: Process) -> None:
        """Replace a process; the new one is started as soon as the old one is gone."""
        if process not in self._all:  # it is gone
            return
        self._leaving.add(process)
        self._children.start_alone(process.end(CLOSE_TIMEOUT), name="end a skill process")

    def _ended(self, process: Process) -> None:
        """Replace a process that has ended, unless others make up the most that were needed at once.

        One that never ran a task is replaced only once a task needs it: a process that always fails would be restarted
        indefinitely.
        """
        self._leaving.discard(process)
        if process in self._idle:
            self._idle.remove(process)
        _log.debug(
            "skill process %d has ended", process.pid, extra={"action": "skill_process_gone", "pid": process.pid}
        )
        if (holding := self._all.pop(process, None)) is None:  # it has never been one of them
            return
        self._room.give_back(holding)
        gpus = holding.gpus
        blocked = self._serve()
        if self._closed or self._count(gpus) >= self._most[gpus] or (gpus and blocked):
            return  # nobody needs another, or its room is somebody's
        if process.counts and (again := self._room.take(gpus)) is not None:
            self._begin(again)
