"""The tasks that run: a slot for each, from arrival to delivered result. Runs on the main loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.execution import Execution, Pipeline
from avtomatika_worker.execution.outcome import CancelReason, Failed, Outcome
from avtomatika_worker.execution.report import build_result
from avtomatika_worker.observability.logging import log_context
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.messages import Task, WorkerStatus
from avtomatika_worker.services.crossing import Board
from avtomatika_worker.services.events import TaskEvents
from avtomatika_worker.services.link import Link
from avtomatika_worker.services.outbox import Outbox
from avtomatika_worker.skills.plain import to_plain

_log: Final = logging.getLogger("avtomatika_worker.task")

PUBLISH_AFTER: Final = 0.03
"""Seconds in which changes of state are put together; with the heartbeat's own, they are told within 0.1 s."""


EARLY_CANCEL: Final = 5.0
"""Seconds for which a cancellation that names no running task is remembered."""


@dataclass(slots=True)
class HotCache:
    """What is loaded here. Skills may change it from any thread."""

    changed: Callable[[], None]
    names: set[str] = field(default_factory=set[str])

    def add(self, name: str) -> None:
        """Announce ``name`` as hot."""
        self.names.add(name)
        self.changed()

    def remove(self, name: str) -> None:
        """Take the announcement back."""
        self.names.discard(name)
        self.changed()


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What running tasks is configured with. Times are in seconds."""

    worker_id: str
    strict_events: bool = True
    progress_interval: float = 1.0
    skill_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A task that runs, and where it came from."""

    link: Link
    execution: Execution

    @property
    def ctx(self) -> TaskContext:
        """The task's context."""
        return self.execution.ctx


