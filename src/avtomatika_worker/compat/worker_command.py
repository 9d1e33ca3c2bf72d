"""The argument of command handlers, and the parsing of ``emit_event``'s argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from avtomatika_worker.execution.outcome import bounded_text
from avtomatika_worker.execution.payloads import event_facts, plain_payload, unsendable
from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.dialects import NEWEST
from avtomatika_worker.protocol.messages import Command
from avtomatika_worker.tasks.worker_events import WorkerEvent


class WorkerCommand(dict[str, Any]):
    """A command received over the WebSocket: ``command.params`` and ``command["params"]`` are the same.

    ``command`` is its name; ``params``, ``task_id``, ``job_id`` and ``metadata`` are None if it has none.
    """

    command: str
    params: dict[str, Any] | None
    task_id: str | None
    job_id: str | None
    metadata: dict[str, Any] | None

    def __init__(self, command: Command) -> None:
        fields = {name: getattr(command, name) for name in command.__struct_fields__}
        super().__init__({name: value for name, value in fields.items() if value is not None})

    def __missing__(self, key: str) -> None:
        """Return None for an absent field; ``command.get("params", {})`` still returns its default."""
        if key not in Command.__struct_fields__:
            raise KeyError(key)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a command has {', '.join(Command.__struct_fields__)}, not {name!r}") from None


_FIELDS: Final = (
    "event_type",
    "payload",
    "event_id",
    "target_job_id",
    "target_task_id",
    "origin_task_id",
    "origin_worker_id",
    "priority",
    "security",
    "metadata",
    "trace_context",
)


def worker_event(event: object) -> WorkerEvent:
    """Return the event in a dict, or in an object with such attributes. Raises TypeError or ValueError if invalid."""
    get = _reader(event)
    event_type, payload = get("event_type"), get("payload")
    if not isinstance(event_type, str) or not event_type:
        raise ValueError(
            f"an event's event_type must be a nonempty string, not {event_type!r:.80} (fields: {', '.join(_FIELDS)})"
        )
    plain, problem = plain_payload({} if payload is None else payload)
    facts = event_facts(get("priority"), get("security"), get("metadata"), get("origin_worker_id"))
    problem = problem or unsendable(event_type, plain or {}, NEWEST, facts=facts)
    if plain is None or problem is not None:
        raise ValueError(f"event {event_type!r:.80}: {problem}")
    carrier = get("trace_context")
    if carrier is not None and not (is_mapping(carrier) and all(isinstance(each, str) for each in carrier.values())):
        raise ValueError(f"the trace_context of an event must be a dict of strings, not {carrier!r:.80}")
    return WorkerEvent(
        event_type=event_type,
        payload=plain,
        facts=facts,
        trace_context=carrier,
        **{name: _id(field, get(field)) for name, field in _IDS.items()},
    )


_IDS: Final = {
    "event_id": "event_id",
    "job_id": "target_job_id",
    "task_id": "target_task_id",
    "origin_task_id": "origin_task_id",
}


def _id(name: str, value: object) -> str | None:
    """Return an id, or None if it is empty. Raises ValueError if it is invalid."""
    if not value:
        return None
    if not isinstance(value, str) or bounded_text(value) != value:
        raise ValueError(f"the {name} of an event must be a string of at most 2,000 characters, not {value!r:.80}")
    return value


def _reader(event: object) -> Callable[[str], Any]:
    if is_mapping(event):
        return event.get
    if event is None or isinstance(event, str | bytes | int | float):
        raise TypeError(f"an event must be a dict of {', '.join(_FIELDS)}, or an object with such attributes")

    def read(name: str) -> Any:
        return getattr(event, name, None)

    return read
