"""Where one client of a store may go, and how much may be sent to it: the rule, apart from any network."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

_IDLE_BYTES: Final = 64 * 1024
"""Bytes that may come through tunnels while nothing is asked for: the end of a TLS connection, for one."""
_STORES_OWN: Final = frozenset({"x-amz-content-sha256", "x-amz-date", "x-ms-version", "range", "if-match"})
"""Headers of requests to stores: a request with one of them that goes elsewhere was redirected."""
_TOO_MUCH: Final = "it sends more than it was asked for"
REDIRECTED: Final = "it redirects, which is not followed; is it the store of this bucket and region?"

Authority = tuple[str, int]
"""A host, in lower case and without brackets, and a port."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a route leads to: the store, and hosts that give credentials.

    ``store`` is what obstore asks for, in plain HTTP; it is at ``place``, over ``tls`` if there is a context.
    """

    store: Authority
    place: Authority
    tls: ssl.SSLContext | None = None
    credentials: frozenset[Authority] = frozenset()


@dataclass(frozen=True, slots=True)
class Problem:
    """What obstore is not told by a proxy that closes a connection. ``passing``: whether it may pass."""

    text: str
    passing: bool
    noted: float


@dataclass(eq=False)
class Route:
    """What one client of a store may ask, and how much may be sent to it. Used by two threads.

    ``allowed`` is None for a route that leads nowhere and only notes in ``asked`` what it was asked for.
    """

    allowed: Allowed | None = None
    asked: list[tuple[str, Authority]] = field(default_factory=list[tuple[str, Authority]])
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _left: int = _IDLE_BYTES
    _granted: int = 0
    _problem: Problem | None = None
    _guard: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @contextlib.contextmanager
    def granting(self, size: int) -> Generator[Callable[[], None]]:
        """Let hosts send ``size`` bytes while this lasts; what it yields grants them again.

        All calls of a client share what is granted: which bytes are for which of them cannot be seen in a tunnel.
        """
        with self._guard:
            self._granted += size
            self._left += size

        def again() -> None:
            with self._guard:
                self._left = min(self._left + size, self._granted + _IDLE_BYTES)

        try:
            yield again
        finally:
            with self._guard:
                self._granted -= size
                self._left = min(max(self._left, 0), self._granted + _IDLE_BYTES)

    def spend(self, size: int) -> bool:
        """Count bytes that a host has sent. Returns False when they are too many."""
        with self._guard:
            self._left -= size
            if self._left >= 0:
                return True
        self.note(_TOO_MUCH, passing=True)
        return False

    def has_room(self, size: int) -> bool:
        """Whether so many bytes may still come. What is announced is room that obstore makes at once."""
        if size <= self._left:
            return True
        self.note(_TOO_MUCH, passing=True)
        return False

    def refusal(self, scheme: str, authority: Authority, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, None when it is not."""
        if self.allowed is None:
            self.asked.append((scheme, authority))
            return "this route leads nowhere"
        if authority == self.allowed.store and scheme == "http":
            return None
        if authority in self.allowed.credentials and not _STORES_OWN & headers.keys():
            return None
        return REDIRECTED

    def note(self, text: str, *, passing: bool) -> None:
        """Note what went wrong, for whoever made the call."""
        self._problem = Problem(text, passing, time.monotonic())

    def problem_since(self, began: float) -> Problem | None:
        """Return the last thing that went wrong after this reading of the monotonic clock, None if nothing has."""
        problem = self._problem
        return problem if problem is not None and problem.noted >= began else None
