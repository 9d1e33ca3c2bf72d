"""Renews one orchestrator's access token before it expires. Runs in the link thread."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from avtomatika_worker.errors import MalformedMessageError, TransportError
from avtomatika_worker.link.access_tokens import renew_token
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after, kind_of
from avtomatika_worker.policy.backoff import Backoff

_log: Final = logging.getLogger("avtomatika_worker.link")


class TokenRenewal:
    """Renews an access token whenever that is due, until cancelled."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def run(self) -> None:
        """Renew tokens before they expire. If that fails, the worker registers again to get new ones."""
        tokens, backoff = self._link.credentials, Backoff(self._link.settings.calls)
        while True:
            seen, due = tokens.changes.version, tokens.renewal_due_in()
            if due is None or due > 0:
                await tokens.changes.changed(seen, due)
                continue
            await self._link.ready.wait()  # a registration also grants new tokens
            try:
                if tokens.renewal_due_in() == 0 and not await renew_token(self._link, tokens.current):
                    self._link.contact_broken()
                backoff.succeeded()
            except (TransportError, MalformedMessageError) as error:
                delay = delay_after(backoff, error, self._link.world)
                self._link.faults.log(
                    _log,
                    logging.WARNING,
                    "the access token for %s was not renewed, next try in %.1f s: %s",
                    self._link.url,
                    delay,
                    error,
                    action="token_not_renewed",
                    kind=kind_of(error),
                )
                await asyncio.sleep(delay)
