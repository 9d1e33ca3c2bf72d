"""What a skill can know of its task, and do while it runs."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Generator, Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar, cast, overload

from avtomatika_worker.execution.outcome import CancelReason, bounded_text
from avtomatika_worker.files.task_files import TaskFiles
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.skills.hints import name_of

_T = TypeVar("_T")
_log: Final = logging.getLogger("avtomatika_worker.task")


_NO_RESOURCES: Final[Mapping[Any, object]] = MappingProxyType({})

_making_files: Final = threading.Lock()
"""One for all tasks: it is held for microseconds, and most tasks have no files."""


class TaskCancelledError(BaseException):
    """Raised by `TaskContext.raise_if_cancelled`. Like ``CancelledError``, ``except Exception`` does not catch it."""


class Sent:
    """The answer of ``send_event`` and ``send_progress``.

    True when the message passed validation and is on its way. Await it in ``async def`` skills: that also waits while
    the task's queue of events is full. In a plain ``def`` it is complete as it is.
    """

    __slots__ = ("_accepted", "_room")

    def __init__(self, *, accepted: bool, room: Callable[[], Generator[Any, None, None]] | None = None) -> None:
        self._accepted = accepted
        self._room = room

    def __bool__(self) -> bool:
        return self._accepted

    def __eq__(self, other: object) -> bool:
        return self._accepted == other

    def __hash__(self) -> int:
        return hash(self._accepted)

    def __await__(self) -> Generator[Any, None, bool]:
        if self._room is not None:
            yield from self._room()
        return self._accepted

    def __repr__(self) -> str:
        return f"Sent({self._accepted})"


class EventSink(Protocol):
    """Where a task's events go. May be called from any thread."""

    def progress(self, progress: float, message: str) -> None:
        """Take the newest progress; older, unsent ones are forgotten."""
        ...

    def event(self, event_type: str, payload: dict[str, Any]) -> None:
        """Take an event; they are sent in order."""
        ...

    def room(self) -> Generator[Any, None, None]:
        """Wait, in the main loop, until there is room for another event."""
        ...


class HotCache(Protocol):
    """What the worker holds ready (loaded models); orchestrators prefer workers that have it hot."""

    def add(self, name: str) -> None:
        """Announce ``name`` as hot."""
        ...

    def remove(self, name: str) -> None:
        """Take the announcement back."""
        ...


EventCheck = Callable[[str, str, object], tuple[dict[str, Any] | None, str | None]]
"""The skill's name, event type and payload → the payload as plain values, or None and what is wrong."""


