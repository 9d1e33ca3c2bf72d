"""A worker's credentials for one orchestrator: its configured tokens, and the access tokens it was granted.

Used from both loops. No token appears in a ``repr``, a log or an error.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Awaitable, Callable
from typing import Final

from avtomatika_worker import threadsafe
from avtomatika_worker.protocol.messages import TokenReply
from avtomatika_worker.world import REAL, World

_LEAST_LIFE: Final = 0.2
"""Minimum seconds between two renewals, whatever lifetime an orchestrator grants."""

_LONGEST_LIFE: Final = 86_400.0


class Credentials:
    """The tokens of one link.

    A *configured* token signs, and authenticates unless there is an access token; with a fallback there are two, of
    which ``configured`` is in use. An *access* token, once granted, authenticates in its place.
    """

    def __init__(self, token: str | None, fallback: str | None = None, world: World = REAL) -> None:
        self._configured: tuple[str | None, ...] = (token, fallback) if fallback and fallback != token else (token,)
        self._world = world
        self._used = 0
        self.configured: str | None = token
        self._lock = threading.Lock()
        self._access: str | None = None
        self._refresh: str | None = None
        self._due_at: float | None = None
        self._renewing = False
        self._settled = threadsafe.Event(is_open=True)
        self.changes: threadsafe.Watch[int] = threadsafe.Watch(0)

    @property
    def all_configured(self) -> tuple[str | None, ...]:
        """All configured tokens; None stands for the lack of one."""
        return self._configured

    @property
    def current(self) -> str | None:
        """The token that authenticates calls now."""
        return self._access or self.configured

    @property
    def refresh_token(self) -> str | None:
        """The token that can be exchanged for new ones, once."""
        return self._refresh

    @property
    def on_fallback(self) -> bool:
        """Whether the fallback is in use."""
        return self._used == 1

    def switch(self) -> bool:
        """Switch to the other configured token; return whether there is one."""
        with self._lock:
            self._used = (self._used + 1) % len(self._configured)
            self.configured = self._configured[self._used]
        return len(self._configured) > 1

    @property
    def has_access_token(self) -> bool:
        """Whether a granted token authenticates."""
        return self._access is not None

    def granted(self, reply: TokenReply, *, renewed: bool = False) -> None:
        """Use new tokens. If they were ``renewed`` without a new refresh token, the former one is kept."""
        with self._lock:
            self._use(reply, renewed=renewed)
        self.changes.touch()

    def forget_granted(self) -> None:
        """Authenticate with the configured token again."""
        with self._lock:
            self._use(None)
        self.changes.touch()

    def renewal_due_in(self) -> float | None:
        """Return the seconds until the access token should be renewed, or None if it need not be."""
        due = self._due_at
        return None if due is None else max(0.0, due - self._world.monotonic())

    def is_good(self, token: str | None) -> bool:
        """Whether the orchestrator should know a token: if not, it was replaced and has lost the worker."""
        return token == self.current and self.renewal_due_in() != 0

    async def renew(self, used: str | None, exchange: Callable[[], Awaitable[TokenReply | None]]) -> bool:
        """Renew the tokens because ``used`` is refused or soon will be; return whether different ones are now in use.

        The first caller renews them with ``exchange`` while the others wait. Tokens that cannot be renewed are
        forgotten. Raises what ``exchange`` raises.
        """
        with self._lock:
            if self._access != used:
                return True
            if used is None:
                return False
            first = not self._renewing
            if first:
                self._renewing = True
                self._settled.close()
        if not first:
            await self._settled.wait()
            return self._access is not None and self._access != used
        try:
            return self._renewed(used, await exchange())
        finally:
            with self._lock:  # otherwise this could open it after the next renewal has closed it
                self._renewing = False
                self._settled.open()

    def _renewed(self, used: str, reply: TokenReply | None) -> bool:
        """Replace ``used``, unless a registration has replaced it meanwhile. Returns what `renew` returns."""
        with self._lock:
            if self._access != used:
                return True
            self._use(reply, renewed=True)
        self.changes.touch()
        return reply is not None

    def _use(self, reply: TokenReply | None, *, renewed: bool = False) -> None:
        """Use new tokens, or none. Called with the lock held."""
        if reply is None:
            self._access = self._refresh = self._due_at = None
            return
        self._access = reply.access_token
        self._refresh = reply.refresh_token or (self._refresh if renewed else None)
        lives = reply.expires_in
        life = None if lives is None else min(max(_LEAST_LIFE, lives * self._share()), _LONGEST_LIFE)
        self._due_at = None if life is None else self._world.monotonic() + life

    def _share(self) -> float:
        """Return the share of its lifetime after which to renew a token; random, so workers do not renew in unison."""
        return self._world.random.uniform(0.7, 0.85)


def make_nonces(world: World) -> Callable[[], str]:
    """Return a function that makes nonces, unique across links and runs of a worker."""
    prefix, numbers = world.token(9), itertools.count()  # short, because it is in every message
    return lambda: f"{prefix}{next(numbers):x}"
