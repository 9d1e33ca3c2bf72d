"""A skill's view of its task: what it can know, and do while it runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from avtomatika_worker.checkpoints.resumable import Resumable
from avtomatika_worker.execution.payloads import event_facts

if TYPE_CHECKING:
    from avtomatika_worker.checkpoints.checkpoint import Checkpoint
    from avtomatika_worker.execution.controls import Controls
    from avtomatika_worker.execution.outcome import CancelReason
    from avtomatika_worker.files.task_files import TaskFiles
    from avtomatika_worker.observability.telemetry import ObservabilityManager

_T = TypeVar("_T")


class TaskCancelledError(BaseException):
    """Raised by `TaskContext.raise_if_cancelled`. Like ``CancelledError``, ``except Exception`` does not catch it."""


class Sent(Coroutine[Any, Any, bool]):
    """The answer of ``send_event`` and ``send_progress``.

    True when the message passed validation and is on its way. Await it in ``async def`` skills: that also waits while
    the task's queue of events is full. In a plain ``def`` it is complete as it is.
    """

    __slots__ = ("_accepted", "_room", "_wait_begun")

    def __init__(self, *, accepted: bool, room: Callable[[], Generator[Any, None, None]] | None = None) -> None:
        self._accepted = accepted
        self._room = room
        self._wait_begun: Generator[Any, None, bool] | None = None

    def __bool__(self) -> bool:
        return self._accepted

    def __eq__(self, other: object) -> bool:
        return self._accepted == other

    def __hash__(self) -> int:
        return hash(self._accepted)

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait for room, and return whether it is on its way."""
        return self._wait()

    def _wait(self) -> Generator[Any, None, bool]:
        if self._room is not None:
            yield from self._room()
        return self._accepted

    # A coroutine as far as ``asyncio.create_task(send_event(…))`` asks; nothing is wrong when nobody awaits it.

    def send(self, value: Any, /) -> Any:
        """Go on waiting, as an event loop does."""
        return self._waiting().send(value)

    def throw(self, error: Any, /, *args: Any) -> Any:
        """End the wait with an error."""
        return self._waiting().throw(error, *args)

    def close(self) -> None:
        """End the wait."""
        self._waiting().close()

    def _waiting(self) -> Generator[Any, None, bool]:
        if self._wait_begun is None:
            self._wait_begun = self._wait()
        return self._wait_begun

    def __repr__(self) -> str:
        return f"Sent({self._accepted})"


class TaskState:
    """Attributes that middlewares and the skill leave for each other, of any name and type; its repr has no values."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute. Raises AttributeError for one that nothing has set in this process."""
        raise AttributeError(
            f"ctx.state has no {name!r}: a middleware sets it before call_next; it does not reach a skill with "
            'executor="process" (write to ctx.metadata instead)'
        )

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"TaskState({', '.join(vars(self))})"


