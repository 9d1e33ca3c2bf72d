"""The messages between the worker and its skill processes: a header, then a MessagePack list that begins with a verb.

The header identifies the writer: a child forked by a skill has the same socket but is not the process.

To the process:

    setup  spec                         once, first
    task   number, facts of each        run the task, or several as a batch, numbered consecutively from there; the next
                                        comes only after they have ended
    cancel task, reason                 stop that task, whether or not it has started
    preempt task                        this machine is about to be taken away
    answer number, good, value          to a call; if not good, an error as written by `error_parts`
    end                                 close the resources and exit

From the process:

    ready                               after setup
    failed kind, name, problem          instead of ready: the "skill", "resource" or "process" that is at fault
    call   task, number, verb, arguments  on behalf of a task; expects an answer
    report task, verb, arguments        the same, but expects none
    log    fields of a record
    done   task, kind, fields, spent    that task's outcome; a spent process must be replaced
    cancelled task                      that task ended because it was cancelled
    broke  task, fields, short, spent   instead of those: the call for a batch failed; memory ran out if `short`
"""

from __future__ import annotations

import os
import struct
from dataclasses import fields
from pathlib import PurePath
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import (
    TASK_ERRORS,
    ContractViolationError,
    InternalError,
    TaskError,
    UnsafeNameError,
    UnsendableValueError,
)
from avtomatika_worker.execution.outcome import Cancelled, Failed, Outcome, Succeeded
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL

Message = list[Any]

HEAD: Final = struct.Struct("!4sII")
"""The header of each message: `MARK`, the process id of its writer, and its length in bytes."""

MARK: Final = b"\x93AW\x01"
"""Detects anything else written to the socket, which could otherwise be mistaken for the start of a long message."""

CANNOT_ENCODE: Final = (TypeError, ValueError, OverflowError, RecursionError, struct.error)

_OUTCOMES: Final[dict[str, type[Succeeded] | type[Failed] | type[Cancelled]]] = {
    each.__name__: each for each in (Succeeded, Failed, Cancelled)
}
_decoder: Final = msgspec.msgpack.Decoder(Message)


def _encode(value: object) -> Any:
    """Encode types that msgspec does not support. Raises TypeError for any other type."""
    for kind in (str, float, int):  # msgspec rejects subclasses: `S3Uri`, NumPy's float64
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} cannot be sent between processes")


_encoder: Final = msgspec.msgpack.Encoder(enc_hook=_encode)


def encode(*message: object) -> bytes:
    """Return a message as bytes. Raises one of `CANNOT_ENCODE`."""
    body = _encoder.encode(message)
    return HEAD.pack(MARK, os.getpid(), len(body)) + body


def read_head(buffer: bytes | bytearray, at: int = 0) -> tuple[int, int]:
    """Return the writer and the length of the message whose header is at ``at``. Raises ValueError if there is none."""
    mark, pid, size = HEAD.unpack_from(buffer, at)
    if mark != MARK:
        raise ValueError(f"not the start of a message: {bytes(buffer[at : at + HEAD.size])!r}")
    return pid, size


def decode(body: bytes | bytearray | memoryview) -> Message:
    """Return the message in ``body``. Raises ValueError if it is not one."""
    message = _decoder.decode(body)
    if not message:
        raise ValueError("an empty message")
    return message


def encode_outcome(task: int, outcome: Outcome, *, spent: bool) -> bytes:
    """Return the message for an outcome. A value that cannot be sent becomes a failure that names it."""
    try:
        return encode("done", task, *_outcome_parts(outcome), spent)
    except CANNOT_ENCODE as error:
        failure = Failed(ContractViolationError.code, f"the result cannot leave its process: {_why(outcome, error)}")
        return encode("done", task, *_outcome_parts(failure), spent)


def encode_failure(first: int, failure: Failed, *, short: bool, spent: bool) -> bytes:
    """Return the message for a batch whose call failed."""
    try:
        return encode("broke", first, _outcome_parts(failure)[1], short, spent)
    except CANNOT_ENCODE as error:
        reported = Failed(
            failure.code, f"{failure.message} (its details cannot leave the process: {_why(failure, error)})"
        )
        return encode("broke", first, _outcome_parts(reported)[1], short, spent)


def decode_outcome(kind: str, parts: dict[str, Any]) -> Outcome:
    """Return the outcome in a message. Raises ValueError."""
    return msgspec.convert(parts, _OUTCOMES[kind])


def error_parts(error: Exception) -> list[Any]:
    """Return the parts of a call's exception, for sending."""
    if isinstance(error, UnsafeNameError):
        return ["unsafe", [error.name, error.problem]]
    if isinstance(error, TaskError):
        return ["task", [error.code, error.message, error.details]]
    if isinstance(error, OSError) and isinstance(as_any(error.errno), int):
        return ["os", [error.errno, error.strerror, str(error.filename) if error.filename is not None else None]]
    if isinstance(error, FileNotFoundError):
        return ["missing", [str(error)]]
    if isinstance(error, ValueError):
        return ["value", [str(error)]]
    return ["task", [InternalError.code, f"{type(error).__name__}: {error}", {}]]


def error_from(parts: list[Any]) -> Exception:
    """Return the exception whose parts `error_parts` returned."""
    kind, reported = parts
    if kind == "task":
        code, message, details = reported
        return TASK_ERRORS.get(code, InternalError)(message, details)
    kinds: dict[str, type[Exception]] = {
        "unsafe": UnsafeNameError,
        "os": OSError,
        "missing": FileNotFoundError,
        "value": ValueError,
    }
    return kinds[kind](*reported)


def _outcome_parts(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    return type(outcome).__name__, {each.name: getattr(outcome, each.name) for each in fields(outcome)}


def _why(outcome: Outcome, error: Exception) -> str:
    """Describe where the value is that could not be encoded."""
    try:
        canonical_bytes({each.name: getattr(outcome, each.name) for each in fields(outcome)}, NEUTRAL)
    except UnsendableValueError as found:
        return f"{found.path}: {found.problem}".encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()
