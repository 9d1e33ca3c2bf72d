"""The worker's view of a running task. The skill sees the task through a `TaskContext`, which exposes less."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from numbers import Real
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast
from weakref import ref

import msgspec

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.checkpoints.checkpoint import Checkpoint, Desk
from avtomatika_worker.checkpoints.keeper import Keeper
from avtomatika_worker.checkpoints.resumable import Loops
from avtomatika_worker.execution.context import Sent, TaskContext, TaskState
from avtomatika_worker.execution.outcome import CancelReason, bounded_text
from avtomatika_worker.execution.payloads import NO_FACTS, EventFacts
from avtomatika_worker.execution.preempting import Preempting
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.protocol.dialects import NEWEST, Dialect
from avtomatika_worker.protocol.messages import PROGRESS_EVENT, Task
from avtomatika_worker.skills.chunks import ChunkKind
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.skills.type_hints import name_of

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.task")

_NO_RESOURCES: Final[Mapping[Any, object]] = MappingProxyType({})

_COSTS_LIMIT: Final = 2**63
"""Exclusive upper bound on a sum of costs: orchestrators read 64-bit integers."""

_making_files: Final = threading.Lock()
"""Shared by all tasks: it is held for microseconds, and most tasks use neither files nor state."""

_INJECTED: Final = {"add_to_hot_skills": "add_to_hot_cache", "remove_from_hot_skills": "remove_from_hot_cache"}


class EventSink(Protocol):
    """The destination of a task's events. May be called from any thread."""

    def progress(self, progress: float, message: str) -> None:
        """Accept the newest progress, which replaces any that is still unsent."""
        ...

    def event(self, event_type: str, payload: dict[str, Any], facts: EventFacts) -> None:
        """Accept an event; events are sent in order."""
        ...

    def room(self) -> Generator[Any, None, None]:
        """Wait, on the main loop, until there is room for another event."""
        ...

    def chunk(self, kind: ChunkKind, data: Any, size: int) -> bool:
        """Accept a chunk of a stream, ``size`` bytes long; return whether there is room for another."""
        ...

    async def chunk_room(self) -> None:
        """Wait, on the sender's loop, until there is room for another chunk."""
        ...

    def wait_for_chunk_room(self, stopped: Callable[[], bool]) -> None:
        """Do the same in a thread, until the stream is ``stopped``."""
        ...


class HotCache(Protocol):
    """What the worker keeps loaded, such as models; orchestrators prefer workers that are hot for a task."""

    def add(self, name: str) -> None:
        """Announce ``name`` as hot."""
        ...

    def remove(self, name: str) -> None:
        """Withdraw the announcement of ``name``."""
        ...


EventCheck = Callable[[str, str, object, EventFacts], tuple[dict[str, Any] | None, str | None]]
"""The skill's name, event type, payload and facts → the payload as plain values, or None and what is wrong."""


class Cancelling:
    """Whether a task should stop, and why. The task's runner requests it; the skill checks it, from any thread."""

    __slots__ = ("_forward", "reason")

    def __init__(self) -> None:
        self.reason: CancelReason | None = None
        self._forward: Callable[[CancelReason], object] | None = None

    def ask(self, reason: CancelReason) -> None:
        """Ask the task to stop. Only the first reason counts."""
        if self.reason is None:
            self.reason = reason
            if self._forward is not None:
                self._forward(reason)

    def forward(self, to: Callable[[CancelReason], object] | None) -> None:
        """Also notify the process that runs the skill, at once if the task was already asked. On the main loop."""
        self._forward = to
        if to is not None and self.reason is not None:
            to(self.reason)


class Written(NamedTuple):
    """A result's data, its canonical JSON, and whether it is known to match the output schema."""

    data: object
    json: bytes
    allowed: bool


