"""A heartbeat that another process can send: complete except for what must be new each time (RXON.md, "Signing")."""

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
"""Placeholders for these in a heartbeat; random, so that nothing else in it can match them."""


class KeepAlive(msgspec.Struct, frozen=True):
    """A heartbeat to repeat. Passed as a line of JSON and never logged: it holds the signing key and tokens.

    ``parts`` are the canonical bytes before the nonce, between nonce and timestamp, and after the timestamp.
    ``headers_again`` are the headers with the configured token, if an access token is in use; ``renewals`` are requests
    that renew the latter after a 401. ``ahead`` is the seconds by which the orchestrator's clock is ahead of the steady
    one. ``due`` is in this machine's monotonic seconds.
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
    """A response as the heartbeat process reports it."""

    status: int
    headers: Mapping[str, str]
    body: str

    def response(self) -> Response:
        """Return it in the form that the transport returns."""
        return Response(self.status, self.headers, self.body.encode("latin-1"))

    def __repr__(self) -> str:
        return f"Answered(status={self.status!r})"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The response to one heartbeat. ``orchestrator`` is a number; a failure has a ``problem`` and no ``status``.

    ``granted`` is the response that supplied a new access token first, if any. ``asked`` is a time on the steady clock,
    ``at`` in monotonic seconds.
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

    def __repr__(self) -> str:
        return f"Report(orchestrator={self.orchestrator!r}, status={self.status!r})"

    def response(self) -> Response:
        """Return the response. Raises `CallTimedOutError` or `ConnectionFailedError` if there was none."""
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
    """Use the tokens that the heartbeat process was granted ``age`` seconds ago. Any other response is ignored."""
    with contextlib.suppress(RejectedError, MalformedMessageError):
        reply = decode_token(answer.response())
        left = None if reply.expires_in is None else max(0.0, reply.expires_in - age)
        link.credentials.granted(msgspec.structs.replace(reply, expires_in=left), renewed=True)
