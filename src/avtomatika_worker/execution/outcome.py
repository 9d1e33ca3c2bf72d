"""The outcomes of a task, and how an exception from a skill becomes one."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.errors import (
    ResourceExhaustedError,
    TaskError,
    TransientError,
    UnsendableValueError,
)
from avtomatika_worker.execution.containment import ExitedError
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.execution.shortage import causes, is_out_of_memory, is_shortage
from avtomatika_worker.execution.tracebacks import folded_traceback
from avtomatika_worker.narrowing import is_mapping
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.skills.contract import SUCCESS
from avtomatika_worker.skills.jsonable import to_plain

_MESSAGE_LIMIT: Final = 2_000
_MOST_NAMED: Final = 5
"""Maximum number of a group's errors that the message lists."""


class CancelReason(enum.StrEnum):
    """Why a running task was stopped. Each is reported differently to the orchestrator."""

    REQUESTED = "requested"
    """The orchestrator requested it: the result's status is "cancelled"."""

    DEADLINE = "deadline"
    """The task's deadline or the skill's timeout passed: TIMEOUT_ERROR."""

    SHUTDOWN = "shutdown"
    """The worker is shutting down: TRANSIENT_ERROR, so the orchestrator retries elsewhere."""

    LEASE_LOST = "lease_lost"
    """The orchestrator gave the worker up: TRANSIENT_ERROR."""

    STALE = "stale"
    """The orchestrator is waiting for another attempt, elsewhere: TRANSIENT_ERROR, which it ignores."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The skill completed; ``status`` is "success" or one of the skill's own statuses."""

    data: dict[str, Any]
    status: str = SUCCESS
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict[str, Any])
    data_metadata: dict[str, FileMetadata] = field(default_factory=dict[str, FileMetadata])
    """Metadata of the objects that the data refer to, by place in the data: ``picture``, ``pages[3]``."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task failed; ``code`` is one of the protocol's error codes (RXON.md, "Error codes").

    ``expected``: the skill reported it deliberately, with a `TaskError` or an envelope, so a traceback would add
    nothing. ``traceback`` is set for any other exception, for the log: it never leaves the worker.
    """

    code: str
    message: str
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict[str, Any])
    expected: bool = True
    data_metadata: dict[str, FileMetadata] = field(default_factory=dict[str, FileMetadata])
    traceback: str = field(default="", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The task was stopped."""

    reason: CancelReason
    message: str = ""
    traceback: str = field(default="", repr=False, compare=False)
    """The traceback of what the skill raised instead of stopping; for the log."""


Outcome = Succeeded | Failed | Cancelled


def from_exception(error: BaseException) -> Failed:
    """Turn a skill's exception into an outcome; anything but a `TaskError` is transient, with its type and message.

    A group with a single error, as ``asyncio.TaskGroup`` raises it, counts as that error; several are listed. The
    frames that the exception holds are released; the outcome has its traceback as text.
    """
    whole = error.original if type(error) is ExitedError else error
    try:
        outcome = _failure_of(whole)
        release_frames(error)
    except BaseException as problem:  # noqa: BLE001 - the exception's class is user code and may raise anything
        text = f"{_name_of(whole)}: (cannot be described: {_name_of(problem)} was raised)"
        return Failed(TransientError.code, bounded_text(text), {"exception": _name_of(whole)}, expected=False)
    return outcome


def _name_of(error: BaseException) -> str:
    name: str = type.__dict__["__name__"].__get__(type(error))  # a metaclass may have a __name__ of its own
    return name


def _failure_of(whole: BaseException) -> Failed:
    errors = list(_in_group(whole))
    error = errors[0] if len(errors) == 1 else whole
    if isinstance(error, TaskError):
        return _expected(error)
    name, text = type(error).__name__, message_of(error)
    code, message = TransientError.code, f"{name}: {text}"
    exhausted = next((each for each in causes(whole) if is_shortage(each)), None)
    if exhausted is not None:
        code, message = ResourceExhaustedError.code, _shortage(exhausted)
    elif len(errors) > 1:
        message += ": " + "; ".join(f"{type(each).__name__}: {message_of(each)}" for each in errors[:_MOST_NAMED])
    details: dict[str, Any] = {"exception": name}
    return Failed(code, bounded_text(message), details, expected=False, traceback=folded_traceback(whole))


def _in_group(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors in a group, including nested groups; if it is not a group, yield the error itself."""
    if issubclass(type(error), ExceptionGroup):  # not isinstance: __class__ can lie
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _in_group(each)
    else:
        yield error


def _expected(error: TaskError) -> Failed:
    """Return the failure for a `TaskError`, possibly of a user's subclass that never called our ``__init__``."""
    message, details = getattr(error, "message", None) or message_of(error), getattr(error, "details", None)
    if not is_mapping(details):
        details = {} if details is None else {"details": details}
    text = message if isinstance(message, str) else message_of(message)
    return Failed(error.code, bounded_text(text or type(error).__name__), plain_details(details))


def message_of(error: object) -> str:
    """Return an error's text, even if its ``__str__`` raises."""
    # The user's own __str__ may raise anything.
    return attempted(lambda: str(error), lambda problem: f"(its __str__ raised {type(problem).__name__})")


def _shortage(error: BaseException) -> str:
    text = message_of(error)
    if is_out_of_memory(error):
        return f"out of memory: {text}" if text else "out of memory"
    return text


def plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details that can be sent; anything else becomes text, because an error must always be reportable."""
    return {bounded_text(str(key)): plain_detail(value) for key, value in details.items()}


def plain_detail(value: object) -> Any:
    """Return a value as plain values that can be sent, or else as text."""
    try:
        plain = to_plain(value)
        canonical_bytes({"error": {"details": {"value": plain}}}, NEUTRAL)
    except UnsendableValueError:
        return bounded_text(value if isinstance(value, str) else _representation(value))
    return plain


def _representation(value: object) -> str:
    return attempted(lambda: repr(value), lambda _: object.__repr__(value))  # the user's own may raise anything


def bounded_text(text: str) -> str:
    """Limit a text's length and make it valid Unicode: errors and progress must arrive whatever their text."""
    return text[:_MESSAGE_LIMIT].encode("utf-8", "replace").decode()
