"""Turns what a skill or a middleware returned into an outcome: which dicts are envelopes, and what their keys mean.

This is decided here only, for every executor. A dict (any Mapping) is an envelope when

- its ``status`` is ``success``, ``failure``, ``cancelled`` or one that the skill declares, whatever else it contains;
- or its ``status`` is any string, and it also has an ``error`` or ``data`` key;
- or all its keys are envelope keys, and one of them is ``status``, ``data`` or ``error``.

Every other dict is data, and so is every model, dataclass and TypedDict: their fields have meanings of their own.
"""

from __future__ import annotations

import enum
import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec

from avtomatika_worker.errors import ContractViolationError, TransientError, UnsendableValueError
from avtomatika_worker.execution.outcome import (
    Cancelled,
    CancelReason,
    Failed,
    Outcome,
    Succeeded,
    bounded_text,
    from_exception,
    plain_detail,
    plain_details,
)
from avtomatika_worker.narrowing import as_any, is_dict, is_mapping
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.skills.contract import (
    CANCELLED,
    ENVELOPE_KEYS,
    ENVELOPE_MARKS,
    FAILURE,
    SUCCESS,
    ResultContract,
)
from avtomatika_worker.skills.jsonable import to_plain

_log: Final = logging.getLogger("avtomatika_worker.task")

OUTCOMES: Final = (Succeeded, Failed, Cancelled)
_UNKNOWN: Final = ResultContract()
_FAILED: Final = "the skill reported a failure"
_LONGEST_STATUS: Final = 100
_Sendable = TypeVar("_Sendable", Succeeded, Failed)
_CANCELLED: Final = "the skill ended the task as cancelled"
_READ: Final = frozenset({"status", "error", "data", "metadata", "costs"})
_READ_IF_CANCELLED: Final = frozenset({"status", "error"})
_MESSAGE: Final = frozenset({"message"})


def from_value(
    value: object, contract: ResultContract = _UNKNOWN, write: Callable[[object], Any] = to_plain
) -> Outcome:
    """Turn a returned value into an outcome whose values have types that can be sent.

    An outcome is kept and an envelope is unpacked; anything else is data: a dict as it is, a model or dataclass as its
    fields, None as no data, any other value as ``{"result": value}``. ``write`` turns the data into plain values.
    Raises `ContractViolationError` for a success that cannot be sent, a broken envelope, and an undeclared status. A
    failure is never rejected: what cannot be sent is dropped, and its message says so.
    """
    if isinstance(value, OUTCOMES):
        return _checked(value, contract)
    if not contract.is_data and (fields := _fields_of(value)) is not None:
        if _is_envelope(fields, contract):
            return _from_envelope(fields, contract, write)
        _warn_of_status(fields, contract)
    return Succeeded(data=_as_data(_plain(value, write)))


def _fields_of(value: object) -> Mapping[Any, object] | None:
    if is_dict(value) or is_mapping(value):  # the dict check first: checking for an abstract class is slower
        return value
    return None


def _checked(outcome: Outcome, contract: ResultContract) -> Outcome:
    """Validate an outcome that user code made. Raises `ContractViolationError`."""
    if isinstance(outcome, Succeeded):
        status = _text_of(outcome.status)
        if not isinstance(status, str) or status not in contract.statuses:
            raise _unknown_status(status, contract)
        if status in {FAILURE, CANCELLED}:
            raise ContractViolationError(f"Succeeded has the status {status!r}: return Failed or Cancelled instead")
        if not isinstance(as_any(outcome.data), Mapping):
            raise ContractViolationError(f"the data of Succeeded must be a dict, not {type(outcome.data).__name__}")
        return _sendable(replace(outcome, status=str(status)))
    if isinstance(outcome, Failed):
        code, message, details = _error_parts(
            {"code": outcome.code, "message": outcome.message, "details": outcome.details}
        )
        reported = outcome.traceback if isinstance(as_any(outcome.traceback), str) else ""
        failure = replace(outcome, code=code, message=message or _FAILED, details=details, traceback=reported)
        return _sendable_failure(failure)
    if outcome.reason not in tuple(CancelReason):
        raise ContractViolationError(f"the reason of Cancelled must be a CancelReason, not {outcome.reason!r:.80}")
    return replace(outcome, reason=CancelReason(outcome.reason), message=_reason(outcome.message))


