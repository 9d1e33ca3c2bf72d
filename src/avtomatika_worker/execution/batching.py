"""Runs batched skills: one call serves several tasks, and each task waits for its own item. Runs on the main loop.

When a call fails, the remaining tasks are retried in smaller batches: in halves, which isolates a single bad task, or
in batches that fit into memory. When a call for a single task fails, that task fails.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from avtomatika_worker._boundaries import caught
from avtomatika_worker.errors import PermanentError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.containment import ExitedError, context_owned_by, ends_if_forked
from avtomatika_worker.execution.context import TaskCancelledError, TaskContext, controls_of
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.execution.models import ModelPools
from avtomatika_worker.execution.outcome import Outcome, from_exception
from avtomatika_worker.execution.processes.endings import CallFailedError
from avtomatika_worker.execution.processes.process_pool import NoProcessError
from avtomatika_worker.execution.shortage import wants_smaller_batches
from avtomatika_worker.narrowing import copy_of_json
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.observability.telemetry import OFF, Telemetry
from avtomatika_worker.policy.batcher import Batcher, BatchLimits, Waiting
from avtomatika_worker.skills.batch import Batch, WrongItemsError, items_of
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.task")

InThread = Callable[[Callable[..., Any], list[Any], dict[str, Any]], Awaitable[Any]]
InProcess = Callable[[Skill, Sequence[Controls]], Awaitable[list[Outcome | None]]]


@dataclass(frozen=True, slots=True)
class Item:
    """The result of a call for one task: the value that the skill returned for it, or an error."""

    value: object = None
    error: BaseException | None = None

    def get(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


class _Key(NamedTuple):
    """What the tasks of a batch have in common: the user's key, the model's name, and the shapes of arrays."""

    own: Hashable
    model: str | None
    shapes: Hashable


@dataclass(eq=False, slots=True)
class _Member:
    """A task that waits for its item. When the task is cancelled, its future is done and the item is discarded."""

    ctx: TaskContext
    skill: Skill
    """It may be the one for a model of the skill that is called."""
    params: Any
    """As the first call takes them, which may change them."""
    place: Waiting
    span: object
    is_fresh: bool = True
    item: asyncio.Future[Item] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    run: _Run | None = None

    def take_params(self) -> Any:
        """Return the params for a call. One that is made again gets none that a call before may have changed."""
        params, self.params = self.params, None
        if not self.is_fresh:
            return _converted(self.skill, controls_of(self.ctx))
        self.is_fresh = False
        return params

    def settle(self, item: Item) -> None:
        if not self.item.done():
            self.item.set_result(item)


@dataclass(eq=False, slots=True)
class _Run:
    """A running batch."""

    key: _Key
    members: list[_Member]
    task: asyncio.Task[None] | None = None

    @property
    def wanted(self) -> bool:
        """Whether any task still waits for its item."""
        return any(not each.item.done() for each in self.members)


class Batches:
    """The batches of all skills."""

    def __init__(
        self,
        in_thread: InThread,
        in_process: InProcess,
        models: ModelPools,
        telemetry: Telemetry = OFF,
        world: World = REAL,
    ) -> None:
        self._in_thread = in_thread
        self._in_process = in_process
        self._models = models
        self._telemetry = telemetry
        self._world = world
        self._children = Children()
        self._outside = contextvars.copy_context()
        """The worker's own: a batch must not inherit one task's log ids or span."""
        self._queues: dict[str, _Queue] = {}

    async def run(self, skill: Skill, batch: Batch, ctx: TaskContext) -> Any:
        """Return what the skill returned for a task, or raise its error. Raises `InvalidInputError` for invalid params.

        On cancellation it returns at once, unless this was the batch's last task: then it waits for the call to end.
        """
        queue = self._queues.get(skill.family)  # a skill that is announced for each model is one function
        if queue is None:
            queue = self._queues[skill.family] = _Queue(self, skill, batch)
        tracing = self._telemetry.tracing
        with tracing.span("validate"):
            place, params = queue.place(skill, controls_of(ctx))
        with tracing.span("skill"):
            return await queue.join(_Member(ctx, skill, params, place, tracing.current()))

    def start(self, run: _Run, work: Callable[[_Run], Any], name: str) -> asyncio.Task[None]:
        """Start a batch, in a context that belongs to no task."""
        return self._children.start(work(run), name=name, context=self._outside.run(context_owned_by, run))

    def cancel(self, run: _Run) -> None:
        """Cancel a call that no task is waiting for anymore."""
        if run.task is not None:
            contextvars.Context().run(run.task.cancel)  # skills may not, and this may run in a skill's context

    def now(self) -> float:
        """Monotonic seconds."""
        return self._world.monotonic()

    @asynccontextmanager
    async def model_for(self, skill: Skill, run: _Run) -> AsyncGenerator[None]:
        """Hold the model that the tasks of a batch use, if they use one. Raises what `ModelPools.lend` does."""
        if skill.uses is None or run.key.model is None or skill.options.in_process:  # a process has models of its own
            yield
            return
        async with self._models.lend(skill.uses, run.key.model, [controls_of(each.ctx) for each in run.members]):
            yield

    async def call(self, skill: Skill, members: Sequence[_Member]) -> list[Item]:
        """Call the skill for these tasks. Raises what the call raises."""
        name, size = skill.family, len(members)
        self._telemetry.metrics.record(metrics.BATCH_SIZE, size, name)
        spans = [each.span for each in members if each.span is not None]
        with self._telemetry.tracing.linked(f"batch.{name}", spans, {"batch.size": size}):
            if skill.options.in_process:
                outcomes = await self._in_process(skill, [controls_of(each.ctx) for each in members])
                if None in outcomes:  # then all are None: the call ended because a task was cancelled
                    raise TaskCancelledError
                return [Item(each) for each in outcomes]
            arguments = [skill.arguments(controls_of(each.ctx), each.take_params()) for each in members]
            value = await self._returned(skill, skill.merged(arguments))
        return [_item(each) for each in items_of(name, value, size)]

    async def _returned(self, skill: Skill, arguments: dict[str, Any]) -> object:
        try:
            with ends_if_forked():
                if skill.is_async:
                    return await skill.func(**arguments)
                value = await self._in_thread(skill.func, [], arguments)
                # A plain decorator around an async def looks like a plain def, and returns the coroutine.
                return await value if inspect.iscoroutine(value) else value
        finally:
            restore_logging()


class _Queue:
    """The tasks of one skill that are waiting for a batch, and the batch that is running."""

    def __init__(self, batches: Batches, skill: Skill, batch: Batch) -> None:
        most = math.inf if batch.max_cost is None else batch.max_cost
        self._batches = batches
        self._skill = skill
        self._name = skill.family
        self._batch = batch
        self._batcher = Batcher(BatchLimits(batch.max_size, batch.max_wait, most))
        self._waiting: dict[Waiting, _Member] = {}
        self._running: _Run | None = None
        self._timer: asyncio.Handle | None = None

    def place(self, skill: Skill, controls: Controls) -> tuple[Waiting, Any]:
        """Return how a task waits, and its params. Raises `InvalidInputError`, and what users' code raises."""
        params = _converted(skill, controls)
        model = skill.uses.name_in(controls.params) if skill.uses is not None else None
        own = self._key(params) if self._batch.key is not None else None
        cost = self._cost(params) if self._batch.cost is not None else 1.0
        ends = math.inf if controls.ends_at is None else controls.ends_at
        place = Waiting(_Key(own, model, skill.forms.key(params)), cost, self._batches.now(), ends)
        return place, None if skill.options.in_process else params  # in a process, they are converted there

    def _key(self, params: Any) -> Hashable:
        assert self._batch.key is not None  # noqa: S101
        key: Hashable = self._batch.key(params)
        try:
            hash(key)
        except TypeError as error:
            raise PermanentError(f"the key of a batch of skill {self._name} must be hashable: {error}") from error
        return key

    def _cost(self, params: Any) -> float:
        assert self._batch.cost is not None  # noqa: S101
        cost: object = self._batch.cost(params)
        try:
            weight = float(cost)  # type: ignore[arg-type]  # NumPy's numbers, too
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 <= weight < math.inf:
            raise PermanentError(f"the cost of a task of skill {self._name} must be a number, not {cost!r:.80}")
        return weight

    async def join(self, member: _Member) -> Any:
        """Wait for the item of a task, and return it or raise it."""
        self._waiting[member.place] = member
        self._batcher.add(member.place)
        self._look_soon()
        try:
            item = await member.item
        except asyncio.CancelledError:
            await self._leave(member)
            raise
        return item.get()

    async def _leave(self, member: _Member) -> None:
        if self._waiting.pop(member.place, None) is not None:
            self._batcher.remove(member.place)
            self._look_soon()
        elif (run := member.run) is not None and run.task is not None and not run.wanted:
            self._batches.cancel(run)
            await asyncio.wait({run.task})

    # ------------------------------------------------------------------------------------------------ beginning

    def _look_soon(self) -> None:
        """Check whether to start a batch, once everything that arrives in this loop iteration is queued."""
        if self._running is None:
            self._look_at(None)

    def _look_at(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        if seconds is None:
            self._timer = loop.call_soon(self._look, context=contextvars.Context())
        else:
            self._timer = loop.call_later(seconds, self._look, context=contextvars.Context())

    def _look(self) -> None:
        self._timer = None
        now = self._batches.now()
        due = self._batcher.due(now)
        if due is None or self._running is not None:
            return
        if due > now:
            self._look_at(due - now)
            return
        places = self._batcher.take(now)
        key = places[0].key
        assert isinstance(key, _Key)  # noqa: S101 - see `place`
        self._running = run = _Run(key, [self._waiting.pop(each) for each in places])
        for member in run.members:
            member.run = run
        run.task = self._batches.start(run, self._run, f"batch of skill {self._name}")

    # ------------------------------------------------------------------------------------------------ running

    async def _run(self, run: _Run) -> None:
        try:
            with caught() as failed:
                async with self._batches.model_for(self._skill, run):
                    await self._call_all(run)
            if isinstance(failed.error, asyncio.CancelledError):
                raise failed.error
            if failed.error is not None:  # there is no model
                _fail_all(run.members, failed.error)
        finally:
            for member in run.members:  # those still waiting when the call was cancelled
                member.item.cancel()
            run.members, run.task = [], None  # breaks the reference cycle
            self._running = None
            self._look_soon()

    async def _call_all(self, run: _Run) -> None:
        """Call the skill for the whole batch, and in parts after a failure: at most two calls per task."""
        parts, shrunk = deque([run.members]), False
        while parts:
            members = [each for each in parts.popleft() if not each.item.done()]
            most = self._batcher.size_limit(run.key) if shrunk else len(members)
            if len(members) > most:
                parts.extendleft(reversed(_cut(members, most)))
                continue
            if not members:
                continue
            began = self._batches.now()
            with caught() as failed:  # a skill may raise anything, but that must end only these tasks
                items = await self._batches.call(self._skill, members)
            if failed.error is not None:
                if isinstance(failed.error, asyncio.CancelledError) and _is_cancelled():
                    raise failed.error
                shrunk = shrunk or _is_short(failed.error)
                parts.extendleft(reversed(self._parts(run, members, failed.error)))
                continue
            now = self._batches.now()
            self._batcher.ran(run.key, len(members), now - began, now)
            for member, item in zip(members, items, strict=True):
                member.settle(item)

    def _parts(self, run: _Run, members: list[_Member], error: BaseException) -> list[list[_Member]]:
        """Return the parts in which to retry a failed call: an empty list if its tasks have failed for good."""
        if isinstance(error, NoProcessError | WrongItemsError):
            _fail_all(members, error.__cause__ or error)
            return []
        size, short = len(members), _is_short(error)
        if short:
            self._batcher.ran_out(run.key, size, self._batches.now())
        if size == 1:
            members[0].settle(Item(error.outcome) if isinstance(error, CallFailedError) else Item(error=error))
            return []
        raised = error.original if isinstance(error, ExitedError) else error
        cancelled = isinstance(raised, asyncio.CancelledError | TaskCancelledError)
        if cancelled and any(each.item.done() for each in members):  # a member's cancellation ended the call
            return [members]
        part = min(self._batcher.size_limit(run.key), size - 1) if short else (size + 1) // 2
        release_frames(error)  # frees what their variables hold: the retries need the memory
        if short:
            text = "a batch of %d tasks of skill %s ran out of memory; retrying in batches of %d"
            _log.warning(text, size, self._name, part, extra={"action": "batch_shrunk", "skill": self._name})
        else:
            text, kind = "a batch of %d tasks of skill %s failed (%s); retrying in batches of %d", _kind_of(raised)
            _log.warning(text, size, self._name, kind, part, extra={"action": "batch_split", "skill": self._name})
        return _cut(members, part)


def _converted(skill: Skill, controls: Controls) -> Any:
    """Return a task's params as the skill takes them. Nothing in them is also in those that came."""
    return skill.convert(copy_of_json(controls.params))


def _fail_all(members: Iterable[_Member], error: BaseException) -> None:
    failure = from_exception(error)
    for member in members:
        member.settle(Item(failure))


def _cut(members: list[_Member], part: int) -> list[list[_Member]]:
    return [members[at : at + part] for at in range(0, len(members), part)]


def _is_short(error: BaseException) -> bool:
    return error.short if isinstance(error, CallFailedError) else wants_smaller_batches(error)


def _kind_of(error: BaseException) -> str:
    kind: object = error.outcome.details.get("exception") if isinstance(error, CallFailedError) else None
    return str(kind or type(error).__name__)


def _item(value: object) -> Item:
    return Item(error=value) if isinstance(value, BaseException) else Item(value)


def _is_cancelled() -> bool:
    """Whether the current asyncio task was cancelled, as opposed to the skill raising ``CancelledError`` itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
