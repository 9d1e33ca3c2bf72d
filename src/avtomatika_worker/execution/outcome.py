"""How a task can end, and how what a skill raised becomes one of these ends."""

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
"""Errors of a group that its message names."""


class CancelReason(enum.StrEnum):
    """Why a running task was stopped. Each is reported differently to the orchestrator."""

    REQUESTED = "requested"
    """The orchestrator asked for it: the result's status is "cancelled"."""

    DEADLINE = "deadline"
    """The task's deadline or the skill's timeout passed: TIMEOUT_ERROR."""

    SHUTDOWN = "shutdown"
    """The worker is going down: TRANSIENT_ERROR, so that the orchestrator tries elsewhere."""

    LEASE_LOST = "lease_lost"
    """The orchestrator gave the worker up: TRANSIENT_ERROR."""

    STALE = "stale"
    """The orchestrator waits for another attempt at the same work, elsewhere: TRANSIENT_ERROR, which it ignores."""


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The skill ended by itself; ``status`` is "success" or one of the skill's own statuses."""

    data: dict[str, Any]
    status: str = SUCCESS
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] = field(default_factory=dict[str, Any])
    data_metadata: dict[str, FileMetadata] = field(default_factory=dict[str, FileMetadata])
    """What is known of the objects that the data name, by where they do: ``picture``, ``pages[3]``."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The task failed; ``code`` is one of the wire's (RXON.md, "Error codes").

    ``expected``: the skill said so itself, with a `TaskError` or an envelope; a traceback would add nothing.
    ``traceback`` is that of any other exception, for the log: it never leaves the worker.
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
    """Of what the skill raised in place of ending: for the log."""


Outcome = Succeeded | Failed | Cancelled


def from_exception(error: BaseException) -> Failed:
    """Turn what a skill raised into an outcome; anything but a `TaskError` is transient, named by type and message.

    The only error in a group, as ``asyncio.TaskGroup`` raises it, counts as itself; several are named. The frames that
    the exception holds are released: its traceback is in the outcome, as text.
    """
    whole = error.original if type(error) is ExitedError else error
    try:
        outcome = _failure_of(whole)
        release_frames(error)
    except BaseException as problem:  # noqa: BLE001 - what is in it is the user's code, and may raise anything
        text = f"{_name_of(whole)}: (it cannot be read: {_name_of(problem)} was raised)"
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
    """Yield the errors in a group, those in its groups too; another error is its only one."""
    if issubclass(type(error), ExceptionGroup):  # not isinstance: a class may pretend
        for each in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _in_group(each)
    else:
        yield error


def _expected(error: TaskError) -> Failed:
    """Return the failure of an error of ours, or of a class of the user's that may have skipped our ``__init__``."""
    message, details = getattr(error, "message", None) or message_of(error), getattr(error, "details", None)
    if not is_mapping(details):
        details = {} if details is None else {"details": details}
    text = message if isinstance(message, str) else message_of(message)
    return Failed(error.code, bounded_text(text or type(error).__name__), plain_details(details))


def message_of(error: object) -> str:
    """Return the text of an error, whatever it is."""
    # The user's own __str__ may raise anything.
    return attempted(lambda: str(error), lambda problem: f"(its text cannot be read: {type(problem).__name__})")


def _shortage(error: BaseException) -> str:
    text = message_of(error)
    if is_out_of_memory(error):
        return f"out of memory: {text}" if text else "out of memory"
    return text


def plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details that can be sent; the rest becomes text, as an error must always be reportable."""
    return {bounded_text(str(key)): plain_detail(value) for key, value in details.items()}


def plain_detail(value: object) -> Any:
    """Return a value as plain ones that can be sent, or as a text."""
    try:
        plain = to_plain(value)
        canonical_bytes({"error": {"details": {"value": plain}}}, NEUTRAL)
    except UnsendableValueError:
        return bounded_text(value if isinstance(value, str) else _representation(value))
    return plain


def _representation(value: object) -> str:
    return attempted(lambda: repr(value), lambda _: object.__repr__(value))  # the user's own may raise anything


def bounded_text(text: str) -> str:
    """Bound a text and make it valid Unicode: an error, or progress, must never fail to arrive for its words."""
    return text[:_MESSAGE_LIMIT].encode("utf-8", "replace").decode()