def _sendable(outcome: _Sendable, write: Callable[[object], Any] = to_plain) -> _Sendable:
    """Convert an outcome's contents to plain values. Raises `ContractViolationError`."""
    files: object = outcome.data_metadata
    data, metadata, costs = _parts(outcome.data, outcome.metadata, outcome.costs, write=write)
    known = _files(_plain(files, root="$.data_metadata")) if files else {}
    return replace(outcome, data=data, metadata=metadata, costs=costs, data_metadata=known)


def _parts(
    data: object, metadata: object, costs: object, *, write: Callable[[object], Any]
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any]]:
    """Return the parts that successes and failures share, as plain values. Raises `ContractViolationError`."""
    return (
        _as_data(_plain(data, write, "$.data")),
        None if metadata is None else _object(_plain(metadata, root="$.metadata"), "metadata"),
        {} if costs is None else _object(_plain(costs, root="$.costs"), "costs") or {},
    )


def _sendable_failure(failure: Failed, write: Callable[[object], Any] = to_plain) -> Failed:
    """Convert a failure's contents to plain values; if they cannot be sent, drop them and keep the reason."""
    try:
        return _sendable(failure, write)
    except ContractViolationError as error:
        message = bounded_text(f"{failure.message} (its other contents were dropped: {error.message})")
        return replace(failure, message=message, data={}, metadata=None, costs={}, data_metadata={})


def _files(plain: Any) -> dict[str, FileMetadata]:
    try:
        return msgspec.convert(plain, dict[str, FileMetadata])
    except msgspec.ValidationError as error:
        raise ContractViolationError(f"data_metadata must map names to FileMetadata: {error}") from None


def _is_envelope(fields: Mapping[Any, object], contract: ResultContract) -> bool:
    status = fields.get("status")
    if type(status) is not str:
        status = _text_of(status)
    if isinstance(status, str) and (status in contract.statuses or "error" in fields or "data" in fields):
        return True
    keys = fields.keys()
    return keys <= ENVELOPE_KEYS and not keys.isdisjoint(ENVELOPE_MARKS)


def _text_of(status: object) -> object:
    return status.value if isinstance(status, enum.Enum) else status


def _from_envelope(fields: Mapping[Any, object], contract: ResultContract, write: Callable[[object], Any]) -> Outcome:
    status, error, message = _checked_status(fields, contract), fields.get("error"), fields.get("message")
    if status == CANCELLED:
        _warn_of_dropped(fields, _READ_IF_CANCELLED if error else _READ_IF_CANCELLED | _MESSAGE, status, contract)
        return Cancelled(CancelReason.REQUESTED, _reason(error or message) or _CANCELLED)
    given: tuple[Any, Any, Any] = (fields.get("data"), fields.get("metadata"), fields.get("costs"))
    if status == FAILURE:
        code, reason, details = _error_parts(error)
        failure = Failed(code, reason or _reason(message) or _FAILED, details, *given)
        outcome: Outcome = _sendable_failure(failure, write)
        _warn_of_dropped(fields, _READ if reason else _READ | _MESSAGE, status, contract)
    else:
        data, metadata, costs = _parts(*given, write=write)
        outcome = Succeeded(data, status, metadata, costs)
        if not fields.keys() <= _READ:
            _warn_of_dropped(fields, _READ, status, contract)
    return outcome


def _checked_status(fields: Mapping[Any, object], contract: ResultContract) -> str:
    """Return an envelope's status. Raises `ContractViolationError` if it is unknown or contradicts the error."""
    status, error = _text_of(fields.get("status")), fields.get("error")
    if status is None:
        failed = bool(error) or (error is not None and "data" not in fields)
        return FAILURE if failed else SUCCESS
    if not isinstance(status, str) or status not in contract.statuses:
        raise _unknown_status(status, contract, error)
    if error and status not in {FAILURE, CANCELLED}:
        raise ContractViolationError(
            f"the result has both the status {status!r} and an error ({_reason(error)}): "
            f"return the status {FAILURE!r}, or if it is not a failure, put the error into the data",
            {"status": status, "error": plain_detail(_error_fields(error))},
        )
    return str(status)