class Tasks:
    """Runs each task that arrives, and publishes the worker's state whenever it changes."""

    def __init__(
        self,
        settings: TaskSettings,
        slots: Slots,
        pipeline: Pipeline,
        outbox: Outbox,
        board: Board[WorkerState],
        skills: tuple[str, ...],
    ) -> None:
        self.slots = slots
        self.hot: HotCache = HotCache(self._changed_anywhere)
        self._settings = settings
        self._pipeline = pipeline
        self._outbox = outbox
        self._board = board
        self._skills = skills
        self._running: set[Running] = set()
        self._cancelled_early: dict[str, float] = {}
        self._group = asyncio.TaskGroup()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining = False
        self._publication: asyncio.TimerHandle | None = None
        self._slot_freed: list[Callable[[], None]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, started: asyncio.Event) -> None:
        """Hold the group that every task runs in; until cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            async with self._group:
                self._publish()
                started.set()
                await asyncio.Event().wait()
        finally:
            if self._publication is not None:
                self._publication.cancel()

    # ------------------------------------------------------------------------------------------------ tasks

    def start(self, link: Link, task: Task) -> None:
        """Run a task in the slot that its poll had reserved."""
        self._occupy()
        self._group.create_task(self._handle(link, task), name=f"task {task.task_id}")

    def reject(self, link: Link, task: Task, outcome: Failed) -> None:
        """Answer a task that cannot be run at all, in the slot that its poll had reserved."""
        self._occupy()
        self._group.create_task(self._answer(link, task, outcome), name=f"rejected {task.task_id}")

    def cancel(self, link: Link, ids: tuple[str, ...], reason: CancelReason) -> None:
        """Stop the tasks of ``link`` that one of the ``ids`` (task or job ids) names."""
        self._remember_early(ids)
        for running in list(self._running):
            ctx = running.ctx
            if running.link is link and not ctx.cancelled and not {ctx.task_id, ctx.job_id}.isdisjoint(ids):
                _log.info("task %s is being cancelled: %s", ctx.task_id, reason, extra={"action": "task_cancelling"})
                running.execution.cancel(reason)

    def cancel_all(self, reason: CancelReason) -> None:
        """Stop every task."""
        for running in list(self._running):
            running.execution.cancel(reason)

    def is_cancelled(self, task_id: str) -> bool:
        """Whether the running task ``task_id`` should stop."""
        return any(running.ctx.task_id == task_id and running.ctx.cancelled for running in self._running)

    async def all_done(self) -> None:
        """Wait until no task runs."""
        await self._idle.wait()

    # ------------------------------------------------------------------------------------------------ state

    def on_slot_freed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot has become free."""
        self._slot_freed.append(callback)

    def drain(self) -> None:
        """Say "draining" from now on."""
        self._draining = True
        self._publish()

    @property
    def available_skills(self) -> tuple[str, ...]:
        """The skills that can be started now."""
        return self._skills

    @property
    def hot_skills(self) -> tuple[str, ...]:
        """The skills whose dependencies are all in the hot cache."""
        needs, hot = self._settings.skill_dependencies, self.hot.names
        return tuple(name for name in self._skills if needs.get(name) and hot.issuperset(needs[name]))

    def state(self) -> WorkerState:
        """Return what there is to tell now."""
        return WorkerState(
            # Never "busy": 1.0b21 and 1.0b30 quarantine at once what is submitted while no worker is idle (observed),
            # and queue for an idle one however many tasks it runs. It asks for no more than it has slots for.
            status=WorkerStatus.DRAINING if self._draining else WorkerStatus.IDLE,
            # Job ids, not task ids: RXON.md, Behaviour 3.
            running_jobs=tuple(sorted({running.ctx.job_id for running in self._running})),
            available_skills=self.available_skills,
            hot_skills=self.hot_skills,
            hot_cache=tuple(sorted(self.hot.names)),
            slots_total=self.slots.total,
            slots_running=self.slots.running,
            slots_polling=self.slots.polling,
        )

    # ------------------------------------------------------------------------------------------------ inside

    async def _handle(self, link: Link, task: Task) -> None:
        with log_context(task_id=task.task_id, job_id=task.job_id):
            events = TaskEvents(link, task, self._group, progress_interval=self._settings.progress_interval)
            execution = Execution(self._context(task, events), self._pipeline, deadline=self._deadline(link, task))
            running = Running(link, execution)
            self._running.add(running)
            if self._was_cancelled_early(task):
                execution.cancel(CancelReason.REQUESTED)
            try:
                outcome = await execution.run()
                await events.close()
                await self._deliver(link, task, outcome, time.monotonic() - execution.started)
                if execution.lingering is not None:
                    await self._linger(execution)
            finally:
                self._running.discard(running)
                self._free()

    def _remember_early(self, ids: tuple[str, ...]) -> None:
        """Remember ids that name no task yet: over the WebSocket, a cancellation can overtake the task itself."""
        now = time.monotonic()
        self._cancelled_early = {each: until for each, until in self._cancelled_early.items() if until > now}
        known = {id_ for running in self._running for id_ in (running.ctx.task_id, running.ctx.job_id)}
        self._cancelled_early.update({each: now + EARLY_CANCEL for each in ids if each not in known})

    def _was_cancelled_early(self, task: Task) -> bool:
        now = time.monotonic()
        return any(self._cancelled_early.pop(each, 0.0) > now for each in (task.task_id, task.job_id))

    async def _answer(self, link: Link, task: Task, outcome: Failed) -> None:
        with log_context(task_id=task.task_id, job_id=task.job_id):
            try:
                await self._deliver(link, task, outcome, 0.0)
            finally:
                self._free()

    async def _deliver(self, link: Link, task: Task, outcome: Outcome, seconds: float) -> None:
        result = build_result(task, outcome, self._settings.worker_id, seconds=seconds)
        why = "" if result.error is None else f" ({result.error.code}: {result.error.message:.200})"
        _log.info(
            "task %s of skill %s: %s after %.3f s%s",
            task.task_id,
            task.type,
            result.status,
            seconds,
            why,
            extra={
                "action": "task_finished",
                "skill": task.type,
                "status": result.status,
                "seconds": round(seconds, 4),
            },
        )
        await self._outbox.deliver(link, result)

    async def _linger(self, execution: Execution) -> None:
        """Keep the slot until the thread of a cancelled task has truly ended."""
        if execution.lingering is None:
            return
        ctx = execution.ctx
        _log.error(
            "task %s of skill %s does not stop although it was cancelled (%s); its slot stays taken until it does",
            ctx.task_id,
            ctx.skill,
            ctx.cancel_reason,
            extra={"action": "task_lingers"},
        )
        await asyncio.wait({asyncio.wrap_future(execution.lingering)})

    def _context(self, task: Task, events: TaskEvents) -> TaskContext:
        return TaskContext(
            skill=task.type,
            task_id=task.task_id,
            job_id=task.job_id,
            worker_id=self._settings.worker_id,
            params=task.params or {},
            priority=task.priority or 0.0,
            deadline=task.deadline,
            metadata=task.metadata or {},
            security=task.security or {},
            tracing_context=task.tracing_context or {},
            sink=events,
            check_event=lambda event_type, payload: self._check_event(task.type, event_type, payload),
            hot=self.hot,
        )

    def _check_event(
        self, skill_name: str, event_type: str, payload: object
    ) -> tuple[dict[str, Any] | None, str | None]:
        try:
            plain = to_plain(payload)
        except UnsendableValueError as error:
            return None, str(error)
        if not isinstance(plain, dict):
            return None, f"the payload must be an object, not {type(payload).__name__}"
        fields = cast("dict[str, Any]", plain)
        skill = self._pipeline.skill(skill_name)
        problem = skill.event_problem(event_type, fields, self._settings.strict_events) if skill else None
        return (None, problem) if problem else (fields, None)

    def _deadline(self, link: Link, task: Task) -> float | None:
        """Return when the task must end, in monotonic seconds: its own deadline or the skill's timeout."""
        now = time.monotonic()
        skill = self._pipeline.skill(task.type)
        ends = [now + skill.options.timeout] if skill is not None and skill.options.timeout is not None else []
        if task.deadline is not None:
            ends.append(now + task.deadline - link.now())
        return min(ends, default=None)

    def _occupy(self) -> None:
        self.slots.start()
        self._idle.clear()
        self._changed()

    def _free(self) -> None:
        self.slots.finish()
        if not self.slots.running:
            self._idle.set()
        self._changed()
        for callback in self._slot_freed:
            callback()

    def _changed(self) -> None:
        """Publish soon; what changes meanwhile is published with it."""
        if self._publication is None and self._loop is not None:
            self._publication = self._loop.call_later(PUBLISH_AFTER, self._publish)

    def _changed_anywhere(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed)

    def _publish(self) -> None:
        self._publication = None
        self._board.publish(self.state())
