"""Kills of an orchestrator and a worker at random moments, each started again."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.soak import processes
from bench.soak.processes import Victim


@dataclass(frozen=True)
class Timetable:
    """How long a run is disturbed, and how often each process ends; in seconds."""

    seed: int
    seconds: float
    kill_every: float

    def moments(self, victim: str) -> list[float]:
        """Return when a process is killed, counted from the start: one moment in each stretch, drawn by chance."""
        chance = random.Random(f"{self.seed}/moments/{victim}")
        number = max(1, round(self.seconds / self.kill_every))
        return [(turn + chance.random()) * self.seconds / number for turn in range(number)]


class Disturbance:
    """Ends both processes at random moments and starts them again."""

    def __init__(self, timetable: Timetable, directory: Path, worker: Victim, other: Victim) -> None:
        self._timetable = timetable
        self._directory = directory
        self._worker = worker
        self._other = other
        self._began = time.monotonic()
        self._busy = asyncio.Lock()  # two ends of the worker do not overlap

    async def go_on(self) -> None:
        """Disturb for as long as the timetable says."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kill_orchestrator())
            group.create_task(self._end_worker())
        await self._reach(self._timetable.seconds)

    async def _reach(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, self._began + moment - time.monotonic()))

    async def _kill_orchestrator(self) -> None:
        """Kill it, for up to 8 s; while it is away for long the worker is killed as well, with results on disk."""
        chance = random.Random(f"{self._timetable.seed}/orchestrator")
        for moment in self._timetable.moments("orchestrator"):
            await self._reach(moment)
            await self._other.end(signal.SIGKILL)
            away = chance.choice([0.0, 0.1, 1.0, 4.0, 8.0])
            await asyncio.sleep(away / 2)
            if away > 1.0:
                await self._worker_once(signal.SIGKILL, 0.0)
            await asyncio.sleep(away / 2)
            await self._other.start()

    async def _end_worker(self) -> None:
        """Kill it two times in three, and ask it to end else; the first end is a kill, the second an orderly one."""
        chance = random.Random(f"{self._timetable.seed}/worker")
        for turn, moment in enumerate(self._timetable.moments("worker")):
            await self._reach(moment)
            orderly = turn == 1 or (turn > 1 and chance.random() < 1 / 3)
            await self._worker_once(signal.SIGTERM if orderly else signal.SIGKILL, chance.choice([0.0, 0.5, 2.0]))

    async def _worker_once(self, number: signal.Signals, pause: float) -> None:
        async with self._busy:
            life = await self._worker.end(number)
            life.stored = await asyncio.to_thread(processes.stored, self._directory, "result")
            await asyncio.sleep(pause)
            await self._worker.start()


async def until(done: Callable[[], bool], limit: float) -> bool:
    """Wait until that is so; return whether it came to be within ``limit`` seconds."""
    ends = time.monotonic() + limit
    while not await asyncio.to_thread(done):
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.2)
    return True
