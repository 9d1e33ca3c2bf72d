"""One task that runs: from its arrival to its outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

from avtomatika_worker.errors import ContractViolationError, DependencyMissingError
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.middleware import Handler, Middleware, compose
from avtomatika_worker.execution.outcome import (
    SUCCESS,
    Cancelled,
    CancelReason,
    Failed,
    Outcome,
    Succeeded,
    from_exception,
    from_value,
)
from avtomatika_worker.execution.runners import Lingering, Threads, run_skill
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import Skill

_log: Final = logging.getLogger("avtomatika_worker.task")


class Pipeline:
    """What every task goes through: the middlewares, and the skill innermost. Built once."""

    def __init__(self, registry: SkillRegistry, middlewares: Sequence[Middleware], threads: Threads) -> None:
        self._registry = registry
        self._threads = threads
        self._handler: Handler = compose(middlewares, self._run_skill) if middlewares else self._run_skill

    def skill(self, name: str) -> Skill | None:
        """Return the skill called ``name``."""
        return self._registry.get(name)

    async def __call__(self, ctx: TaskContext) -> Outcome:
        """Run the task. Raises nothing but ``CancelledError``."""
        try:
            return from_value(await self._handler(ctx))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a middleware is user code too
            return _failed(error, ctx)

    async def _run_skill(self, ctx: TaskContext) -> Outcome:
        skill = self._registry.get(ctx.skill)
        if skill is None:
            known = ", ".join(sorted(self._registry.names())) or "none"
            return from_exception(
                DependencyMissingError(f"no skill {ctx.skill!r} here (registered: {known})", {"skill": ctx.skill})
            )
        try:
            outcome = from_value(await run_skill(skill, ctx, self._threads))
            if isinstance(outcome, Succeeded):
                _check(skill, outcome)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a skill raises, sys.exit() too, ends this task only
            return _failed(error, ctx)
        return outcome


def _check(skill: Skill, outcome: Succeeded) -> None:
    """Hold the outcome against what the skill promised. Raises `ContractViolationError`."""
    declared = skill.contract.output_statuses
    if declared and outcome.status not in {SUCCESS, *declared}:
        allowed = ", ".join(declared)
        raise ContractViolationError(f"status {outcome.status!r} is not declared (output_statuses: {allowed})")
    if outcome.status == SUCCESS:  # as orchestrators do: a status of the skill's own has data of its own shape
        skill.check_output(outcome.data)


def _failed(error: BaseException, ctx: TaskContext) -> Failed:
    """Log what user code raised, with its traceback, which never leaves the worker."""
    outcome = from_exception(
        error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
    )
    _log.warning(
        "task %s of skill %s failed: %s: %s",
        ctx.task_id,
        ctx.skill,
        outcome.code,
        outcome.message,
        exc_info=error if not outcome.expected else None,
        extra={"action": "task_failed"},
    )
    return outcome


class Execution:
    """A running task. Made and awaited in the main loop; `cancel` is called there too."""

    __slots__ = ("_deadline", "_pipeline", "_runner", "ctx", "lingering", "started")

    def __init__(self, ctx: TaskContext, pipeline: Pipeline, *, deadline: float | None) -> None:
        self.ctx: TaskContext = ctx
        self.started: float = time.monotonic()
        self.lingering: Future[Any] | None = None
        self._pipeline = pipeline
        self._deadline = deadline
        self._runner: asyncio.Task[Outcome] | None = None

    async def run(self) -> Outcome:
        """Run the task to its outcome. Raises nothing of the skill's.

        ``deadline`` (monotonic seconds) stops it with reason DEADLINE. When afterwards ``lingering`` is set, a thread
        of the skill goes on, and its slot is not free before that future is done.
        """
        if self.ctx.cancel_reason is not None:
            return Cancelled(self.ctx.cancel_reason)
        if self._deadline is not None and self._deadline <= time.monotonic():
            return Cancelled(CancelReason.DEADLINE, "the deadline had passed when the task arrived")
        loop = asyncio.get_running_loop()
        self._runner = loop.create_task(self._guarded(), name=f"task {self.ctx.task_id}")
        timer = None
        if self._deadline is not None:
            timer = loop.call_later(self._deadline - time.monotonic(), self.cancel, CancelReason.DEADLINE)
        try:
            await asyncio.wait({self._runner})
        finally:
            if timer is not None:
                timer.cancel()
            self._runner.cancel()  # does nothing when it is done
        return self._outcome(self._runner)

    def cancel(self, reason: CancelReason) -> None:
        """Stop the task: ``async def`` skills get ``CancelledError``, plain ``def`` ones see ``ctx.cancelled``."""
        if self.ctx.cancelled or (self._runner is not None and self._runner.done()):
            return
        self.ctx.cancel(reason)
        if self._runner is not None:
            self._runner.cancel()

    async def _guarded(self) -> Outcome:
        try:
            return await self._pipeline(self.ctx)
        except Lingering as error:
            self.lingering = error.future
            raise

    def _outcome(self, runner: asyncio.Task[Outcome]) -> Outcome:
        reason = self.ctx.cancel_reason
        if not runner.cancelled():
            outcome = runner.result()
            # A skill that finished although it was asked to stop: its work counts only if somebody still wants it.
            return outcome if reason is None or reason is CancelReason.SHUTDOWN else Cancelled(reason)
        return Cancelled(reason) if reason else from_exception(RuntimeError("the skill cancelled itself"))
