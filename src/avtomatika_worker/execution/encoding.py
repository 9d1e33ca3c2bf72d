"""An outcome's data as bytes: encoded once, and those bytes are measured, remembered, stored and sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
import orjson

from avtomatika_worker.errors import ContractViolationError, UnsendableValueError
from avtomatika_worker.execution.controls import Controls, Written
from avtomatika_worker.execution.outcome import Cancelled, Failed, Outcome, bounded_text
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.protocol.canonical import DATA_DEPTH, canonical_at_once, canonical_data
from avtomatika_worker.protocol.messages import CanonicalData
from avtomatika_worker.skills.jsonable import to_plain

_CANNOT_ENCODE: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError)


class EncodedOutcome(msgspec.Struct, frozen=True):
    """An outcome, and its data in the form that is sent; None if it has none."""

    outcome: Outcome
    data: CanonicalData | None = None

    @property
    def size(self) -> int:
        """The size in bytes of the JSON that the skill's output adds; parts that cannot be encoded count as zero."""
        outcome = self.outcome
        if isinstance(outcome, Cancelled):
            return 0
        size = len(self.data.json) if self.data is not None else 0
        details = outcome.details if isinstance(outcome, Failed) else None
        metadata = outcome.metadata
        if not details and not metadata:
            return size
        try:
            return size + len(msgspec.json.encode((metadata, details)))
        except _CANNOT_ENCODE:
            return size


def write_data(controls: Controls, value: Any, allows: Callable[[Any], bool]) -> Any:
    """Return what a skill returned as plain values; if possible, keep the encoded bytes for `encoded`.

    Values of Python's own types are returned unchanged if the output schema ``allows`` them: from here on they are only
    encoded. If it does not, they are decoded from those bytes, and validation then reports on the values as they would
    be sent. Raises `UnsendableValueError`.
    """
    json = canonical_at_once(value, controls.dialect, DATA_DEPTH) if type(as_any(value)) is dict else None
    if json is None:
        return to_plain(value)
    allowed = allows(value)
    controls.written = Written(value if allowed else orjson.loads(json), json, allowed)
    return controls.written.data


def encoded(outcome: Outcome, controls: Controls) -> EncodedOutcome:
    """Encode an outcome's data; if they cannot be sent, return a failure that says so. A failure keeps its reason."""
    if isinstance(outcome, Cancelled):
        return EncodedOutcome(outcome)
    dialect, written = controls.dialect, controls.written
    try:
        if written is not None and written.data is outcome.data:
            json = written.json
        else:
            json = canonical_data(outcome.data, dialect)
    except UnsendableValueError as error:
        path = error.path.encode("utf-8", "replace").decode()
        text = f"the result cannot be sent: {path}: {error.problem}"
        if not isinstance(outcome, Failed):
            return EncodedOutcome(Failed(ContractViolationError.code, bounded_text(text), {"path": path}))
        message = bounded_text(f"{outcome.message} (its other contents were dropped: {text})")
        return EncodedOutcome(replace(outcome, message=message, data={}, data_metadata={}))
    finally:
        controls.written = None
    return EncodedOutcome(outcome, CanonicalData(json, dialect.version))
