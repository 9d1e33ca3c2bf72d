"""One task that runs: from its arrival to its outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from avtomatika_worker.errors import ContractViolationError, DependencyMissingError
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.middleware import Handler, Middleware, compose, failed
from avtomatika_worker.execution.outcome import (
    SUCCESS,
    Cancelled,
    CancelReason,
    Outcome,
    Succeeded,
    from_exception,
    from_value,
)
from avtomatika_worker.execution.runners import Threads, run_skill
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import Skill, SkillOptions


class Pipeline:
    """What every task goes through: the middlewares, and the skill innermost. Built once."""

    def __init__(self, registry: SkillRegistry, middlewares: Sequence[Middleware], threads: Threads) -> None:
        self._registry = registry
        self._threads = threads
        self._handler: Handler = compose(middlewares, self._run_skill) if middlewares else self._run_skill

    def skill(self, name: str) -> Skill | None:
        """Return the skill called ``name``."""
        return self._registry.get(name)

    def options(self, name: str) -> SkillOptions | None:
        """Return how the skill called ``name`` is run."""
        skill = self._registry.get(name)
        return skill.options if skill is not None else None

    async def __call__(self, ctx: TaskContext) -> Outcome:
        """Run the task. Raises nothing but ``CancelledError``."""
        try:
            return from_value(await self._handler(ctx))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - a middleware is user code too
            return failed(error, ctx)

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
            return failed(error, ctx)
        return outcome


def _check(skill: Skill, outcome: Succeeded) -> None:
    """Hold the outcome against what the skill promised. Raises `ContractViolationError`."""
    declared = skill.contract.output_statuses
    if declared and outcome.status not in {SUCCESS, *declared}:
        allowed = ", ".join(declared)
        raise ContractViolationError(f"status {outcome.status!r} is not declared (output_statuses: {allowed})")
    if outcome.status == SUCCESS:  # as orchestrators do: a status of the skill's own has data of its own shape
        skill.check_output(outcome.data)


class Execution:
    """A running task. Made and awaited in the main loop; `cancel` is called there too."""

    __slots__ = ("_deadline", "_gave_up", "_pipeline", "_runner", "_timers", "ctx", "grace", "started", "turn")

    def __init__(self, ctx: TaskContext, pipeline: Pipeline, *, deadline: float | None) -> None:
        """``deadline``: monotonic seconds. ``turn``, if set, is what the task has to hold while its skill runs."""
        self.ctx: TaskContext = ctx
        self.started: float = time.monotonic()
        self._pipeline = pipeline
        self._deadline = deadline
        self.turn: AbstractAsyncContextManager[None] | None = None
        self.grace: float = options.cancel_grace if (options := pipeline.options(ctx.skill)) else 0.0
        self._runner: asyncio.Task[Outcome] | None = None
        self._gave_up: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    async def run(self) -> Outcome:
        """Run the task to its outcome. Raises nothing of the skill's.

        The deadline and the skill's timeout stop it with reason DEADLINE. A skill that does not stop within its
        ``cancel_grace`` is given up: then `lingers` is true, and its slot is not free before `ended` returns.
        """
        if self.ctx.cancel_reason is not None:
            return Cancelled(self.ctx.cancel_reason)
        if self._deadline is not None and self._deadline <= time.monotonic():
            return Cancelled(CancelReason.DEADLINE, "the deadline had passed when the task arrived")
        loop = asyncio.get_running_loop()
        self._gave_up = loop.create_future()
        self._runner = loop.create_task(self._guarded(), name=f"skill {self.ctx.skill}, task {self.ctx.task_id}")
        if self._deadline is not None:
            self._cancel_after(self._deadline - time.monotonic())
        try:
            ends: set[asyncio.Future[Any]] = {self._runner, self._gave_up}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._runner.cancel()
            raise
        finally:
            for timer in self._timers:
                timer.cancel()
        return self._outcome(self._runner)

    def cancel(self, reason: CancelReason) -> None:
        """Stop the task: ``async def`` skills get ``CancelledError``, plain ``def`` ones see ``ctx.cancelled``."""
        if self.ctx.cancelled or (self._runner is not None and self._runner.done()):
            return
        self.ctx.cancel(reason)
        if self._runner is not None:
            self._runner.cancel()
            self._timers.append(self._runner.get_loop().call_later(self.grace, self.give_up))

    def give_up(self) -> None:
        """Wait no longer for a cancelled skill: `run` returns."""
        if self._gave_up is not None and not self._gave_up.done():
            self._gave_up.set_result(None)

    @property
    def lingers(self) -> bool:
        """Whether the skill still runs although `run` has returned."""
        return self._runner is not None and not self._runner.done()

    async def ended(self) -> None:
        """Wait until the skill has truly ended."""
        if self._runner is not None:
            await asyncio.wait({self._runner})

    async def _guarded(self) -> Outcome:
        if self.turn is None:
            return await self._run_in_time()
        async with self.turn:
            return await self._run_in_time()

    async def _run_in_time(self) -> Outcome:
        self.started = time.monotonic()
        options = self._pipeline.options(self.ctx.skill)
        if options is not None and options.timeout is not None:
            self._cancel_after(options.timeout)
        return await self._pipeline(self.ctx)

    def _cancel_after(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(seconds, self.cancel, CancelReason.DEADLINE))

    def _outcome(self, runner: asyncio.Task[Outcome]) -> Outcome:
        reason = self.ctx.cancel_reason
        if not runner.done():
            return Cancelled(reason or CancelReason.SHUTDOWN)
        if not runner.cancelled():
            outcome = runner.result()
            # A skill that finished although it was asked to stop: its work counts only if somebody still wants it.
            return outcome if reason is None or reason is CancelReason.SHUTDOWN else Cancelled(reason)
        return Cancelled(reason) if reason else from_exception(RuntimeError("the skill cancelled itself"))
