"""What handlers of commands are given, and what ``emit_event`` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.messages import Command
from avtomatika_worker.tasks.worker_events import WorkerEvent


class WorkerCommand(dict[str, Any]):
    """A command that came over the WebSocket: ``command.params`` and ``command["params"]`` are the same.

    ``command`` is its name; ``params``, ``task_id``, ``job_id`` and ``metadata`` are None where it has none.
    """

    command: str
    params: dict[str, Any] | None
    task_id: str | None
    job_id: str | None
    metadata: dict[str, Any] | None

    def __init__(self, command: Command) -> None:
        super().__init__(
            command=command.command,
            task_id=command.task_id,
            job_id=command.job_id,
            params=command.params,
            metadata=command.metadata,
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a command has {', '.join(self)}, not {name!r}") from None


_FIELDS: Final = (
    "event_type",
    "payload",
    "event_id",
    "target_job_id",
    "target_task_id",
    "origin_task_id",
    "origin_worker_id",
    "priority",
    "metadata",
    "trace_context",
)


def worker_event(event: object) -> WorkerEvent:
    """Return an event from a dict, or an object with such attributes. Raises TypeError and ValueError for another."""
    get = _reader(event)
    event_type, payload = get("event_type"), get("payload")
    if not isinstance(event_type, str) or not event_type:
        raise ValueError(
            f"an event needs an event_type, a text; it is {event_type!r:.80} (fields: {', '.join(_FIELDS)})"
        )
    if payload is not None and not is_mapping(payload):
        raise ValueError(f"the payload of an event must be a dict, not {payload!r:.80}")
    return WorkerEvent(
        event_type=event_type,
        payload=payload or {},
        event_id=get("event_id"),
        origin=get("origin_worker_id"),
        job_id=get("target_job_id"),
        task_id=get("target_task_id"),
        origin_task_id=get("origin_task_id"),
        priority=get("priority") or 0.0,
        metadata=get("metadata"),
        trace_context=get("trace_context"),
    )


def _reader(event: object) -> Callable[[str], Any]:
    if is_mapping(event):
        return event.get
    if event is None or isinstance(event, str | bytes | int | float):
        raise TypeError(f"an event is a dict of {', '.join(_FIELDS)}, or an object with such attributes")

    def read(name: str) -> Any:
        return getattr(event, name, None)

    return read
