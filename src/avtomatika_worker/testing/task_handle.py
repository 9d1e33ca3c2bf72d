"""A task in progress, for tests to watch, cancel and wait for."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final

from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord, JobState, Progress
from avtomatika_worker.testing.local_storage import Storage
from avtomatika_worker.testing.result import SeenEvent, SkillResult, events_of, progress_of, result_of
from avtomatika_worker.testing.streamed import ChunkReader

RUN_TIMEOUT: Final = 30.0
"""Default limit for a task, in seconds."""


class RunningTask:
    """A task in progress. ``job`` is the orchestrator's record of it."""

    def __init__(
        self,
        job: JobRecord,
        orchestrator: EmbeddedOrchestrator,
        unless_ended: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]],
        storage: Storage,
        reader: ChunkReader,
    ) -> None:
        self.job: JobRecord = job
        self._reader = reader
        self._storage = storage
        self._orchestrator = orchestrator
        self._unless_ended = unless_ended

    @property
    def events(self) -> tuple[SeenEvent, ...]:
        """The skill's own events that have arrived so far."""
        return events_of(self.job)

    @property
    def progress(self) -> tuple[Progress, ...]:
        """The progress that has arrived so far."""
        return progress_of(self.job)

    def cancel(self) -> bool:
        """Cancel the task, as a client of the orchestrator would. Returns False if it has ended."""
        return self._orchestrator.cancel(self.job.job_id)

    async def result(self, timeout: float | None = RUN_TIMEOUT) -> SkillResult:
        """Wait for the task's end and return its result.

        A cancelled task has ended when its skill has. Raises TimeoutError with the task's state.
        """
        await self._until(lambda: _settled(self.job), timeout, "has not ended")
        return result_of(self.job, self._storage)

    async def stream(self, timeout: float | None = RUN_TIMEOUT) -> AsyncGenerator[Any]:
        """Yield what the skill yields, as it arrives, until the task ends; how it ended is in its `result`.

        Raises TimeoutError if nothing comes for ``timeout`` seconds, and ValueError for a skill that does not yield.
        """
        if not self._reader.streams:
            raise ValueError(f"skill {self.job.skill!r} does not yield: it is no generator")
        last: str | None = None
        while events := await self._events_after(last, timeout):
            last = str(events[-1].get("event_id"))
            for event in filter(self._reader.is_chunk, events):
                for chunk in self._reader.read(event):
                    yield chunk

    async def _events_after(self, last: str | None, timeout: float | None) -> list[dict[str, Any]]:
        """Wait for events after the ``last`` one that was read; there are none once the task has ended."""

        def fresh() -> list[dict[str, Any]]:  # of many events, the orchestrator forgets the first
            newest_first = reversed(self.job.events)
            return list(itertools.takewhile(lambda event: event.get("event_id") != last, newest_first))[::-1]

        await self._until(lambda: fresh() or _settled(self.job), timeout, "yielded nothing")
        return fresh()

    async def wait_for_event(self, event_type: str, timeout: float | None = RUN_TIMEOUT) -> SeenEvent:
        """Wait for the first event of a type and return it. Raises TimeoutError, or LookupError if the task ends."""

        def found() -> SeenEvent | None:
            return next((each for each in self.events if each.type == event_type), None)

        await self._until(lambda: found() or self.job.state.final, timeout, f"sent no event {event_type!r}")
        return found() or result_of(self.job, self._storage).event(event_type)

    async def wait_for_progress(self, fraction: float = 0.0, timeout: float | None = RUN_TIMEOUT) -> Progress:
        """Wait for progress of at least ``fraction``, or for any progress, and return it.

        Raises TimeoutError, or LookupError if the task ends first.
        """

        def found() -> Progress | None:
            return next((each for each in self.progress if each.fraction >= fraction), None)

        await self._until(lambda: found() or self.job.state.final, timeout, f"has not reached {fraction:g}")
        reached = found()
        if reached is None:
            raise LookupError(f"the task ended before it reached {fraction:g}: {self.job.describe()}")
        return reached

    async def _until(self, predicate: Callable[[], object], timeout: float | None, problem: str) -> None:
        began = time.monotonic()
        try:
            await self._unless_ended(self._orchestrator.wait_for(predicate, timeout))
        except TimeoutError as error:
            waited = time.monotonic() - began
            raise TimeoutError(f"{self.job.skill} {problem} after {waited:.1f} s: {self.job.describe()}") from error


def _settled(job: JobRecord) -> bool:
    """Whether both the job and its skill have ended: an orchestrator cancels without waiting for the worker."""
    if not job.state.final:
        return False
    if job.attempts == 0 or job.state is JobState.FINISHED:
        return True
    return any(received.message["task_id"] == job.task_id for received in job.results_received)