class Controls:
    """The worker's view of a running task; the skill sees the task as a `TaskContext`."""

    def __init__(
        self,
        task: Task,
        worker_id: str,
        *,
        sink: EventSink,
        check_event: EventCheck,
        hot: HotCache,
        observability: ObservabilityManager = ObservabilityManager(),  # noqa: B008 - frozen
        files: Callable[[Controls], FileOperations] | None = None,
        resources: Mapping[Any, object] = _NO_RESOURCES,
        cancelling: Cancelling | None = None,
        preempting: Preempting | None = None,
        desk: Callable[[Controls], Desk] | None = None,
        skill: Skill | None = None,
        dialect: Dialect = NEWEST,
    ) -> None:
        """``skill`` is None if there is none for the task's type; the result is written in ``dialect``."""
        params = task.params or {}
        self.task: Task = msgspec.structs.replace(  # a copy, because middlewares may modify its contents
            task,
            params=skill.uses.with_name(params) if skill is not None and skill.uses is not None else params,
            params_metadata=task.params_metadata or {},
            metadata=task.metadata or {},
            security=task.security or {},
            tracing_context=task.tracing_context or {},
            priority=task.priority or 0.0,
        )
        self.worker_id: str = worker_id
        self.observability: ObservabilityManager = observability
        self.costs: dict[str, float] = {}
        self.hot: HotCache = hot
        self.cancelling: Cancelling = cancelling or Cancelling()
        self.preempting: Preempting = preempting or Preempting()
        self.keeper: Keeper | None = None
        """Keeps the task's checkpoints in the worker; None until they are used."""
        self.skill: Skill | None = skill
        self.dialect: Dialect = dialect
        self.written: Written | None = None
        self.models: dict[Any, object] = {}
        """The model that the running skill uses, by type."""
        self.computing: Callable[[], AbstractAsyncContextManager[None]] | None = None
        """If set, makes what the task holds while its skill computes, but not while its files are transferred."""
        self.ends_at: float | None = None
        """When the deadline or the skill's timeout stops the task, whichever comes first: monotonic seconds."""
        self._ctx: Callable[[], TaskContext | None] = lambda: None
        self._sink = sink
        self._check_event = check_event
        self._make_files = files
        self._files: FileOperations | None = None
        self._make_desk = desk
        self._loops: Loops | None = None
        self._ended = False
        self._state: TaskState | None = None
        self._resources = resources
        self._progress = 0.0

    @property
    def ctx(self) -> TaskContext:
        """The skill's view of the task; the task's runner holds the reference.

        If controls held it, they would be part of a reference cycle, and only the garbage collector could free them.
        """
        ctx = self._ctx()
        if ctx is None:
            ctx = TaskContext(self)
            self._ctx = ref(ctx)
        return ctx

    @property
    def params(self) -> dict[str, Any]:
        """The params from which the skill's arguments are made."""
        params = self.task.params
        return {} if params is None else params

    @property
    def state(self) -> TaskState:
        """Values that middlewares and the skill share; created on first use, as most tasks need none."""
        with _making_files:
            if self._state is None:
                self._state = TaskState()
            return self._state

    # ------------------------------------------------------------------------------------------ progress and events

    def report_progress(self, progress: object, message: object) -> Sent:
        """Send progress; the result is false if it is not a number from 0 to 1."""
        if isinstance(progress, bool) or not isinstance(progress, Real) or not 0 <= cast("float", progress) <= 1:
            self._complain("progress", f"progress must be a number from 0 to 1, not {_shown(progress)}")
            return Sent(accepted=False)
        self._progress = float(progress)
        self._sink.progress(self._progress, bounded_text(str(message)))
        return Sent(accepted=True)

    def say(self, message: str) -> None:
        """Send a progress message from the worker itself; the fraction does not change."""
        self._sink.progress(self._progress, bounded_text(message))

    def send_event(self, event_type: str, payload: object, facts: Callable[[], EventFacts]) -> Sent:
        """Validate an event and send it; if it is invalid, log that and return false.

        ``facts`` raises ValueError if what accompanies the event is invalid.
        """
        try:
            known = facts()
        except ValueError as error:
            self._complain(event_type, str(error))
            return Sent(accepted=False)
        plain, problem = self._check_event(self.task.type, event_type, {} if payload is None else payload, known)
        if plain is None:
            self._complain(event_type, problem or "not valid")
            return Sent(accepted=False)
        if event_type == PROGRESS_EVENT:
            return self.report_progress(plain.get("progress"), plain.get("message") or "")
        self._sink.event(event_type, plain, known)
        return Sent(accepted=True, room=self._sink.room)

    async def relay_event(self, event_type: str, payload: object, facts: Sequence[Any] = NO_FACTS) -> str | None:
        """Send an event for the process that runs the skill; return the problem if it is invalid.

        Waits while the queue is full. Progress is only validated: the process sends it separately.
        """
        known = EventFacts(*facts)
        plain, problem = self._check_event(self.task.type, event_type, payload, known)
        if plain is None:
            return problem or "not valid"
        if event_type != PROGRESS_EVENT:
            self._sink.event(event_type, plain, known)
            await Sent(accepted=True, room=self._sink.room)
        return None

    # ------------------------------------------------------------------------------------------ chunks of a stream

    def send_chunk(self, kind: ChunkKind, data: Any, size: int) -> bool:
        """Send a validated chunk; return whether there is room for another. From any thread."""
        return self._sink.chunk(kind, data, size)

    async def chunk_room(self) -> None:
        """Wait until there is room for another chunk."""
        await self._sink.chunk_room()

    def wait_for_chunk_room(self) -> None:
        """Do the same in a thread. Raises `TaskCancelledError` once the task should stop."""
        self._sink.wait_for_chunk_room(lambda: self.cancelling.reason is not None)
        self.ctx.raise_if_cancelled()

    def _complain(self, event_type: object, problem: str) -> None:
        _log.error(
            "event %r of skill %s not sent: %s", event_type, self.task.type, problem, extra={"action": "event_blocked"}
        )

    # ------------------------------------------------------------------------------------------ costs, files, resources

    def add_cost(self, name: str, amount: float) -> None:
        """Add to what the task costs. Raises ValueError for a name or amount that could not be sent."""
        if not isinstance(as_any(name), str) or bounded_text(name) != name:
            raise ValueError(f"the name of a cost must be a string of valid Unicode, not {_shown(name)}")
        if isinstance(amount, bool) or not isinstance(as_any(amount), int | float):
            raise ValueError(f"a cost must be a finite number, not {_shown(amount)}")
        total = self.costs.get(name, 0) + amount if abs(amount) < _COSTS_LIMIT else amount
        if not abs(total) < _COSTS_LIMIT:  # also true for NaN
            raise ValueError(f"the sum of a cost must be finite and fit into 64 bits, not {_shown(total)}")
        self.costs[name] = total

    @property
    def files(self) -> FileOperations:
        """The task's files. Raises RuntimeError if there are none."""
        with _making_files:
            if self._files is None:
                if self._make_files is None:
                    raise RuntimeError("this context was made without files")
                self._files = self._make_files(self)
            return self._files

    @property
    def used_files(self) -> FileOperations | None:
        """The task's files if they have been used, else None."""
        return self._files

    @property
    def checkpoint(self) -> Checkpoint:
        """The task's checkpoint. Raises RuntimeError if there is none."""
        return self._resuming()[0]

    @property
    def loops(self) -> Loops:
        """The task's resumable loops. Raises RuntimeError if there is no checkpoint."""
        return self._resuming()[1]

    def end_saving(self) -> Keeper | None:
        """Mark the task as ended, and return what keeps its checkpoints, if anything does.

        An abandoned skill may still ask for a checkpoint in its thread: one made from now on saves nothing.
        """
        with _making_files:
            self._ended = True
            return self.keeper

    def _resuming(self) -> tuple[Checkpoint, Loops]:
        with _making_files:
            if self._loops is None:
                if self._make_desk is None:
                    raise RuntimeError("this context was made without checkpoints")
                desk = self._make_desk(self)
                if self._ended and self.keeper is not None:
                    self.keeper.close()
                checkpoint = Checkpoint(desk)
                self._loops = Loops(checkpoint, desk, self.ctx.raise_if_cancelled)
            return self._loops.checkpoint, self._loops

    def resource(self, kind: type[_T]) -> _T:
        """Return the resource of type ``kind``. Raises LookupError if there is none."""
        try:
            return cast("_T", self._resources[kind])
        except KeyError:
            known = ", ".join(map(name_of, self._resources)) or "none"
            raise LookupError(f"no resource of type {name_of(kind)} was made in this process ({known})") from None

    def model(self, kind: Any) -> object:
        """Return the model of type ``kind`` that was lent to the task."""
        return self.models[kind]

    def announce(self, name: str) -> None:
        """Announce ``name`` as hot; log an error if it is not a valid name."""
        if isinstance(as_any(name), str) and bounded_text(name) == name:
            self.hot.add(name)
            return
        _log.error(
            "skill %s: %s cannot be announced as hot: a name must be valid Unicode of at most 2,000 characters",
            self.task.type,
            _shown(name),
            extra={"action": "hot_name_refused"},
        )

    # ------------------------------------------------------------------------------------------ injection

    def injected(self, name: str) -> object:
        """Return the value for a parameter called ``name`` (see ``skills.reserved.INJECTED_NAMES``)."""
        return getattr(self.ctx, _INJECTED.get(name, name))


def _shown(value: object) -> str:
    """Format a value for a message; some cannot be formatted (an integer of thousands of digits)."""
    return attempted(lambda: f"{value!a:.80}", lambda _: f"an object of type {type(value).__name__}")