class TaskContext:
    """Everything about the task that runs: annotate an argument with this class to get it.

    ``priority`` is a number, higher is more urgent. ``deadline`` is in Unix seconds, or None. ``metadata``,
    ``security`` and ``tracing_context`` are what came with the task, empty when nothing did. ``observability`` holds
    the worker's OpenTelemetry tracer and meter, ``costs`` what `add_cost` added.
    """

    __slots__ = (
        "_cancel_reason",
        "_check_event",
        "_files",
        "_hot",
        "_make_files",
        "_progress",
        "_resources",
        "_sink",
        "costs",
        "deadline",
        "job_id",
        "metadata",
        "observability",
        "params",
        "params_metadata",
        "priority",
        "security",
        "skill",
        "task_id",
        "tracing_context",
        "worker_id",
    )

    def __init__(
        self,
        *,
        skill: str,
        task_id: str,
        job_id: str,
        worker_id: str,
        params: dict[str, Any],
        priority: float,
        deadline: float | None,
        metadata: dict[str, Any],
        security: dict[str, Any],
        tracing_context: dict[str, Any],
        sink: EventSink,
        check_event: EventCheck,
        hot: HotCache,
        observability: ObservabilityManager = ObservabilityManager(),  # noqa: B008 - frozen
        params_metadata: dict[str, Any] | None = None,
        files: Callable[[TaskContext], TaskFiles] | None = None,
        resources: Mapping[Any, object] = _NO_RESOURCES,
    ) -> None:
        self.skill: str = skill
        self.task_id: str = task_id
        self.job_id: str = job_id
        self.worker_id: str = worker_id
        self.params: dict[str, Any] = params
        self.params_metadata: dict[str, Any] = params_metadata or {}
        self.priority: float = priority
        self.deadline: float | None = deadline
        self.metadata: dict[str, Any] = metadata
        self.security: dict[str, Any] = security
        self.tracing_context: dict[str, Any] = tracing_context
        self._sink = sink
        self._check_event = check_event
        self._hot = hot
        self.observability: ObservabilityManager = observability
        self.costs: dict[str, float] = {}
        self._make_files = files
        self._files: TaskFiles | None = None
        self._resources = resources
        self._progress = 0.0
        self._cancel_reason: CancelReason | None = None

    # ------------------------------------------------------------------------------------------ progress and events

    @overload
    def send_progress(self, progress: float, message: str = "") -> Sent: ...

    @overload
    def send_progress(self, task_id: str, job_id: str, progress: float, message: str = "") -> Sent: ...

    def send_progress(self, *args: Any, **kwargs: Any) -> Sent:
        """Tell how far the task is: ``send_progress(0.5, "half")``, a fraction from 0 to 1 and a text.

        Keywords ``progress`` and ``message`` work, and so does the older form with task and job id in front. Progress
        is coalesced: the newest within a second wins, and the last is always sent before the result. Of the text, 2,000
        characters are sent, and what is not valid Unicode as question marks. Returns `Sent`, false when the value is no
        such fraction (logged as an error).
        """
        return self._report_progress(*_progress_arguments(args, kwargs))

    def _report_progress(self, progress: object, message: object) -> Sent:
        if isinstance(progress, bool) or not isinstance(progress, Real) or not 0 <= cast("float", progress) <= 1:
            self._complain("progress", f"progress must be a number from 0 to 1, not {_shown(progress)}")
            return Sent(accepted=False)
        self._progress = float(progress)
        self._sink.progress(self._progress, bounded_text(str(message)))
        return Sent(accepted=True)

    def tell(self, message: str) -> None:
        """Send a progress message that is no progress of the skill's: the fraction stays what it was."""
        self._sink.progress(self._progress, bounded_text(message))

    def send_event(self, event_type: str, payload: object = None) -> Sent:
        """Send an event of the skill's own, such as ``send_event("alert", {"level": 3})``.

        The payload (a dict, a model or a dataclass) is checked against the schema that the skill declares for it. One
        that breaks it, or that cannot be sent (NaN, an integer beyond 64 bits, more than ``MAX_RESULT_BYTES``), and an
        undeclared event while ``STRICT_EVENT_VALIDATION`` is on, are logged as an error and not sent. Returns `Sent`:
        true when the event is on its way. Events of a task arrive in order, before its result.
        """
        plain, problem = self._check_event(self.skill, event_type, {} if payload is None else payload)
        if plain is None:
            self._complain(event_type, problem or "not valid")
            return Sent(accepted=False)
        if event_type == "progress":
            return self._report_progress(plain.get("progress"), plain.get("message") or "")
        self._sink.event(event_type, plain)
        return Sent(accepted=True, room=self._sink.room)

    async def relay_event(self, event_type: str, payload: object) -> str | None:
        """Send an event for a process that runs the skill, and return why not. Waits while the queue is full.

        Progress is only checked: it comes by itself.
        """
        plain, problem = self._check_event(self.skill, event_type, payload)
        if plain is None:
            return problem or "not valid"
        if event_type != "progress":
            self._sink.event(event_type, plain)
            await Sent(accepted=True, room=self._sink.room)
        return None

    def _complain(self, event_type: object, problem: str) -> None:
        _log.error(
            "event %r of skill %s not sent: %s", event_type, self.skill, problem, extra={"action": "event_blocked"}
        )

    # ------------------------------------------------------------------------------------------ costs

    def add_cost(self, name: str, amount: float) -> None:
        """Add to what the task costs, such as ``ctx.add_cost("tokens", 1200)``; the result tells the sums.

        Orchestrators take costs from protocol 1.0b15 on; ``execution_time_seconds`` is always there. Raises ValueError
        for an amount that is no finite number.
        """
        if isinstance(amount, bool) or not isinstance(cast("object", amount), int | float) or not math.isfinite(amount):
            raise ValueError(f"a cost must be a finite number, not {amount!r}")
        self.costs[name] = self.costs.get(name, 0) + amount

    # ------------------------------------------------------------------------------------------ files

    @property
    def files(self) -> TaskFiles:
        """The task's files; an argument annotated with `TaskFiles` gets the same. Raises RuntimeError without any."""
        with _making_files:
            if self._files is None:
                if self._make_files is None:
                    raise RuntimeError("this context was made without files")
                self._files = self._make_files(self)
            return self._files

    @property
    def used_files(self) -> TaskFiles | None:
        """The same when anybody has asked for it."""
        return self._files

    # ------------------------------------------------------------------------------------------ resources

    def resource(self, kind: type[_T]) -> _T:
        """Return the resource of a type, as an argument annotated with it gets it. Raises LookupError without one."""
        try:
            return cast("_T", self._resources[kind])
        except KeyError:
            known = ", ".join(map(name_of, self._resources)) or "none"
            raise LookupError(f"no resource of type {name_of(kind)} was made in this process ({known})") from None

    # ------------------------------------------------------------------------------------------ hot cache

    def add_to_hot_cache(self, name: str) -> None:
        """Announce that ``name`` (a model, a data set) is loaded here, so that tasks needing it come here first.

        One that is no text, or not valid Unicode, is logged as an error and not announced.
        """
        if isinstance(cast("object", name), str) and bounded_text(name) == name:
            self._hot.add(name)
            return
        _log.error(
            "skill %s: %s cannot be announced as hot: a name is a text of at most 2,000 characters of valid Unicode",
            self.skill,
            _shown(name),
            extra={"action": "hot_name_refused"},
        )

    def remove_from_hot_cache(self, name: str) -> None:
        """Take back what `add_to_hot_cache` announced."""
        self._hot.remove(name)

    # ------------------------------------------------------------------------------------------ cancellation

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop. For plain ``def`` skills; ``async def`` ones get ``CancelledError``."""
        return self._cancel_reason is not None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the task should stop, once it should."""
        return self._cancel_reason

    def raise_if_cancelled(self) -> None:
        """End the skill here when the task should stop. Raises `TaskCancelledError`."""
        if self._cancel_reason is not None:
            raise TaskCancelledError(f"task {self.task_id} is cancelled: {self._cancel_reason}")

    def cancel(self, reason: CancelReason) -> None:
        """Mark the task as cancelled; the first reason stays."""
        if self._cancel_reason is None:
            self._cancel_reason = reason

    # ------------------------------------------------------------------------------------------ injection

    def injected(self, name: str) -> object:
        """Return what an argument called ``name`` gets (see ``skills.reserved.INJECTED_NAMES``)."""
        return getattr(self, _INJECTED.get(name, name))

    def __repr__(self) -> str:
        return f"TaskContext(skill={self.skill!r}, task_id={self.task_id!r}, job_id={self.job_id!r})"


_INJECTED: Final = {"add_to_hot_skills": "add_to_hot_cache", "remove_from_hot_skills": "remove_from_hot_cache"}


def _shown(value: object) -> str:
    """Write a value for a message; not every one can be written (an integer of thousands of digits)."""
    try:
        return f"{value!a:.80}"
    except Exception:  # noqa: BLE001 - a value's own code runs here
        return f"an object of type {type(value).__name__}"


def _progress_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, object]:
    """Read both forms of ``send_progress``: with task and job id in front (the official SDK's older one) or without."""
    if len(args) >= 2 and isinstance(args[0], str):
        args = args[2:]
    names = ("progress", "message")
    if len(args) > len(names):
        raise TypeError(f"send_progress takes progress and message, got {len(args)} positional arguments")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    unknown = given.keys() - {*names, "task_id", "job_id"}
    if unknown:
        raise TypeError(f"send_progress takes progress and message, not {', '.join(sorted(unknown))}")
    return given.get("progress"), given.get("message") or ""