class TaskContext:
    """Everything about the task that runs: annotate an argument with this class to get it.

    ``observability`` holds the worker's OpenTelemetry tracer and meter, ``costs`` what `add_cost` added.
    """

    __slots__ = ("__weakref__", "_controls")

    def __init__(self, controls: Controls) -> None:
        self._controls: Controls = controls

    # ------------------------------------------------------------------------------------------ the task

    @property
    def skill(self) -> str:
        """The skill's name."""
        return self._controls.task.type

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._controls.task.task_id

    @property
    def job_id(self) -> str:
        """The id of the job that the task is a step of."""
        return self._controls.task.job_id

    @property
    def worker_id(self) -> str:
        """This worker's id."""
        return self._controls.worker_id

    @property
    def params(self) -> dict[str, Any]:
        """What the task is to be done with. A middleware may put others in their place."""
        return self._controls.params

    @params.setter
    def params(self, params: dict[str, Any]) -> None:
        self._controls.task.params = params

    @property
    def params_metadata(self) -> dict[str, Any]:
        """What is known of the objects that the params name; empty when nothing came."""
        return cast("dict[str, Any]", self._controls.task.params_metadata)

    @property
    def priority(self) -> float:
        """A number, higher is more urgent."""
        return cast("float", self._controls.task.priority)

    @property
    def deadline(self) -> float | None:
        """When the task must have ended, in Unix seconds; None when it has no such time."""
        return self._controls.task.deadline

    @property
    def metadata(self) -> dict[str, Any]:
        """What came with the task; empty when nothing did."""
        return cast("dict[str, Any]", self._controls.task.metadata)

    @property
    def security(self) -> dict[str, Any]:
        """The security part of the task; empty when it came without."""
        return cast("dict[str, Any]", self._controls.task.security)

    @property
    def tracing_context(self) -> dict[str, Any]:
        """The trace that the task belongs to; empty when it came without."""
        return cast("dict[str, Any]", self._controls.task.tracing_context)

    @property
    def observability(self) -> ObservabilityManager:
        """The worker's OpenTelemetry tracer and meter."""
        return self._controls.observability

    @property
    def costs(self) -> dict[str, float]:
        """What `add_cost` added."""
        return self._controls.costs

    @property
    def state(self) -> TaskState:
        """A namespace of this attempt, empty at first, for what middlewares hand on: ``ctx.state.user = user``.

        It stays in the worker's process: a skill with ``executor="process"`` has an empty one of its own.
        """
        return self._controls.state

    # ------------------------------------------------------------------------------------------ progress and events

    @overload
    def send_progress(self, progress: float, message: str = "") -> Sent: ...

    @overload
    def send_progress(self, task_id: str, job_id: str, progress: float, message: str = "") -> Sent: ...

    def send_progress(self, *args: Any, **kwargs: Any) -> Sent:
        """Report the task's progress: ``send_progress(0.5, "half")``, a fraction from 0 to 1 and a text.

        Keywords ``progress`` and ``message`` work, and so does the older form with task and job id in front. Progress
        is coalesced: the newest within a second wins, and the last is always sent before the result. Of the text, 2,000
        characters are sent, and what is not valid Unicode as question marks. Returns `Sent`, false when the value is no
        such fraction (logged as an error).
        """
        return self._controls.report_progress(*_progress_arguments(args, kwargs))

    def send_event(
        self,
        event_type: str,
        payload: object = None,
        priority: float = 0.0,
        security: object = None,
        metadata: Mapping[str, Any] | None = None,
        origin_worker_id: str | None = None,
    ) -> Sent:
        """Send a custom event, such as ``send_event("alert", {"level": 3})``.

        The payload (a dict, a model or a dataclass) is checked against the schema that the skill declares for it. One
        that breaks it, or that cannot be sent (NaN, an integer beyond 64 bits, more than ``MAX_RESULT_BYTES``), and an
        undeclared event while ``STRICT_EVENT_VALIDATION`` is on, are logged as an error and not sent. Returns `Sent`:
        true when the event is on its way. Events of a task arrive in order, before its result.

        ``priority`` is a number, ``metadata`` a dict; ``origin_worker_id`` is the worker that the event comes from, if
        not this one, and ``security`` a dict, or an object, with the ``identity_chain`` that it came with. The worker
        signs it.
        """
        facts = partial(event_facts, priority, security, metadata, origin_worker_id)
        return self._controls.send_event(event_type, payload, facts)

    # ------------------------------------------------------------------------------------------ costs

    def add_cost(self, name: str, amount: float) -> None:
        """Add to what the task costs, such as ``ctx.add_cost("tokens", 1200)``; the result reports the sums.

        Orchestrators take costs from protocol 1.0b15 on; ``execution_time_seconds`` is always there. Raises ValueError
        for an amount that is no finite number.
        """
        self._controls.add_cost(name, amount)

    # ------------------------------------------------------------------------------------------ files

    @property
    def files(self) -> TaskFiles:
        """The task's files; an argument annotated with `TaskFiles` gets the same. Raises RuntimeError without any."""
        return self._controls.files.files

    # ------------------------------------------------------------------------------------------ checkpoints

    @property
    def checkpoint(self) -> Checkpoint:
        """What the task saves of its work, so that another attempt goes on from there. See `Checkpoint`."""
        return self._controls.checkpoint

    def resumable(self, items: Iterable[_T], *, state: Any = None, name: str = "") -> Resumable[_T]:
        """Iterate over ``items``, without those that a former attempt at this task has done.

            for item in ctx.resumable(items): …  # in an async def: async for

        After each item the loop's position is saved, as often as ``CHECKPOINT_INTERVAL`` allows, with ``state``: what
        the loop works on (JSON, a model or a dataclass), which is the loop's ``.state``. The items must come in the
        same sequence at every attempt. A loop in a plain ``def`` raises `TaskCancelledError` between two items when the
        task should stop. Raises ValueError for a second loop of the same ``name``.
        """
        return Resumable(items, self._controls.loops, name, state)

    # ------------------------------------------------------------------------------------------ preemption

    @property
    def preempted(self) -> bool:
        """Whether this machine is about to be taken away (``WORKER_PREEMPTION``): save what is worth it."""
        return self._controls.preempting.noticed

    def on_preemption(self, callback: Callable[[], Any]) -> None:
        """Have ``callback`` called when this machine is about to be taken away, at once if that is already known.

        A plain function or an ``async def``, without arguments. That of an ``async def`` skill runs on the event loop,
        that of a plain ``def`` in a thread of its own. What it raises is logged.
        """
        self._controls.preempting.add(callback)

    # ------------------------------------------------------------------------------------------ resources

    def resource(self, kind: type[_T]) -> _T:
        """Return the resource of a type, as an argument annotated with it gets it. Raises LookupError without one."""
        return self._controls.resource(kind)

    # ------------------------------------------------------------------------------------------ hot cache

    def add_to_hot_cache(self, name: str) -> None:
        """Announce that ``name`` (a model, a data set) is loaded here, so that tasks needing it come here first.

        One that is no text, or not valid Unicode, is logged as an error and not announced.
        """
        self._controls.announce(name)

    def remove_from_hot_cache(self, name: str) -> None:
        """Take back what `add_to_hot_cache` announced."""
        self._controls.hot.remove(name)

    # ------------------------------------------------------------------------------------------ cancellation

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop. For plain ``def`` skills; ``async def`` ones get ``CancelledError``."""
        return self._controls.cancelling.reason is not None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the task should stop, once it should."""
        return self._controls.cancelling.reason

    def raise_if_cancelled(self) -> None:
        """End the skill here when the task should stop. Raises `TaskCancelledError`."""
        if (reason := self._controls.cancelling.reason) is not None:
            raise TaskCancelledError(f"task {self.task_id} is cancelled: {reason}")

    def __repr__(self) -> str:
        return f"TaskContext(skill={self.skill!r}, task_id={self.task_id!r}, job_id={self.job_id!r})"


def controls_of(ctx: TaskContext) -> Controls:
    """Return what the worker has of the task whose context this is."""
    return ctx._controls  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - hidden from skills, not from the worker


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
