"""A skill's view of its task: what it can see and do while it runs."""

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
    """The return value of ``send_event`` and ``send_progress``.

    True when the message passed validation and is queued. Await it in ``async def`` skills: that also waits while the
    task's event queue is full. In a plain ``def`` there is nothing to await.
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
        """Wait for room in the queue, and return whether the message was accepted."""
        return self._wait()

    def _wait(self) -> Generator[Any, None, bool]:
        if self._room is not None:
            yield from self._room()
        return self._accepted

    # Coroutine enough for ``asyncio.create_task(send_event(…))``, but without a warning if it is never awaited.

    def send(self, value: Any, /) -> Any:
        """Continue waiting, as an event loop does."""
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
    """Attributes, of any name and type, that middlewares and the skill share; the repr omits their values."""

    def __getattr__(self, name: str) -> Any:
        """Return an attribute. Raises AttributeError if nothing in this process has set it."""
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
    """Everything about the running task: annotate an argument with this class to get it.

    ``observability`` holds the worker's OpenTelemetry tracer and meter, ``costs`` the sums from `add_cost`.
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
        """The id of the job that the task belongs to."""
        return self._controls.task.job_id

    @property
    def worker_id(self) -> str:
        """This worker's id."""
        return self._controls.worker_id

    @property
    def params(self) -> dict[str, Any]:
        """The task's parameters. A middleware may replace them."""
        return self._controls.params

    @params.setter
    def params(self, params: dict[str, Any]) -> None:
        self._controls.task.params = params

    @property
    def params_metadata(self) -> dict[str, Any]:
        """Metadata of the objects that the params refer to; empty if the task came without any."""
        return cast("dict[str, Any]", self._controls.task.params_metadata)

    @property
    def priority(self) -> float:
        """The task's priority; higher is more urgent."""
        return cast("float", self._controls.task.priority)

    @property
    def deadline(self) -> float | None:
        """The time by which the task must end, in Unix seconds; None if it has no deadline."""
        return self._controls.task.deadline

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata that came with the task; empty if there was none."""
        return cast("dict[str, Any]", self._controls.task.metadata)

    @property
    def security(self) -> dict[str, Any]:
        """The security section of the task; empty if there was none."""
        return cast("dict[str, Any]", self._controls.task.security)

    @property
    def tracing_context(self) -> dict[str, Any]:
        """The trace that the task belongs to; empty if there was none."""
        return cast("dict[str, Any]", self._controls.task.tracing_context)

    @property
    def observability(self) -> ObservabilityManager:
        """The worker's OpenTelemetry tracer and meter."""
        return self._controls.observability

    @property
    def costs(self) -> dict[str, float]:
        """The sums from `add_cost`, by name."""
        return self._controls.costs

    @property
    def state(self) -> TaskState:
        """A namespace in which middlewares pass values on during this attempt: ``ctx.state.user = user``.

        It starts empty and stays in the worker's process: a skill with ``executor="process"`` gets one of its own.
        """
        return self._controls.state

    # ------------------------------------------------------------------------------------------ progress and events

    @overload
    def send_progress(self, progress: float, message: str = "") -> Sent: ...

    @overload
    def send_progress(self, task_id: str, job_id: str, progress: float, message: str = "") -> Sent: ...

    def send_progress(self, *args: Any, **kwargs: Any) -> Sent:
        """Report the task's progress: ``send_progress(0.5, "half")``, a fraction from 0 to 1 and a text.

        Keywords ``progress`` and ``message`` also work, as does the older form that begins with the task and job ids.
        Progress is coalesced: only the newest value within a second is sent, and the last one always precedes the
        result. The text is cut at 2,000 characters; invalid Unicode becomes question marks. Returns `Sent`, false if
        the value is not a number from 0 to 1 (logged as an error).
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

        The payload (a dict, a model or a dataclass) is validated against the schema that the skill declares for it. An
        event is not sent, and logged as an error, if its payload is invalid or cannot be sent (NaN, an integer beyond
        64 bits, more than ``MAX_RESULT_BYTES``), or if it is undeclared while ``STRICT_EVENT_VALIDATION`` is on.
        Returns `Sent`: true when the event is queued. Events of a task arrive in order, before its result.

        ``priority`` is a number, ``metadata`` a dict. For an event forwarded from another worker, ``origin_worker_id``
        is that worker's id, and ``security`` a dict or object with the ``identity_chain`` that came with the event. The
        worker signs it.
        """
        facts = partial(event_facts, priority, security, metadata, origin_worker_id)
        return self._controls.send_event(event_type, payload, facts)

    # ------------------------------------------------------------------------------------------ costs

    def add_cost(self, name: str, amount: float) -> None:
        """Add to what the task costs, such as ``ctx.add_cost("tokens", 1200)``; the result reports the sums.

        Orchestrators accept costs since protocol 1.0b15; ``execution_time_seconds`` is always included. Raises
        ValueError if the amount is not a finite number.
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
        """The task's saved progress, from which another attempt can resume. See `Checkpoint`."""
        return self._controls.checkpoint

    def resumable(self, items: Iterable[_T], *, state: Any = None, name: str = "") -> Resumable[_T]:
        """Iterate over ``items``, skipping those that an earlier attempt at this task has completed.

            for item in ctx.resumable(items): …  # in an async def: async for

        After each item, but no more often than ``CHECKPOINT_INTERVAL`` allows, the loop's position is saved along with
        ``state``: what the loop accumulates (JSON, a model or a dataclass), available as the loop's ``.state``. The
        items must come in the same order at every attempt. A loop in a plain ``def`` raises `TaskCancelledError`
        between items when the task should stop. Raises ValueError for a second loop with the same ``name``.
        """
        return Resumable(items, self._controls.loops, name, state)

    # ------------------------------------------------------------------------------------------ preemption

    @property
    def preempted(self) -> bool:
        """Whether this machine is about to be taken away (``WORKER_PREEMPTION``): save what is worth saving."""
        return self._controls.preempting.noticed

    def on_preemption(self, callback: Callable[[], Any]) -> None:
        """Call ``callback`` when this machine is about to be taken away, or at once if that is already known.

        The callback is a plain function or an ``async def`` without parameters. It runs on the event loop for an
        ``async def`` skill, and in a thread of its own for a plain ``def``. Exceptions from it are logged.
        """
        self._controls.preempting.add(callback)

    # ------------------------------------------------------------------------------------------ resources

    def resource(self, kind: type[_T]) -> _T:
        """Return the resource of type ``kind``, as an argument annotated with it would. Raises LookupError if none."""
        return self._controls.resource(kind)

    # ------------------------------------------------------------------------------------------ hot cache

    def add_to_hot_cache(self, name: str) -> None:
        """Announce that ``name`` (a model, a data set) is loaded here, which attracts tasks that need it.

        A ``name`` that is not a string of valid Unicode is logged as an error and not announced.
        """
        self._controls.announce(name)

    def remove_from_hot_cache(self, name: str) -> None:
        """Withdraw an announcement made by `add_to_hot_cache`."""
        self._controls.hot.remove(name)

    # ------------------------------------------------------------------------------------------ cancellation

    @property
    def cancelled(self) -> bool:
        """Whether the task should stop. For plain ``def`` skills; ``async def`` ones get ``CancelledError``."""
        return self._controls.cancelling.reason is not None

    @property
    def cancel_reason(self) -> CancelReason | None:
        """Why the task should stop; None while it should not."""
        return self._controls.cancelling.reason

    def raise_if_cancelled(self) -> None:
        """Raise `TaskCancelledError` if the task should stop, which ends the skill here."""
        if (reason := self._controls.cancelling.reason) is not None:
            raise TaskCancelledError(f"task {self.task_id} was cancelled: {reason}")

    def __repr__(self) -> str:
        return f"TaskContext(skill={self.skill!r}, task_id={self.task_id!r}, job_id={self.job_id!r})"


def controls_of(ctx: TaskContext) -> Controls:
    """Return the worker's own view of the task that this context belongs to."""
    return ctx._controls  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - hidden from skills, not from the worker


def _progress_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, object]:
    """Parse both forms of ``send_progress``: with task and job ids first (the official SDK's older form) or without."""
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
