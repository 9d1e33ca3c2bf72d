"""What events carry: checked before one is queued, so that who sends it learns why it is not sent."""

from __future__ import annotations

from typing import Any

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.skills.jsonable import to_plain


def plain_payload(payload: object) -> tuple[dict[str, Any] | None, str | None]:
    """Return an event's payload as plain values, or None and what is wrong with it."""
    try:
        plain = to_plain(payload)
    except UnsendableValueError as error:
        return None, f"it cannot be sent: {error.path.replace('$', 'payload', 1)}: {error.problem}"
    if not is_dict(plain):
        return None, f"the payload must be an object, not {type(payload).__name__}"
    return plain, None


def unsendable(event_type: object, payload: dict[str, Any], dialect: Dialect, limit: int | None = None) -> str | None:
    """Return why an event would be refused by an orchestrator of this dialect, None when it would not.

    ``limit``: the most bytes of JSON that the payload may have.
    """
    if not isinstance(event_type, str) or not event_type:
        return f"the type of an event must be a text that is not empty, not {type(event_type).__name__}"
    try:
        canonical_bytes({"event_type": event_type}, dialect)
        size = len(canonical_bytes({"payload": payload}, dialect)) - len('{"payload":}')
    except UnsendableValueError as error:
        return f"it cannot be sent: {error.path.removeprefix('$.')}: {error.problem}"
    if limit is not None and size > limit:
        return f"its payload is {size} bytes long, and at most {limit} (MAX_RESULT_BYTES) can be sent"
    return None
