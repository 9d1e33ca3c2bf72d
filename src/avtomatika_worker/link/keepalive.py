"""A heartbeat that another process can send: complete but for what must be new each time (RXON.md, "Signing")."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final

import msgspec

from avtomatika_worker.errors import CallTimedOutError, ConnectionFailedError, MalformedMessageError, RejectedError
from avtomatika_worker.link.access_tokens import renewals
from avtomatika_worker.link.link import Link
from avtomatika_worker.protocol.codec import Codec, Request
from avtomatika_worker.protocol.messages import Heartbeat
from avtomatika_worker.protocol.replies import Response, decode_token
from avtomatika_worker.world import REAL

_NONCE: Final = REAL.token(24)
_TIMESTAMP: Final = 10**15 + REAL.random.randrange(10**15)
"""What stands in a heartbeat where these come: they are random, so that nothing else in it is like them."""


class KeepAlive(msgspec.Struct, frozen=True):
    """A heartbeat to repeat. Sent with a line of JSON, and never logged: it holds the key that signs, and tokens.

    ``parts`` are the canonical bytes before the nonce, between it and the timestamp, and behind that. ``headers_again``
    are those with the configured token, where an access token is used; ``renewals`` renew that after a 401. ``ahead``:
    seconds by which the orchestrator's clock is ahead of the steady one. ``due`` is in monotonic seconds, of this
    machine.
    """

    path: str
    parts: tuple[str, str, str]
    headers: Mapping[str, str]
    headers_again: Mapping[str, str] | None
    renewals: tuple[Request, ...]
    signer_id: str
    key: str | None
    ahead: float
    due: float
    interval: float
    registrations: int

    def __repr__(self) -> str:
        return f"KeepAlive(path={self.path!r}, due={self.due!r})"


class Answered(msgspec.Struct, frozen=True):
    """An answer as the heartbeat process reports it."""

    status: int
    headers: Mapping[str, str]
    body: str

    def response(self) -> Response:
        """Return it in the form in which the transport returns answers."""
        return Response(self.status, self.headers, self.body.encode("latin-1"))

    def __repr__(self) -> str:
        return f"Answered(status={self.status!r})"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one heartbeat was answered. ``orchestrator`` is its number; a failure has a ``problem`` and no ``status``.

    ``granted`` brought another access token before. ``asked`` is of the steady clock, ``at`` in monotonic seconds.
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
    granted: Answered | None = None

    def response(self) -> Response:
        """Return the answer. Raises `CallTimedOutError` or `ConnectionFailedError` if there was none."""
        if self.status is None:
            problem = f"{self.problem} (in the heartbeat process)"
            raise CallTimedOutError(problem) if self.timed_out else ConnectionFailedError(problem)
        return Answered(self.status, self.headers, self.body).response()


def keepalive_of(link: Link, heartbeat: Heartbeat, due: float) -> KeepAlive:
    """Return ``heartbeat`` in a form that can be sent to the link's orchestrator repeatedly."""
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
        renewals=renewals(link) if has_access_token else (),
        signer_id=link.worker_id,
        key=tokens.configured,
        ahead=link.clock.ahead,
        due=due,
        interval=link.settings.heartbeat_interval,
        registrations=link.registrations,
    )


def use_granted(link: Link, answer: Answered, age: float) -> None:
    """Use the tokens that the heartbeat process was granted ``age`` seconds ago. Other answers are ignored."""
    with contextlib.suppress(RejectedError, MalformedMessageError):
        reply = decode_token(answer.response())
        left = None if reply.expires_in is None else max(0.0, reply.expires_in - age)
        link.credentials.granted(msgspec.structs.replace(reply, expires_in=left), renewed=True)
