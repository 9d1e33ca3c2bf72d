"""Runs tasks, each in a slot from its arrival to its delivered result. Runs on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final
from weakref import ReferenceType, ref

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker.delivery.attempt import Delivery
from avtomatika_worker.delivery.handover import Handover
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.works import MOST_IDS
from avtomatika_worker.errors import ContractViolationError
from avtomatika_worker.execution.encoding import EncodedOutcome
from avtomatika_worker.execution.execution import Execution, Pipeline
from avtomatika_worker.execution.outcome import Cancelled, CancelReason, Outcome
from avtomatika_worker.execution.report import build_result, is_retried, log_end, sendable
from avtomatika_worker.files.service import Files
from avtomatika_worker.link.link import Link
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.log_context import bind_log_context
from avtomatika_worker.observability.logging import TracebackLogger
from avtomatika_worker.observability.telemetry import OFF, Telemetry
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.messages import Task, TaskResult
from avtomatika_worker.protocol.work import WorkKey, gets_new_ids, work_key
from avtomatika_worker.tasks.adoption import Adoption
from avtomatika_worker.tasks.context_factory import ContextFactory
from avtomatika_worker.tasks.dedup import RecentResults
from avtomatika_worker.tasks.events import TaskEvents
from avtomatika_worker.tasks.limits import ConcurrencyLimiter
from avtomatika_worker.tasks.reused import ReusedTasks
from avtomatika_worker.tasks.running import RunningTask, RunningTasks
from avtomatika_worker.tasks.settling import with_checkpoint
from avtomatika_worker.tasks.state import StatePublisher
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.task")
_traced: Final = TracebackLogger(_log)
_NO_SPAN: Final = contextlib.nullcontext()


class TaskSettings(msgspec.Struct, frozen=True):
    """The configuration of the runner. Times are in seconds."""

    worker_id: str
    progress_interval: float = 1.0
    max_event_bytes: int | None = None


class TaskRunner:
    """Runs each task that arrives."""

    def __init__(
        self,
        settings: TaskSettings,
        slots: Slots,
        pipeline: Pipeline,
        outbox: Outbox,
        publisher: StatePublisher,
        limiter: ConcurrencyLimiter,
        files: Files,
        telemetry: Telemetry,
        world: World = REAL,
        *,
        contexts: ContextFactory,
    ) -> None:
        self._monotonic = world.monotonic
        self.slots = slots
        self.skills: tuple[str, ...] = publisher.skills
        self.running: RunningTasks = RunningTasks(world)
        self._settings = settings
        self._pipeline = pipeline
        self._outbox = outbox
        self._handover = Handover(outbox)
        self._publisher = publisher
        self._contexts = contexts
        self._telemetry = telemetry
        self._files = files
        self._limiter = limiter
        self._unreported = 0
        self._in_line: deque[tuple[RunningTask, asyncio.Future[None]]] = deque()
        self._recent = RecentResults()
        self.adoption: Adoption = Adoption(self.running, outbox.works, telemetry, self._send_again)
        self._group = asyncio.TaskGroup()
        self._handlers = ReusedTasks(self._group, "task")
        self._loop = asyncio.get_running_loop()
        self._refused: CancelReason | None = None
        self._slot_freed: list[Callable[[], None]] = []
        self._all_reported = asyncio.Event()
        self._all_reported.set()

    async def run(self, ready: asyncio.Future[None]) -> None:
        """Hold the group that every task runs in, from ``ready`` on, until cancelled."""
        async with self._group:
            self._group.create_task(self._publisher.run(self.running.job_ids), name="publish the state")
            self._group.create_task(self._files.clean_up(), name="clean up files")
            to_main = threadsafe.CallQueue(asyncio.get_running_loop())
            self._outbox.works.on_missed = lambda link, task: to_main.put(self._start_missed, link, task)
            ready.set_result(None)
            await asyncio.Event().wait()

    def on_slot_freed(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` whenever a slot becomes free."""
        self._slot_freed.append(callback)

    # ------------------------------------------------------------------------------------------------ arriving

    def start(self, link: Link, task: Task, *, reserved: bool) -> bool:
        """Run a task in the slot that its poll ``reserved``; if it has none, it waits for the next free slot.

        Returns whether the task is new, as opposed to one that is already here.
        """
        work = work_key(link.url, task) if gets_new_ids(task) else None
        if self._refused is not None:
            self.answer(link, task, Cancelled(self._refused), reserved=reserved)
        elif self._is_underway(link, task):
            _log.info("task %s arrived again; it runs only once", task.task_id, extra={"action": "task_duplicate"})
            if reserved:
                self.release_slot()
            return False
        elif (result := self._recent.find(link.url, task)) is not None:
            _log.info(
                "task %s arrived again after its end; sending its result again",
                task.task_id,
                extra={"action": "task_duplicate"},
            )
            self._answer_with(link, task, result, reserved=reserved)
            return False
        elif work is not None and self.adoption.takes(link, task, work):
            if reserved:
                self.release_slot()
            return False
        else:
            self._outbox.discard_result(link, task.task_id)  # a new task under the same id: the old one is settled
            self._run(link, task, work, reserved=reserved)
        return True

    def answer(self, link: Link, task: Task, outcome: Outcome, *, reserved: bool) -> None:
        """Answer a task that is not run, in the slot that its poll ``reserved``."""
        result = build_result(task, outcome, self._settings.worker_id, seconds=0.0)
        self._answer_with(link, task, result, reserved=reserved)

    def is_busy_with(self, link: Link, task_id: str) -> bool:
        """Whether a task with this id is running, or its result is being delivered."""
        return self.running.find(link, task_id) is not None or self._outbox.waiting_result(link, task_id) is not None

    def refuse_new(self, reason: CancelReason) -> None:
        """From now on, answer arriving tasks as cancelled."""
        self._refused = reason

    def _is_underway(self, link: Link, task: Task) -> bool:
        """Whether a task is already running, or its result is being delivered."""
        running = self.running.find(link, task.task_id)
        if running is not None:
            return not running.finished or self._recent.knows(link.url, task)
        waiting = self._outbox.waiting_result(link, task.task_id)
        if waiting is None:
            return False
        # A result that an earlier run of the worker left behind is not among the recent ones.
        return self._recent.knows(link.url, task) or (waiting.restored and not is_retried(waiting.result))

    def release_slot(self) -> None:
        """Free the slot of a poll that brought nothing to run."""
        self.slots.release()
        self.slots_freed()

    def _run(self, link: Link, task: Task, work: WorkKey | None, *, reserved: bool) -> None:
        every, most = self._settings.progress_interval, self._settings.max_event_bytes
        events = TaskEvents(link, task, self._loop, self._group, self._outbox, progress_interval=every, max_bytes=most)
        deadline = None if task.deadline is None else self._monotonic() + task.deadline - link.now()
        execution = Execution(self._contexts.make(link, task, work, events), self._pipeline, deadline=deadline)
        if deadline is not None:
            _compare(execution, link, deadline - self._monotonic())
        permit = self._limiter.request(task.type)
        has_slot, now = self._take_slot(reserved=reserved), self._monotonic()
        running = RunningTask(link, task, [task], work, execution, events, has_slot, permit, now)
        events.on_stale = partial(self._is_stale, ref(running))
        execution.permit = permit if running.has_slot else self._slot_and_permit(running)
        execution.compute = None if permit is None else permit.compute
        self._expect_report()
        self.running.add(running)
        self._handlers.run(self._handle(running))

    def _is_stale(self, known: ReferenceType[RunningTask]) -> None:
        if (running := known()) is not None:  # a weak reference, because it holds its events
            self.adoption.is_stale(running, self._monotonic())

    def _start_missed(self, link: Link, task: Task) -> None:
        """Run a task that was mistaken for a retry but is a step of its own."""
        _log.info("task %s is a new step of its job; running it", task.task_id, extra={"action": "task_not_adopted"})
        self.start(link, task, reserved=False)

    def _send_again(self, delivery: Delivery) -> None:
        self._expect_report()
        self._group.create_task(self._deliver_again(delivery), name=delivery.name)

    async def _deliver_again(self, delivery: Delivery) -> None:
        try:
            await self._outbox.deliver(delivery)
        finally:
            self._one_reported()

    def _answer_with(self, link: Link, task: Task, result: TaskResult, *, reserved: bool) -> None:
        has_slot = self._take_slot(reserved=reserved)
        self._expect_report()
        self._group.create_task(self._send_answer(link, task, result, has_slot), name=f"answer {task.task_id}")

    # ------------------------------------------------------------------------------------------------ figures

    @property
    def is_idle(self) -> bool:
        """Whether every task's result is delivered or in the outbox."""
        return not self._unreported

    async def all_reported(self) -> None:
        """Wait until every task's result is delivered or in the outbox."""
        await self._all_reported.wait()

    # ------------------------------------------------------------------------------------------------ inside

    async def _handle(self, running: RunningTask) -> None:
        task, execution = running.task, running.execution
        bind_log_context(task_id=task.task_id, job_id=task.job_id)  # only in the context that runs this task
        try:
            with self._span(task):
                lingers = await self._run_to_delivery(running)
            if lingers and execution.lingers:
                await self._linger(execution)
        finally:
            if not execution.lingers:  # it was cut at shutdown: nothing may start beside a skill that still runs
                self._let_go(running)

    def _let_go(self, running: RunningTask) -> None:
        """Release a task's permit and slot."""
        if running.permit is not None:
            running.permit.end()
        if running.has_slot:
            running.has_slot = False
            self._free()

    async def _run_to_delivery(self, running: RunningTask) -> bool:
        """Run a task and deliver its result; return whether its skill was abandoned and is still running."""
        try:
            result = await self._execute(running)
            running.finished = True
            for task in running.hand_outs[-MOST_IDS:]:
                self._recent.remember(running.link.url, task, result)
            # An abandoned skill keeps its slot until it has ended.
            free = None if (lingers := running.execution.lingers) else partial(self._let_go, running)
            close, ids = running.events.close, [each.task_id for each in running.hand_outs[:-1]]
            with self._telemetry.tracing.span("deliver"):
                await self._handover.deliver(running.link, result, free=free, before=close, older_ids=ids)
        finally:
            self._reported(running)
        return lingers

    async def _execute(self, running: RunningTask) -> TaskResult:
        """Run a task and return its result. If the worker shuts down meanwhile, the outbox gets a result at once."""
        try:
            outcome = await running.execution.run()
        except asyncio.CancelledError:
            stopped = EncodedOutcome(Cancelled(CancelReason.SHUTDOWN))
            self._outbox.take_over(running.link, self._result(running, stopped))
            raise
        return await with_checkpoint(running, self._result(running, outcome), self._outbox)

    def _result(self, running: RunningTask, ended: EncodedOutcome) -> TaskResult:
        """Return the result of a task, replaced if it cannot be sent, so that the log reports the actual outcome."""
        task, outcome, seconds = running.task, ended.outcome, round(self._monotonic() - running.execution.started, 4)
        worker_id, costs = self._settings.worker_id, running.controls.costs
        result = build_result(
            task, outcome, worker_id, seconds=seconds, added=costs, encoded=ended.data, work=running.work
        )
        result = sendable(result, running.link.dialect)
        self._measure(running, outcome, result, seconds)
        self._loop.call_soon(log_end, task, outcome, result, seconds)  # after its delivery has begun
        return result

    def _span(self, task: Task) -> AbstractContextManager[object]:
        if self._telemetry is OFF:
            return _NO_SPAN
        (skill,) = self._pipeline.label(task.type)
        return self._telemetry.tracing.task(skill, task)

    def _measure(self, running: RunningTask, outcome: Outcome, result: TaskResult, seconds: float) -> None:
        if self._telemetry is OFF:
            return
        recorder, labels = self._telemetry.metrics, self._pipeline.label(running.task.type, result.status)
        recorder.count(metrics.TASKS, *labels)
        recorder.time(metrics.TASK_DURATION, seconds, *labels)
        recorder.time(metrics.START_DELAY, max(0.0, running.execution.started - running.arrived), labels[0])
        if isinstance(outcome, Cancelled):
            recorder.count(metrics.CANCELLATIONS, outcome.reason.value)
            self._telemetry.tracing.failed(f"cancelled: {outcome.reason}")
        elif result.error is not None:
            if result.error.code == ContractViolationError.code:
                recorder.count(metrics.VIOLATIONS, labels[0])
            self._telemetry.tracing.failed(f"{result.error.code}: {result.error.message}")

    async def _send_answer(self, link: Link, task: Task, result: TaskResult, has_slot: bool) -> None:
        bind_log_context(task_id=task.task_id, job_id=task.job_id)
        why = "" if result.error is None else f" ({result.error.message:.200})"
        _log.info(
            "task %s not run, answered: %s%s", task.task_id, result.status, why, extra={"action": "task_answered"}
        )
        slots = [self._free] if has_slot else []

        def free() -> None:
            while slots:
                slots.pop()()

        try:
            await self._handover.deliver(link, result, free=free)
        finally:
            self._one_reported()
            free()

    async def _linger(self, execution: Execution) -> None:
        """Keep the slot until an abandoned skill has really ended."""
        ctx, since = execution.ctx, self._monotonic()
        facts = {"skill": ctx.skill, "reason": str(ctx.cancel_reason)}
        text = "skill %s has not stopped although its task %s was cancelled (%s); its slot stays taken until it does"
        _log.error(text, ctx.skill, ctx.task_id, ctx.cancel_reason, extra={"action": "task_lingers", **facts})
        trace = await execution.ended()
        _traced.log(
            logging.WARNING,
            "skill %s stopped %.1f s after its task was abandoned",
            (ctx.skill, self._monotonic() - since),
            trace,
            extra={"action": "task_linger_ended", "skill": ctx.skill},
        )

    @contextlib.asynccontextmanager
    async def _slot_and_permit(self, running: RunningTask) -> AsyncGenerator[None]:
        """Wait for and hold the slot and permit of a task whose poll had lent its slot."""
        place: asyncio.Future[None] = self._loop.create_future()
        self._in_line.append((running, place))
        self.slots_freed()  # one may have become free since the task arrived
        await place
        async with running.permit or contextlib.nullcontext():
            yield

    def _take_slot(self, *, reserved: bool) -> bool:
        """Use a poll's reserved slot, or a free one; return whether there was one."""
        if not reserved and self.slots.free < 1:
            return False
        if not reserved:
            self.slots.reserve()
        self.slots.start()
        self._publisher.changed()
        return True

    def _expect_report(self) -> None:
        self._unreported += 1
        self._all_reported.clear()

    def _reported(self, running: RunningTask) -> None:
        """Record that the outbox has the result; a lingering skill may still hold the slot."""
        self.running.remove(running)
        self._one_reported()

    def _one_reported(self) -> None:
        self._unreported -= 1
        if not self._unreported:
            self._all_reported.set()

    def _free(self) -> None:
        self.slots.finish()
        self.slots_freed()

    def slots_freed(self) -> None:
        """Give free slots to waiting tasks and polls."""
        self._publisher.changed()
        while self._in_line and self.slots.free > 0:
            running, place = self._in_line.popleft()
            if not place.done():
                running.has_slot = self._take_slot(reserved=False)
                place.set_result(None)
        for callback in self._slot_freed:
            callback()


def _compare(execution: Execution, link: Link, left: float) -> None:
    """Warn when a task has less time until its deadline than its skill expects to take."""
    skill = execution.controls.skill
    expected = None if skill is None else skill.options.expected_seconds
    if expected is not None and left < expected:
        text = "skill %s is expected to take %g s, but the deadline of a task from %s leaves it %.1f s"
        args = (execution.ctx.skill, expected, link.url, left)
        link.faults.log(_log, logging.WARNING, text, *args, action="deadline_too_short", kind=execution.ctx.skill)
