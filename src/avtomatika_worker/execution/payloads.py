"""Validates what events carry before they are queued, so that senders learn why an event is not sent."""

from __future__ import annotations

import math
from functools import partial
from numbers import Real
from typing import Any, Final, NamedTuple

from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import as_any, is_dict, is_list, is_mapping, is_tuple
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.skills.declaration import IDENTIFIER
from avtomatika_worker.skills.jsonable import to_plain


def plain_payload(payload: object) -> tuple[dict[str, Any] | None, str | None]:
    """Return an event's payload as plain values, or None and the problem."""
    try:
        plain = to_plain(payload)
    except UnsendableValueError as error:
        return None, f"it cannot be sent: {error.path.replace('$', 'payload', 1)}: {error.problem}"
    if not is_dict(plain):
        return None, f"the payload must be an object, not {type(payload).__name__}"
    return plain, None


class EventFacts(NamedTuple):
    """What an event carries besides its type and payload; ``origin_worker_id`` is None for this worker."""

    priority: float = 0.0
    metadata: dict[str, Any] | None = None
    origin_worker_id: str | None = None
    identity_chain: list[str] | None = None


NO_FACTS: Final = EventFacts()


def event_facts(
    priority: object = None, security: object = None, metadata: object = None, origin_worker_id: object = None
) -> EventFacts:
    """Return the validated facts of an event. Raises ValueError naming the one that is invalid.

    Only the ``identity_chain`` of ``security``, a dict or an object, is used: the worker signs the event itself.
    """
    number = as_any(0.0 if priority is None else priority)
    if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
        raise ValueError(f"the priority of an event must be a finite number, not {priority!r:.80}")
    origin = origin_worker_id or None
    if origin is not None and not (isinstance(origin, str) and IDENTIFIER.fullmatch(origin)):
        raise ValueError(f"the origin_worker_id of an event must be a worker's id, not {origin!r:.80}")
    plain, problem = plain_payload(metadata or {})
    if problem is not None:
        raise ValueError(f"the metadata of an event is invalid: {problem}")
    return EventFacts(float(number), plain or None, origin, _chain_of(security))


def _chain_of(security: object) -> list[str] | None:
    if security is None:
        return None
    get = security.get if is_mapping(security) else partial(getattr, security)
    chain: object = get("identity_chain", None)
    if chain is None:
        return None
    if not (is_list(chain) or is_tuple(chain)) or not all(isinstance(each, str) for each in chain):
        raise ValueError(f"the identity_chain of an event's security must be a list of strings, not {chain!r:.80}")
    return [str(each) for each in chain]


def unsendable(
    event_type: object,
    payload: dict[str, Any],
    dialect: Dialect,
    limit: int | None = None,
    facts: EventFacts = NO_FACTS,
) -> str | None:
    """Return why an orchestrator of this dialect would refuse an event, or None if it would accept it.

    ``limit`` is the maximum size of payload and metadata, in bytes of JSON.
    """
    if not isinstance(event_type, str) or not event_type:
        return f"the type of an event must be a nonempty string, not {type(event_type).__name__}"
    try:
        canonical_bytes({"event_type": event_type}, dialect)
        size = len(canonical_bytes({"payload": payload}, dialect)) - len('{"payload":}')
        size += len(canonical_bytes({"metadata": facts.metadata}, dialect)) if facts.metadata else 0
    except UnsendableValueError as error:
        return f"it cannot be sent: {error.path.removeprefix('$.')}: {error.problem}"
    if limit is not None and size > limit:
        what = "payload and metadata are" if facts.metadata else "payload is"
        return f"its {what} {size} bytes long, but at most {limit} (MAX_RESULT_BYTES) can be sent"
    return None
