"""A heartbeat that another process can send: it lacks only what has to be new each time (RXON.md, "Signing")."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec

from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError
from avtomatika_worker.protocol.codec import Codec
from avtomatika_worker.protocol.messages import Heartbeat
from avtomatika_worker.protocol.replies import Response
from avtomatika_worker.services.link import Link

_NONCE: Final = secrets.token_urlsafe(24)
_TIMESTAMP: Final = 10**15 + secrets.randbelow(10**15)
"""What stands in a heartbeat where these come: they are random, so that nothing else in it is like them."""


class KeepAlive(msgspec.Struct, frozen=True):
    """A heartbeat to repeat. Sent with a line of JSON, and never logged: it holds the key that signs, and tokens.

    ``parts`` are the canonical bytes before the nonce, between it and the timestamp, and behind that. ``headers_again``
    are for a second try after a 401: with the configured token, where an access token was used. ``ahead``: seconds by
    which the orchestrator's clock is ahead of `steady`. ``due`` is in monotonic seconds, of this machine.
    """

    path: str
    parts: tuple[str, str, str]
    headers: Mapping[str, str]
    headers_again: Mapping[str, str] | None
    signer_id: str
    key: str | None
    ahead: float
    due: float
    interval: float
    registrations: int

    def __repr__(self) -> str:
        return f"KeepAlive(path={self.path!r}, due={self.due!r})"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one heartbeat was answered. ``orchestrator`` is its number; a failure has a ``problem`` and no ``status``.

    ``asked`` is of `steady`, ``at`` in monotonic seconds.
    """

    orchestrator: int
    asked: float
    at: float
    registrations: int
    status: int | None = None
    headers: Mapping[str, str] = {}
    body: str = ""
    problem: str = ""
    timed_out: bool = False

    def response(self) -> Response:
        """Return the answer. Raises `CallTimedOutError` or `ConnectionFailedError` when there was none."""
        if self.status is None:
            problem = f"{self.problem} (in the heartbeat process)"
            raise CallTimedOutError(problem) if self.timed_out else ConnectionFailedError(problem)
        return Response(self.status, self.headers, self.body.encode("latin-1"))


def keepalive_of(link: Link, heartbeat: Heartbeat, due: float) -> KeepAlive:
    """Return ``heartbeat`` in a form that can be sent to the link's orchestrator at any time."""
    unsigned = Codec(link.worker_id, None, lambda: _NONCE).heartbeat(heartbeat, link.dialect, _TIMESTAMP)
    before, _, rest = (unsigned.body or b"").decode().partition(_NONCE)
    between, _, after = rest.partition(str(_TIMESTAMP))
    tokens, dialect = link.credentials, link.dialect
    has_access_token = tokens.has_access_token
    return KeepAlive(
        path=unsigned.path,
        parts=(before, between, after),
        headers=link.codec.headers(tokens.current, dialect),
        headers_again=link.codec.headers(tokens.configured, dialect) if has_access_token else None,
        signer_id=link.worker_id,
        key=tokens.configured,
        ahead=link.clock.ahead,
        due=due,
        interval=link.settings.heartbeat_interval,
        registrations=link.registrations,
    )