def _warn_of_dropped(
    fields: Mapping[Any, object], read: Collection[str], status: str, contract: ResultContract
) -> None:
    keys = [key for key, value in fields.items() if key not in read and value is not None]
    if keys:
        _log.warning(
            "skill %s returned an envelope with status %s; dropping its keys %s%s",
            contract.skill,
            status,
            bounded_text(", ".join(map(repr, keys))),
            "" if status == CANCELLED else "; put anything to be sent into data",
            extra={"action": "result_keys_dropped", "skill": contract.skill},
        )


def _warn_of_status(fields: Mapping[Any, object], contract: ResultContract) -> None:
    """Warn once that a dict that may be meant as a failure counts as data: its status is not one of the skill's."""
    status = _text_of(fields.get("status"))
    if isinstance(status, str) and contract.is_new(status[:_LONGEST_STATUS]):
        _log.warning(
            "skill %s returned a dict with the status %r, which is treated as the data of a success; to report a "
            "failure, raise an error or return {'status': 'failure', 'error': …}; the known statuses are %s",
            contract.skill,
            status[:_LONGEST_STATUS],
            ", ".join(contract.statuses),
            extra={"action": "status_in_data", "skill": contract.skill},
        )


def _unknown_status(status: object, contract: ResultContract, error: object = None) -> ContractViolationError:
    """Return the error for an unknown status; it includes the error that came with the status."""
    shown, allowed = bounded_text(f"{status!r:.{_LONGEST_STATUS}}"), ", ".join(contract.statuses)
    text = f"the result's status {shown} is not one of {allowed} (a skill declares others with output_statuses=)"
    details: dict[str, Any] = {"status": plain_detail(status), "allowed": list(contract.statuses)}
    if error:
        text += f"; its error: {_reason(error)}"
        details["error"] = plain_detail(_error_fields(error))
    return ContractViolationError(text, details)


def _error_parts(error: object) -> tuple[str, str, dict[str, Any]]:
    """Return an error's code, message (or "") and details. It is an exception, a mapping with such keys, or a string.

    Other keys go into the details: nothing that says why a task failed is dropped, and nothing prevents the failure
    from being reported.
    """
    fields = _error_fields(error)
    if not is_dict(fields):
        return TransientError.code, _reason(fields), {}
    code, message, more = fields.pop("code", None), fields.pop("message", None), fields.pop("details", None)
    details = more if is_dict(more) else {} if more is None else {"details": more}
    details.update({f"error.{key}" if key in details else key: value for key, value in fields.items()})
    if not isinstance(code, str) or not code:
        if code is not None:
            details.setdefault("code", code)
        code = TransientError.code
    return bounded_text(code), _reason(message), details


def _error_fields(error: object) -> object:
    """Return an error as a dict of plain values if it has fields, else as a plain value."""
    if isinstance(error, BaseException):
        outcome = from_exception(error)
        return {"code": outcome.code, "message": outcome.message, "details": outcome.details}
    plain = plain_detail(error)
    if is_mapping(error) and not is_dict(plain):  # something in it cannot be sent
        plain = plain_details(error)
        if is_mapping(details := error.get("details")):
            plain["details"] = plain_details(details)
    return dict(plain) if is_dict(plain) else plain


def _reason(error: object) -> str:
    """Return an error, or a part of one, as message text; "" if there is nothing to say."""
    plain = _error_fields(error)
    if is_dict(plain) and isinstance(message := plain.get("message"), str) and message:
        plain = message
    if plain is None or isinstance(plain, str):
        return bounded_text(plain or "")
    return bounded_text(msgspec.json.encode(plain).decode("utf-8", "replace")) if plain else ""


def _plain(value: object, write: Callable[[object], Any] = to_plain, root: str = "$") -> Any:
    try:
        return write(value)
    except UnsendableValueError as error:
        if inspect.iscoroutine(value):
            value.close()  # otherwise Python warns that it was never awaited
        path = root + error.path.removeprefix("$")
        raise ContractViolationError(f"the result cannot be sent: {path}: {error.problem}", {"path": path}) from error


def _as_data(plain: Any) -> dict[str, Any]:
    if plain is None:
        return {}
    return plain if is_dict(plain) else {"result": plain}


def _object(value: Any, name: str) -> dict[str, Any] | None:
    if value is None or is_dict(value):
        return value
    raise ContractViolationError(f"the result's {name} must be an object, not {type(value).__name__}")
