"""A worker's credentials for one orchestrator: its configured tokens, and the access tokens it was granted.

May be used from both loops. No token appears in ``repr``, in a log or in an error.
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
"""Seconds between two renewals, whatever lifetime an orchestrator grants."""

_LONGEST_LIFE: Final = 86_400.0


class Credentials:
    """The tokens of one link.

    A *configured* token signs, and authenticates where nothing else does; with a fallback there are two, one of them in
    use. An *access* token, once granted, authenticates in its place.
    """

    def __init__(self, token: str | None, fallback: str | None = None, world: World = REAL) -> None:
        self._configured: tuple[str | None, ...] = (token, fallback) if fallback and fallback != token else (token,)
        self._world = world
        self._used = 0
        self._lock = threading.Lock()
        self._access: str | None = None
        self._refresh: str | None = None
        self._due_at: float | None = None
        self._renewing = False
        self._settled = threadsafe.Event(is_open=True)
        self.changes: threadsafe.Watch[int] = threadsafe.Watch(0)

    @property
    def all_configured(self) -> tuple[str | None, ...]:
        """Every configured token; None stands for having none."""
        return self._configured

    @property
    def configured(self) -> str | None:
        """The configured token that is in use."""
        return self._configured[self._used]

    @property
    def current(self) -> str | None:
        """What authenticates a call now."""
        return self._access or self._configured[self._used]

    @property
    def refresh_token(self) -> str | None:
        """What new tokens can be had for, once."""
        return self._refresh

    @property
    def on_fallback(self) -> bool:
        """Whether the fallback is in use."""
        return self._used == 1

    def switch(self) -> bool:
        """Use the other configured token from now on; return whether there is another one."""
        with self._lock:
            self._used = (self._used + 1) % len(self._configured)
        return len(self._configured) > 1

    @property
    def has_access_token(self) -> bool:
        """Whether a granted token authenticates."""
        return self._access is not None

    def granted(self, reply: TokenReply, *, renewed: bool = False) -> None:
        """Use new tokens; where they were ``renewed``, the refresh token stays good when no new one came."""
        lives = reply.expires_in
        with self._lock:
            self._access = reply.access_token
            self._refresh = reply.refresh_token or (self._refresh if renewed else None)
            life = None if lives is None else min(max(_LEAST_LIFE, lives * self._share()), _LONGEST_LIFE)
            self._due_at = None if life is None else self._world.monotonic() + life
        self.changes.touch()

    def forget_granted(self) -> None:
        """Authenticate with the configured token again."""
        with self._lock:
            self._access = self._refresh = self._due_at = None
        self.changes.touch()

    def renewal_due_in(self) -> float | None:
        """Return the seconds until the access token should be renewed; None when it need not be."""
        due = self._due_at
        return None if due is None else max(0.0, due - self._world.monotonic())

    async def renew(self, used: str | None, exchange: Callable[[], Awaitable[TokenReply | None]]) -> bool:
        """Have the tokens renewed because ``used`` is refused, or soon will be; return whether others are in use now.

        Whoever comes first does it with ``exchange``, the others wait. Tokens that cannot be renewed are forgotten.
        Raises what ``exchange`` raises.
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
            reply = await exchange()
            if reply is None:
                self.forget_granted()
                return False
            self.granted(reply, renewed=True)
        finally:
            with self._lock:  # else it could open after the next one has closed it
                self._renewing = False
                self._settled.open()
        return True

    def _share(self) -> float:
        """Return the share of its life after which a token is renewed; thousands of workers renew at other times."""
        return self._world.random.uniform(0.7, 0.85)


def make_nonces(world: World) -> Callable[[], str]:
    """Return what makes nonces: no two are alike, of no two links and no two runs of a worker."""
    prefix, numbers = world.token(9), itertools.count()  # short: it is in every message
    return lambda: f"{prefix}{next(numbers):x}"
