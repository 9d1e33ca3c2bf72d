"""Runs one task, from its arrival to its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, cast

from avtomatika_worker.errors import DependencyMissingError
from avtomatika_worker.execution.bounds import ResultBound
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.containment import context_owned_by
from avtomatika_worker.execution.context import TaskContext, controls_of
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.encoding import EncodedOutcome, encoded, write_data
from avtomatika_worker.execution.envelope import from_value
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.execution.middleware import Handler, Middleware, compose
from avtomatika_worker.execution.outcome import Cancelled, CancelReason, Failed, Outcome, Succeeded, from_exception
from avtomatika_worker.execution.processes.process import KILL_TIMEOUT
from avtomatika_worker.execution.runners import Runners, run_skill
from avtomatika_worker.execution.task_boundary import TaskBoundary
from avtomatika_worker.execution.watched_call import watched
from avtomatika_worker.observability.tracing import Tracing
from avtomatika_worker.skills.contract import CANCELLED, FAILURE, SUCCESS, ResultContract
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.skills.strays import paths_in
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.task")

_EVERY_SKILLS: Final = frozenset({SUCCESS, FAILURE, CANCELLED})
"""Statuses that skills need not declare."""

_UNKNOWN: Final = ResultContract()

_LAST_TIMEOUT: Final = 0.5
"""Seconds that a skill gets to end when its runner is cancelled, in the worker's last shutdown step."""


class Pipeline:
    """What every task passes through: the middlewares, with the skill innermost. Built once."""

    def __init__(
        self,
        registry: SkillRegistry,
        middlewares: Sequence[Middleware],
        runners: Runners,
        tracing: Tracing,
        resources: Mapping[Any, object],
        bound: ResultBound | None = None,
        *,
        files: Middleware,
        world: World = REAL,
    ) -> None:
        """``files`` is the innermost middleware and the worker's own: it returns outcomes and raises nothing.

        ``skills`` are the asyncio tasks in which skills run; each is awaited by its `Execution`.
        """
        self.resources: Mapping[Any, object] = resources
        self.monotonic: Callable[[], float] = world.monotonic
        self._registry = registry
        self._tracing = tracing
        self._runners = runners
        self.skills: Children = Children()
        self._bound = bound or ResultBound()
        self._watched = bool(middlewares)
        self._labels: dict[tuple[str, str | None], tuple[str, ...]] = {}
        self._handler: Handler = compose(middlewares, lambda ctx: files(ctx, self._run_skill), self._read)

    def skill(self, name: str) -> Skill | None:
        """Return the skill called ``name``, or None."""
        return self._registry.get(name)

    def shows_context(self, skill: Skill | None) -> bool:
        """Whether anything sees the context of a task of ``skill``: a middleware, or the skill itself."""
        return self._watched or (skill is not None and TaskContext in skill.injects)

    def label(self, name: str, status: str | None = None) -> tuple[str, ...]:
        """Return a task's metric labels: its skill and status, if declared, which keeps their number small.

        Undeclared ones, which come over the wire or from a skill and could be anything, share a label.
        """
        known = self._labels.get((name, status))
        if known is not None:
            return known
        skill = self._registry.get(name)
        kind = name if skill is not None else "unknown"
        if status is None:
            label: tuple[str, ...] = (kind,)
        else:
            declared = (skill.contract.output_statuses if skill is not None else None) or ()
            label = (kind, status if status in _EVERY_SKILLS or status in declared else "other")
        if kind == name and label[-1] in {status, name}:  # do not cache values from the wire
            self._labels[name, status] = label
        return label

    async def __call__(self, ctx: TaskContext) -> EncodedOutcome:
        """Run the task. Raises nothing but ``CancelledError``."""
        ended = encoded(await self._handler(ctx), controls_of(ctx))
        return ended if self._bound.holds(ended) else await self._bound.enforce(ctx, ended)

    def _read(self, ctx: TaskContext, returned: object) -> Outcome:
        skill = controls_of(ctx).skill
        return from_value(returned, skill.results if skill is not None else _UNKNOWN)

    async def _run_skill(self, ctx: TaskContext) -> Outcome:
        """Run the skill and convert what it returns. Raises what the skill raises; ``files`` wraps this."""
        controls = controls_of(ctx)
        skill = controls.skill
        if skill is None:
            known = ", ".join(sorted(self._registry.names())) or "none"
            return from_exception(
                DependencyMissingError(f"no skill {ctx.skill!r} here (registered: {known})", {"skill": ctx.skill})
            )
        for name, hint in skill.unknown_params.new_in(controls.params):
            _log.warning("skill %s has no param %r; %s", ctx.skill, name, hint, extra={"action": "unknown_param"})
        if controls.computing is None:
            value = await self._call(skill, ctx)
        else:
            async with contextlib.AsyncExitStack() as stack:
                with self._tracing.span("turn"):
                    await stack.enter_async_context(controls.computing())
                value = await self._call(skill, ctx)
        return self.read_result(value, skill, controls)

    def read_result(self, value: object, skill: Skill, controls: Controls) -> Outcome:
        """Return the outcome for what a skill returned, validated. Raises `ContractViolationError`."""
        outcome = self._outcome_of(value, skill, controls)
        # Like orchestrators, validate successes only: data that come with other statuses have shapes of their own.
        if isinstance(outcome, Succeeded) and outcome.status == SUCCESS:
            written = controls.written
            if written is None or written.data is not outcome.data:
                skill.check_output(outcome.data)
            elif not written.allowed:
                skill.check_output(outcome.data, as_sent=True)
        return outcome

    def _outcome_of(self, value: object, skill: Skill, controls: Controls) -> Outcome:
        """Convert what a skill returned. A skill's process has already done so."""
        if skill.options.in_process:
            return cast("Outcome", value)
        if controls.used_files is not None:
            controls.used_files.note_returned(paths_in(value))
        elif skill.write is to_plain and not self._watched:
            return from_value(value, skill.results, partial(write_data, controls, allows=skill.allows_output))
        return from_value(value, skill.results, skill.write)

    async def _call(self, skill: Skill, ctx: TaskContext) -> object:
        """Call the skill, and record how the call ended if it is being watched."""
        call = watched.get()
        if call is None:
            return await run_skill(skill, ctx, self._runners, self._tracing)
        try:
            value = await run_skill(skill, ctx, self._runners, self._tracing, call.extra)
        except BaseException as error:
            call.end(error=error)
            raise
        call.end(value)
        return value


