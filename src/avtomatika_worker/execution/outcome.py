"""How a task can end, and how what a skill returned or raised becomes one of these ends."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from avtomatika_worker.errors import (
    ContractViolationError,
    ResourceExhaustedError,
    TaskError,
    TransientError,
    UnsendableValueError,
)
from avtomatika_worker.files.disk import EXHAUSTED
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.skills.contract import ENVELOPE_KEYS, ENVELOPE_MARKS
from avtomatika_worker.skills.plain import to_plain

_MESSAGE_LIMIT: Final = 2_000
_MOST_CAUSES: Final = 100

SUCCESS: Final = "success"
FAILURE: Final = "failure"
CANCELLED: Final = "cancelled"


class CancelReason(enum.StrEnum):
    """Why a running task was stopped. Each is told differently to the orchestrator."""

    REQUESTED = "requested"
    """The orchestrator asked for it: the result's status is "cancelled"."""

    DEADLINE = "deadline"
    """The task's deadline or the skill's timeout passed: TIMEOUT_ERROR."""

    SHUTDOWN = "shutdown"
    """The worker is going down: TRANSIENT_ERROR, so that the orchestrator tries elsewhere."""

    LEASE_LOST = "lease_lost"
    """The orchestrator gave the worker up: TRANSIENT_ERROR."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The skill came to an end of its own; ``status`` is "success" or one of the skill's own statuses."""

    data: dict[str, Any]
    status: str = SUCCESS
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict[str, Any])
    data_metadata: dict[str, FileMetadata] = field(default_factory=dict[str, FileMetadata])
    """What is known of the objects that the data name, by where they do: ``picture``, ``pages[3]``."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task failed; ``code`` is one of the wire's (RXON.md, "Error codes").

    ``expected``: the skill said so itself, with a `TaskError` or an envelope; a traceback would tell nothing new.
    """

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict[str, Any])
    expected: bool = True
    data_metadata: dict[str, FileMetadata] = field(default_factory=dict[str, FileMetadata])


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task was stopped."""

    reason: CancelReason
    message: str = ""


Outcome = Succeeded | Failed | Cancelled
_OUTCOMES: Final = (Succeeded, Failed, Cancelled)


def from_value(value: object) -> Outcome:
    """Turn what a skill returned into an outcome.

    A dict whose keys are all among `ENVELOPE_KEYS` and that has a status, data or an error is the envelope; anything
    else is the data: a dict as it is, a model or dataclass as its fields, None as no data, any other value as
    ``{"result": value}``. Raises `ContractViolationError` for a value that cannot be sent, or a broken envelope.
    """
    if isinstance(value, _OUTCOMES):
        return value
    try:
        plain = to_plain(value)
    except UnsendableValueError as error:
        raise ContractViolationError(f"the result cannot be sent: {error}", {"path": error.path}) from error
    # Only a dict: a model with a field called "status" would lose all its data as an envelope.
    if isinstance(value, Mapping) and _is_envelope(plain):
        return _from_envelope(cast("dict[str, Any]", plain))
    return Succeeded(data=_as_data(plain))


def from_exception(error: BaseException) -> Failed:
    """Turn what a skill raised into an outcome; what is no `TaskError` is transient, named by type and message.

    The only error in a group, as ``asyncio.TaskGroup`` raises it, counts as itself.
    """
    error = _the_one(error)
    if isinstance(error, TaskError):
        return Failed(error.code, _text(error.message or type(error).__name__), _plain_details(error.details))
    name = type(error).__name__
    exhausted = next((each for each in _causes(error) if _is_exhausted(each)), None)
    if isinstance(exhausted, MemoryError):
        message = f"out of memory: {exhausted}" if str(exhausted) else "out of memory"
        return Failed(ResourceExhaustedError.code, _text(message), {"exception": name}, expected=False)
    if exhausted is not None:
        return Failed(ResourceExhaustedError.code, _text(str(exhausted)), {"exception": name}, expected=False)
    return Failed(TransientError.code, _text(f"{name}: {error}"), {"exception": name}, expected=False)


def _is_exhausted(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in EXHAUSTED)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, what it was raised from or while handling, and what is in groups; each once, and not too many."""
    waiting, seen = deque([error]), set[int]()
    while waiting and len(seen) < _MOST_CAUSES:
        each = waiting.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        context = None if each.__suppress_context__ else each.__context__
        is_group = issubclass(type(each), BaseExceptionGroup)
        inner: tuple[BaseException, ...] = getattr(each, "exceptions", ()) if is_group else ()
        waiting.extend(cause for cause in (each.__cause__, context, *inner) if cause is not None)


def _the_one(error: BaseException) -> BaseException:
    inner: tuple[Exception, ...] = getattr(error, "exceptions", ()) if issubclass(type(error), ExceptionGroup) else ()
    return _the_one(inner[0]) if len(inner) == 1 else error


def _is_envelope(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    keys = cast("dict[str, Any]", value).keys()
    return keys <= ENVELOPE_KEYS and not keys.isdisjoint(ENVELOPE_MARKS)


def _from_envelope(envelope: dict[str, Any]) -> Outcome:
    error = envelope.get("error")
    status = envelope.get("status") or (FAILURE if error else SUCCESS)
    if not isinstance(status, str):
        raise ContractViolationError(f"the result's status must be a string, not {type(status).__name__}")
    data = _as_data(envelope.get("data"))
    metadata = _optional_object(envelope.get("metadata"), "metadata")
    costs = _optional_object(envelope.get("costs"), "costs") or {}
    if status == CANCELLED:
        return Cancelled(CancelReason.REQUESTED, "the skill ended the task as cancelled")
    if status == FAILURE:
        code, message, details = _error_parts(error)
        return Failed(code, message, details, data, metadata, costs)
    return Succeeded(data, status, metadata, costs)


def _error_parts(error: object) -> tuple[str, str, dict[str, Any]]:
    """Read an envelope's error: an object with code and message, or just a text."""
    if not isinstance(error, dict):
        return TransientError.code, str(error) if error else "the skill reported a failure", {}
    fields = cast("dict[str, Any]", error)
    code, message = fields.get("code"), fields.get("message")
    details: Any = fields.get("details") or {}
    return (
        code if isinstance(code, str) and code else TransientError.code,
        message if isinstance(message, str) and message else "the skill reported a failure",
        cast("dict[str, Any]", details) if isinstance(details, dict) else {"details": details},
    )


def _as_data(plain: Any) -> dict[str, Any]:
    if plain is None:
        return {}
    return cast("dict[str, Any]", plain) if isinstance(plain, dict) else {"result": plain}


def _optional_object(value: Any, name: str) -> dict[str, Any] | None:
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any] | None", value)
    raise ContractViolationError(f"the result's {name} must be an object, not {type(value).__name__}")


def _plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details that can be sent; what cannot is written as text, for an error must never fail to be told."""
    return {_text(str(key)): _plain_detail(value) for key, value in details.items()}


def _plain_detail(value: object) -> Any:
    try:
        plain = to_plain(value)
        canonical_bytes({"error": {"details": {"value": plain}}}, NEUTRAL)
    except UnsendableValueError:
        return _text(repr(value))
    return plain


def _text(text: str) -> str:
    """Bound a text and make it valid Unicode."""
    return text[:_MESSAGE_LIMIT].encode("utf-8", "replace").decode()
