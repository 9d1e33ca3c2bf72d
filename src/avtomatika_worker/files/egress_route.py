"""Where a store client may connect, and how much it may receive: the rule, without any network."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

_IDLE_BYTES: Final = 64 * 1024
"""Bytes that tunnels may deliver unrequested, such as the end of a TLS connection."""
_STORES_OWN: Final = frozenset({"x-amz-content-sha256", "x-amz-date", "x-ms-version", "range", "if-match"})
"""Headers of store requests: a request with one of them to any other host was redirected."""
_TOO_MUCH: Final = "it sends more than was requested"
REDIRECTED: Final = "it redirects, which is not followed; check the bucket, the region and the store's address"

Authority = tuple[str, int]
"""A host, in lower case and without brackets, and a port."""


class Allowed(msgspec.Struct, frozen=True):
    """What a route leads to: the store, and hosts that give credentials.

    ``store`` is what obstore asks for, in plain HTTP; it is at ``place``, over ``tls`` if there is a context.
    """

    store: Authority
    place: Authority
    tls: ssl.SSLContext | None = None
    credentials: frozenset[Authority] = frozenset()


class Problem(msgspec.Struct, frozen=True):
    """An error that obstore cannot see when the proxy closes the connection. ``passing``: whether it may pass."""

    text: str
    passing: bool
    noted: float


@dataclass(eq=False)
class Route:
    """The requests a store client may make, and how much it may receive. Used by two threads.

    ``allowed`` is None for a route that leads nowhere and only records requests in ``asked``.
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
        """Let hosts send ``size`` bytes within this block; the yielded function grants them again.

        All calls of a client share the grant: in a tunnel, bytes cannot be assigned to calls.
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
        """Count bytes sent by a host. Returns False if they are too many."""
        with self._guard:
            self._left -= size
            if self._left >= 0:
                return True
        self.note(_TOO_MUCH, passing=True)
        return False

    def has_room(self, size: int) -> bool:
        """Whether this many bytes may still come. obstore allocates the announced size at once."""
        if size <= self._left:
            return True
        self.note(_TOO_MUCH, passing=True)
        return False

    def refusal(self, scheme: str, authority: Authority, headers: Mapping[str, str]) -> str | None:
        """Return why a request is refused, or None if it is allowed."""
        if self.allowed is None:
            self.asked.append((scheme, authority))
            return "this route leads nowhere"
        if authority == self.allowed.store and scheme == "http":
            return None
        if authority in self.allowed.credentials and not _STORES_OWN & headers.keys():
            return None
        return REDIRECTED

    def note(self, text: str, *, passing: bool) -> None:
        """Record an error for the caller."""
        self._problem = Problem(text, passing, time.monotonic())

    def problem_since(self, began: float) -> Problem | None:
        """Return the last error since this reading of the monotonic clock, or None."""
        problem = self._problem
        return problem if problem is not None and problem.noted >= began else None