class Execution:
    """A running task. Created, awaited and cancelled on the main loop."""

    __slots__ = (
        "_deadline",
        "_over",
        "_pipeline",
        "_runner",
        "_timeout",
        "_timers",
        "compute",
        "controls",
        "ctx",
        "permit",
        "started",
    )

    def __init__(self, controls: Controls, pipeline: Pipeline, *, deadline: float | None) -> None:
        """``deadline`` is in monotonic seconds. ``permit``, if set, is held by the task from its start to its end.

        ``compute``, if set, makes what the task holds while the skill itself runs, but not while files are transferred.
        Time spent waiting for that counts neither toward the timeout nor as run time, but the deadline still applies.
        ``ctx`` is the skill's view of the task.
        """
        self.controls: Controls = controls
        self.ctx: TaskContext = controls.ctx
        self.started: float = pipeline.monotonic()
        self._pipeline = pipeline
        self._deadline = deadline
        self.permit: AbstractAsyncContextManager[None] | None = None
        self.compute: Callable[[], AbstractAsyncContextManager[None]] | None = None
        self._runner: asyncio.Task[EncodedOutcome | None] | None = None
        self._over: asyncio.Future[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._timeout: asyncio.TimerHandle | None = None

    async def run(self) -> EncodedOutcome:
        """Run the task and return its outcome. Never raises what the skill raises.

        The deadline and the skill's timeout stop it with reason DEADLINE. A skill that does not stop within its
        ``cancel_grace`` is abandoned: then `lingers` is true, and its slot stays taken until `ended` returns.
        """
        if (reason := self.controls.cancelling.reason) is not None:
            return EncodedOutcome(Cancelled(reason))
        if self._deadline is not None and self._deadline <= self._pipeline.monotonic():
            return EncodedOutcome(Cancelled(CancelReason.DEADLINE, "the deadline had passed when the task arrived"))
        task = self.controls.task
        name, context = f"skill {task.type}, task {task.task_id}", context_owned_by(task)
        self._runner = self._pipeline.skills.start(self._until_stopped(), name=name, context=context)
        self._over = self._runner.get_loop().create_future()
        if self._deadline is not None:
            self._cancel_after(self._deadline - self._pipeline.monotonic())
        try:
            await self._over
        except asyncio.CancelledError:
            self._runner.cancel()
            await asyncio.wait({self._runner}, timeout=_LAST_TIMEOUT)
            raise
        finally:
            for timer in self._timers:
                timer.cancel()
        return self._outcome(self._runner)

    def cancel(self, reason: CancelReason) -> None:
        """Stop the task: ``async def`` skills get ``CancelledError``, plain ``def`` ones see ``ctx.cancelled``."""
        if self.ctx.cancelled or (self._runner is not None and self._runner.done()):
            return
        self.controls.cancelling.ask(reason)
        if self._runner is not None:
            self._runner.cancel()
            self._runner.add_done_callback(self._wait_no_longer)  # it may not even have started
            self._timers.append(self._runner.get_loop().call_later(self.grace, self._wait_no_longer))

    @property
    def grace(self) -> float:
        """Seconds to wait for a cancelled task, including the time to kill its process in the end."""
        skill = self.controls.skill
        if skill is None:
            return 0.0
        return skill.options.cancel_grace + (KILL_TIMEOUT if skill.options.in_process else 0.0)

    @property
    def lingers(self) -> bool:
        """Whether the skill is still running although `run` has returned."""
        return self._runner is not None and not self._runner.done()

    async def over(self) -> None:
        """Wait until the skill has ended, was abandoned, or will never start."""
        if self._over is not None:
            await asyncio.wait({self._over})

    async def ended(self) -> str:
        """Wait until the skill has really ended; return the traceback of what it finally raised, or ""."""
        if self._runner is None:
            return ""
        await asyncio.wait({self._runner})
        return "" if self._runner.cancelled() else _traceback_of(self._runner.result())

    def _wait_no_longer(self, _: object = None) -> None:
        """Let `run` return: the skill has ended or is abandoned."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def _until_stopped(self) -> EncodedOutcome | None:
        """Run the task; return None if it was stopped, as an exception would keep the skill's frames in memory."""
        if self.compute is not None:
            self.controls.computing = partial(self._computing, self.compute)
        try:
            with TaskBoundary() as boundary:  # outermost: a GeneratorExit that a skill awaits closes the inner ones
                if self.permit is None:
                    return self._begin() or await self._pipeline(self.ctx)
                async with self.permit:
                    return self._begin() or await self._pipeline(self.ctx)
            return EncodedOutcome(boundary.failure)
        except asyncio.CancelledError as error:
            release_frames(error)
            return None
        finally:
            self.controls.computing = None  # breaks the reference cycle
            self._wait_no_longer()

    @contextlib.asynccontextmanager
    async def _computing(self, compute: Callable[[], AbstractAsyncContextManager[None]]) -> AsyncGenerator[None]:
        since, left = self._pipeline.monotonic(), self._pause()
        async with compute():
            now = self._pipeline.monotonic()
            self.started += now - since
            if self._deadline is not None and self._deadline <= now:  # the loop was blocked, so no timer has fired yet
                self.controls.cancelling.ask(CancelReason.DEADLINE)
                raise asyncio.CancelledError
            if left is not None:
                self._timeout = self._cancel_after(left)
            yield

    def _pause(self) -> float | None:
        """Pause the skill's timeout and return the seconds left, or None if it has none."""
        if self._timeout is None:
            return None
        self._timeout.cancel()
        return self._timeout.when() - asyncio.get_running_loop().time()

    def _begin(self) -> EncodedOutcome | None:
        """Start the task's clock; return an outcome if the deadline has already passed."""
        self.started = self._pipeline.monotonic()
        if self._deadline is not None and self._deadline <= self.started:
            # It waited for its turn, or the loop was blocked: the timer has not fired yet.
            return EncodedOutcome(Cancelled(CancelReason.DEADLINE, "the deadline passed before the task could start"))
        skill, ends = self.controls.skill, self._deadline
        if skill is not None and skill.options.timeout is not None:
            self._timeout = self._cancel_after(skill.options.timeout)
            timeout = self.started + skill.options.timeout
            ends = timeout if ends is None else min(ends, timeout)
        self.controls.ends_at = ends
        return None

    def _cancel_after(self, seconds: float) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(seconds, self.cancel, CancelReason.DEADLINE))
        return self._timers[-1]

    def _outcome(self, runner: asyncio.Task[EncodedOutcome | None]) -> EncodedOutcome:
        reason = self.controls.cancelling.reason
        if not runner.done():
            return EncodedOutcome(Cancelled(reason or CancelReason.SHUTDOWN))
        outcome = None if runner.cancelled() else runner.result()
        if outcome is not None:
            # The skill finished although it was asked to stop: its result counts only if it is still wanted.
            if reason is None or reason is CancelReason.SHUTDOWN:
                return outcome
            return EncodedOutcome(Cancelled(reason, traceback=_traceback_of(outcome)))
        stopped = Cancelled(reason) if reason else from_exception(RuntimeError("the skill cancelled itself"))
        return EncodedOutcome(stopped)


def _traceback_of(ended: EncodedOutcome | None) -> str:
    return ended.outcome.traceback if ended is not None and isinstance(ended.outcome, Failed) else ""
