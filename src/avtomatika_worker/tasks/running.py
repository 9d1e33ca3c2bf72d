"""The running tasks, and their cancellation, even before they arrive."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.execution import Execution
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.link.link import Link
from avtomatika_worker.policy.recent import Recent
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.tasks.events import TaskEvents
from avtomatika_worker.tasks.limits import Admission
from avtomatika_worker.tasks.overview import Overview, ShownTask
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.task")

EARLY_CANCEL: Final = 5.0
"""Seconds to remember a cancellation that matches no running task."""

MOST_HAND_OUTS: Final = 64
"""Maximum number of a task's hand-outs to remember, newest first."""

EARLY_CANCELS: Final = 10_000
"""Maximum number of such cancellations to remember, newest first."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class RunningTask:
    """A task whose result is not delivered yet, and its origin.

    ``task`` is the newest hand-out: the result is delivered under its id. ``hand_outs`` are all of them, the newest
    last; the execution uses the ids of the first.
    ``work`` is None if the task keeps its id. ``stale_since`` is when the worker learned that the orchestrator is
    waiting for another attempt, in monotonic seconds.
    """

    link: Link
    task: Task
    hand_outs: list[Task]
    work: WorkKey | None
    execution: Execution
    events: TaskEvents
    has_slot: bool
    permit: Admission | None
    arrived: float
    finished: bool = False
    stale_since: float | None = None

    @property
    def ids(self) -> set[str]:
        """All of its ids, including its job's."""
        return {self.task.job_id, *(each.task_id for each in self.hand_outs)}

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
        self._tasks: dict[RunningTask, None] = {}
        self._by_id: dict[tuple[Link, str], RunningTask] = {}
        self._by_work: dict[WorkKey, list[RunningTask]] = {}  # the newest last
        self.overview: Overview = Overview(world)
        self._preempted = False
        self._cancelled_early = Recent(EARLY_CANCEL, EARLY_CANCELS)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, running: RunningTask) -> None:
        """Add a task that is about to run; if it was cancelled before it arrived, cancel it now.

        It starts once earlier attempts at its work have ended or been abandoned, so that no work runs twice at once.
        """
        self._tasks[running] = None
        if running.work is not None:
            same = self._by_work.setdefault(running.work, [])
            earlier = [each.execution for each in same if not each.finished]
            if earlier:
                running.execution.permit = _behind(earlier, running.task, running.execution.permit)
            same.append(running)
        if self._preempted:
            _preempt(running.controls)
        self._name(running, running.task)

    def adopt(self, running: RunningTask, task: Task, *, newest: bool) -> None:
        """Let a running task also answer another hand-out of its work; cancelling any of its ids stops it."""
        running.stale_since = None
        if task.task_id in running.ids:
            return
        running.hand_outs.insert(len(running.hand_outs) if newest else 0, task)
        if newest:
            running.task = task
            running.events.rename(task)
        self._name(running, task)
        if len(running.hand_outs) > MOST_HAND_OUTS:
            self._by_id.pop((running.link, running.hand_outs.pop(0).task_id), None)

    def _name(self, running: RunningTask, task: Task) -> None:
        self._by_id[running.link, task.task_id] = running
        newest, label, hand_outs = running.task, running.link.label, len(running.hand_outs)
        self.overview.show(
            ShownTask(newest.task_id, newest.job_id, newest.type, label, hand_outs, running.execution, running.events)
        )
        if len(self._cancelled_early) and self._was_cancelled_early(running.link, task):
            self._cancel_some([running], CancelReason.REQUESTED)

    def preempt_all(self) -> None:
        """Notify all tasks, including future ones, that this machine is about to be taken away."""
        self._preempted = True
        for running in self:
            _preempt(running.controls)

    def remove(self, running: RunningTask) -> None:
        """Remove a task; its ids are kept if another task has since arrived under them."""
        self._tasks.pop(running, None)
        self.overview.hide(running.execution)
        for task in running.hand_outs:
            if self._by_id.get((running.link, task.task_id)) is running:
                del self._by_id[running.link, task.task_id]
        if running.work is not None:
            same = self._by_work[running.work]
            same.remove(running)
            if not same:
                del self._by_work[running.work]

    def find(self, link: Link, task_id: str) -> RunningTask | None:
        """Return the task of ``link`` with this id, or None."""
        return self._by_id.get((link, task_id))

    def find_work(self, work: WorkKey) -> RunningTask | None:
        """Return the task that does this work, or None; if there are several attempts, the newest."""
        same = self._by_work.get(work)
        return None if same is None else same[-1]

    def __iter__(self) -> Iterator[RunningTask]:
        return iter(tuple(self._tasks))

    def job_ids(self) -> Iterable[str]:
        """Return the ids of their jobs."""
        return (running.task.job_id for running in self._tasks)

    def skills(self) -> list[str]:
        """Return the names of their skills. May be called from any thread, even while the main loop is blocked."""
        return self.overview.skills()

    def cancel(self, link: Link, ids: tuple[str, ...], reason: CancelReason) -> None:
        """Stop the tasks of ``link`` that any of the ``ids`` (task or job ids) names.

        Ids other than those of running tasks are remembered for a while: a cancellation can overtake its task, and some
        of a job's tasks may be running while others are still on their way.
        """
        running = [each for each in self._tasks if each.link is link]
        tasks = set[str]().union(*(each.ids - {each.task.job_id} for each in running))
        known = set[str]().union(*(each.ids for each in running))
        self._cancelled_early.remember(((link, each) for each in ids if each not in tasks), self._monotonic())
        if not known.isdisjoint(ids):
            wanted = frozenset(ids)
            self._cancel_some((each for each in running if not wanted.isdisjoint(each.ids)), reason)

    def cancel_all(self, reason: CancelReason, link: Link | None = None) -> None:
        """Stop every task, or every one of ``link``."""
        self._cancel_some((each for each in self._tasks if link is None or each.link is link), reason)

    def cancel_one(self, running: RunningTask, reason: CancelReason) -> None:
        """Stop one task."""
        self._cancel_some([running], reason)

    @staticmethod
    def _cancel_some(chosen: Iterable[RunningTask], reason: CancelReason) -> None:
        for running in list(chosen):
            ctx = running.ctx
            if not ctx.cancelled:
                _log.info("task %s is being cancelled: %s", ctx.task_id, reason, extra={"action": "task_cancelling"})
                running.execution.cancel(reason)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the running task ``task_id`` should stop."""
        return any(task_id in running.ids and running.ctx.cancelled for running in self._tasks)

    @property
    def longest_grace(self) -> float:
        """Seconds that the running tasks may need to end once they are cancelled."""
        return max((running.execution.grace for running in self._tasks), default=0.0)

    def _was_cancelled_early(self, link: Link, task: Task) -> bool:
        """Whether the task was cancelled before it arrived. A job's id covers all of its tasks still to come."""
        now = self._monotonic()
        by_job = self._cancelled_early.knows((link, task.job_id), now)
        return by_job or self._cancelled_early.take([(link, task.task_id)], now)


def _preempt(controls: Controls) -> None:
    controls.preempting.notice()
    if controls.keeper is not None:
        controls.keeper.hurry()


@contextlib.asynccontextmanager
async def _behind(
    earlier: Sequence[Execution], task: Task, permit: AbstractAsyncContextManager[None] | None
) -> AsyncGenerator[None]:
    """Hold ``permit`` once each of the ``earlier`` executions has ended or been abandoned."""
    _log.info(
        "task %s waits until the earlier attempt at its work has stopped",
        task.task_id,
        extra={"action": "task_waits", "task_id": task.task_id, "job_id": task.job_id},
    )
    for each in earlier:
        await each.over()
    async with permit or contextlib.nullcontext():
        yield
