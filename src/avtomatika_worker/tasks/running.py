"""The tasks that run, and how they are cancelled: before they have come, too."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from avtomatika_worker import threadsafe
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.execution import Execution
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.link.link import Link
from avtomatika_worker.policy.recent import Recent
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.tasks.limits import Permit
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.task")

EARLY_CANCEL: Final = 5.0
"""Seconds for which a cancellation that names no running task is remembered."""

EARLY_CANCELS: Final = 10_000
"""How many of them are remembered; of more, the newest."""


@dataclass(slots=True, eq=False)
class RunningTask:
    """A task whose result is not delivered yet, and where it came from."""

    link: Link
    task: Task
    execution: Execution
    has_slot: bool
    turn: Permit | None
    arrived: float
    finished: bool = False

    @property
    def controls(self) -> Controls:
        """The task's controls."""
        return self.execution.controls

    @property
    def ctx(self) -> TaskContext:
        """The task's context."""
        return self.execution.ctx


class RunningTasks:
    """The tasks whose results are not delivered yet."""

    def __init__(self, world: World = REAL) -> None:
        self._monotonic = world.monotonic
        self._tasks: dict[tuple[Link, str], RunningTask] = {}
        self._skills: threadsafe.Multiset[str] = threadsafe.Multiset()
        self._cancelled_early = Recent(EARLY_CANCEL, EARLY_CANCELS)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, running: RunningTask) -> None:
        """Take in a task; one that was cancelled before it came is cancelled now."""
        self._tasks[running.link, running.task.task_id] = running
        self._skills.add(running.task.type)
        if len(self._cancelled_early) and self._was_cancelled_early(running.link, running.task):
            self._cancel_some([running], CancelReason.REQUESTED)

    def remove(self, running: RunningTask) -> None:
        """Leave a task out, unless another one has come under its id since."""
        self._skills.remove(running.task.type)
        key = (running.link, running.task.task_id)
        if self._tasks.get(key) is running:
            del self._tasks[key]

    def find(self, link: Link, task_id: str) -> RunningTask | None:
        """Return the task of ``link`` with this id, if it is among them."""
        return self._tasks.get((link, task_id))

    def job_ids(self) -> Iterable[str]:
        """Return the ids of their jobs."""
        return (running.task.job_id for running in self._tasks.values())

    def skills(self) -> list[str]:
        """Return the names of their skills. May be asked from any thread, while the main loop is blocked too."""
        return self._skills.distinct()

    def cancel(self, link: Link, ids: tuple[str, ...], reason: CancelReason) -> None:
        """Stop the tasks of ``link`` that one of the ``ids`` (task or job ids) names.

        All but ids of tasks that run are remembered for a while: a cancellation can overtake the task itself, and some
        of a job's tasks may run while others are on their way.
        """
        running = [each for each in self._tasks.values() if each.link is link]
        tasks = {each.task.task_id for each in running if each.task.task_id != each.task.job_id}
        known = set[str]().union(*map(_ids, running))
        self._cancelled_early.remember(((link, each) for each in ids if each not in tasks), self._monotonic())
        if not known.isdisjoint(ids):
            wanted = frozenset(ids)
            self._cancel_some((each for each in running if not wanted.isdisjoint(_ids(each))), reason)

    def cancel_all(self, reason: CancelReason, link: Link | None = None) -> None:
        """Stop every task, or every one of ``link``."""
        self._cancel_some((each for each in self._tasks.values() if link is None or each.link is link), reason)

    @staticmethod
    def _cancel_some(chosen: Iterable[RunningTask], reason: CancelReason) -> None:
        for running in list(chosen):
            ctx = running.ctx
            if not ctx.cancelled:
                _log.info("task %s is being cancelled: %s", ctx.task_id, reason, extra={"action": "task_cancelling"})
                running.execution.cancel(reason)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the running task ``task_id`` should stop."""
        return any(running.ctx.task_id == task_id and running.ctx.cancelled for running in self._tasks.values())

    @property
    def longest_grace(self) -> float:
        """Seconds that the tasks which run now may need to end once they are cancelled."""
        return max((running.execution.grace for running in self._tasks.values()), default=0.0)

    def _was_cancelled_early(self, link: Link, task: Task) -> bool:
        """Whether the task was cancelled before it came. A job's id stands for all of its tasks that may come yet."""
        now = self._monotonic()
        by_job = self._cancelled_early.knows((link, task.job_id), now)
        return by_job or self._cancelled_early.take([(link, task.task_id)], now)


def _ids(running: RunningTask) -> set[str]:
    return {running.task.task_id, running.task.job_id}
