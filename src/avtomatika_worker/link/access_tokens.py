"""Gets access tokens from an orchestrator: initially with a certificate, and again when a token is refused."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from avtomatika_worker.errors import MalformedMessageError, RejectedError, TransportError
from avtomatika_worker.link.credentials import Credentials
from avtomatika_worker.link.isolation import Contained, contained
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.protocol import replies
from avtomatika_worker.protocol.codec import Codec, Request
from avtomatika_worker.protocol.messages import TokenReply
from avtomatika_worker.protocol.replies import Response

_log: Final = logging.getLogger("avtomatika_worker.link")

_TRY_AGAIN: Final = frozenset({408, 425, 429})

REFUSED: Final = frozenset({401, 403})
"""Statuses for a token that the orchestrator does not know: 401 in 1.0b21, 403 since 1.0b22 (measured).

403 also means a replay or a timestamp that is off.
"""


class Authenticated(Contained, Protocol):
    """A link, as far as this module needs it."""

    settings: LinkSettings
    credentials: Credentials
    caught_up: Callable[[], Awaitable[None]]

    @property
    def codec(self) -> Codec:
        """Encodes requests."""
        ...

    def call(self, request: Request, *, configured_token: bool = False) -> Coroutine[Any, Any, Response]:
        """Send a request; return the response, whatever its status."""
        ...


async def token_renewed(link: Authenticated, used: str | None, status: int | None) -> bool:
    """Get another token if the orchestrator refused ``used``; return whether to repeat the call."""
    if status not in REFUSED or used == link.credentials.current == link.credentials.configured:
        return False
    try:
        return await renew_token(link, used)
    except (TransportError, MalformedMessageError):
        return False  # the refusal of the call itself is reported


@contained
async def renew_token(link: Authenticated, used: str | None) -> bool:
    """Replace the access token ``used``; return whether there is a new one. Raises what `call` raises."""
    await link.caught_up()
    return await link.credentials.renew(used, partial(_exchange, link))


@contained
async def obtain_token(link: Authenticated) -> None:
    """Ask for an access token if a certificate identifies the worker. A refusal is not an error."""
    if not link.settings.has_certificate or link.credentials.has_access_token:
        return
    response = await link.call(link.codec.access_token(), configured_token=True)
    try:
        link.credentials.granted(replies.decode_token(response))
    except (RejectedError, MalformedMessageError) as error:
        _log.info("%s granted no access token: %s", link.url, error, extra={"action": "token_not_granted"})


def renewals(link: Authenticated) -> tuple[Request, ...]:
    """Return the requests that may yield new tokens, to be tried in order."""
    refresh = link.credentials.refresh_token
    by_token = (link.codec.refresh_token(refresh),) if refresh else ()
    return (*by_token, link.codec.access_token()) if link.settings.has_certificate else by_token


async def _exchange(link: Authenticated) -> TokenReply | None:
    """Try every way to get new tokens; return None if all are refused."""
    for request in renewals(link):
        response = await link.call(request, configured_token=True)
        if response.status in _TRY_AGAIN or response.status >= 500 or 300 <= response.status < 400:
            replies.raise_for_status(response)
        if response.status < 300:
            reply = replies.decode_token(response)
            _log.debug("the access token for %s was renewed", link.url, extra={"action": "token_renewed"})
            return reply
    return None
