"""Figures for the console's charts, kept here: pages come and go, and ended jobs are forgotten."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from avtomatika_worker.devserver.console.shown_program import Program
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.snapshots import JobRecord, JobState, WorkerRecord
from avtomatika_worker.protocol.coerce import as_number, as_object

MINUTES: Final = 30
"""Minutes for which ended runs are counted."""

_SLOTS_FOR: Final = 300.0
"""Seconds for which the slots in use are kept."""

_LOOK: Final = 1.0
"""Seconds between two looks at the slots."""

_DURATIONS: Final = 1000
"""The latest runs of a skill whose durations are compared."""

_SKILLS: Final = 500


class Figures:
    """Runs by minute, durations by skill, and slots in use; ``ended`` and ``look`` are called by the orchestrator.

    Durations and slots are those that the workers measure themselves, where they are known: durations are part of
    results since protocol 1.0b15, the slots those of a program of ours. Otherwise they are seen from outside: from the
    hand-out to the result, and the tasks that were handed out.
    """

    def __init__(self, orchestrator: Orchestrator, program: Program, clock: Callable[[], float]) -> None:
        self._orchestrator = orchestrator
        self._program = program
        self._clock = clock
        self._minutes: dict[int, list[int]] = {}
        self._skills: OrderedDict[str, _Durations] = OrderedDict()
        self._slots: deque[tuple[float, int, int]] = deque()
        self._looked_at = -math.inf

    def slots_of(self, worker: WorkerRecord) -> tuple[int, int | None]:
        """Return how many slots of a worker are in use, and how many there are, None if it has not said so."""
        own = self._program.slots().get(worker.worker_id)
        if own is not None and own[1]:  # it has none before it has begun
            return own
        total = as_number(as_object(worker.registration.get("resources")).get("max_concurrent_tasks"))
        running = len(self._orchestrator.book.running.get(worker.worker_id, ()))
        return running, None if total is None else int(total)

    def ended(self, job: JobRecord) -> None:
        """Count a job that has just ended."""
        now = self._clock()
        minute = self._minutes.setdefault(int(now // 60), [0, 0])
        minute[0 if job.state is JobState.FINISHED else 1] += 1
        for old in [each for each in self._minutes if each <= now // 60 - MINUTES]:
            del self._minutes[old]
        if job.handed_out_at is None or job.state is JobState.CANCELLED:
            return
        durations = self._skills.setdefault(job.skill, _Durations())
        self._skills.move_to_end(job.skill)
        durations.add(_seconds(job, now))
        if len(self._skills) > _SKILLS:
            self._skills.popitem(last=False)

    def look(self) -> None:
        """Look at the slots, once a second at most."""
        now = self._clock()
        if 0 <= now - self._looked_at < _LOOK:
            return
        self._looked_at = now
        slots = [self.slots_of(worker) for worker in self._orchestrator.workers.values()]
        seen = sum(used for used, _ in slots), sum(total or 0 for _, total in slots)
        if not self._slots or self._slots[-1][1:] != seen:
            self._slots.append((now, *seen))
        while len(self._slots) > 1 and self._slots[1][0] <= now - _SLOTS_FOR:
            self._slots.popleft()

    def to_json(self) -> dict[str, Any]:
        """Return the figures: Unix minutes with their runs, slots since when, durations in seconds."""
        return {
            "minutes": [[minute, good, bad] for minute, (good, bad) in sorted(self._minutes.items())],
            "slots": list(self._slots),
            "skills": [[name, *each.figures()] for name, each in sorted(self._skills.items())],
        }


class _Durations:
    """The durations of a skill's latest runs, in seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._latest: deque[float] = deque(maxlen=_DURATIONS)
        self._figures: tuple[int, float, float] | None = None

    def add(self, seconds: float) -> None:
        self._count += 1
        self._latest.append(seconds)
        self._figures = None

    def figures(self) -> tuple[int, float, float]:
        """Return how many there were ever, and the p50 and p95 of the latest."""
        if self._figures is None:
            ordered = sorted(self._latest)
            self._figures = self._count, quantile(ordered, 0.5), quantile(ordered, 0.95)
        return self._figures


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which a share of sorted numbers lies, by nearest rank."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _seconds(job: JobRecord, now: float) -> float:
    """Return how long the last attempt of a job took: as the worker measured it, if its result says so."""
    last = job.results_received[-1] if job.results_received else None
    if last is not None and last.message.get("task_id") == job.task_id:
        own = as_number(as_object(last.message.get("costs")).get("execution_time_seconds"))
        if own is not None and 0 <= own < math.inf:
            return float(own)
    return max(0.0, now - (job.handed_out_at or now))
