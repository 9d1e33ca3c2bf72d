"""Decides when connections that are closed while idle are a reason to register again (RXON.md, Behaviour 4).

An orchestrator that restarts closes them all, and may have lost the worker, which its answers to heartbeats do not say.
But servers and proxies also close what has been idle for their keep-alive time, which is the same each time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

PAUSE: Final = 60.0
"""Seconds between two registrations for this reason, at least: the lease of orchestrators by default."""

_ALIKE: Final = 0.5
"""Seconds by which two idle times may differ that the same keep-alive time has ended."""


class Doubt:
    """Whether one orchestrator may have lost the worker although no call has failed. May be used in any thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last_rest = -math.inf
        self._stands = False
        self._settled_at = -math.inf

    def dropped(self, rested: float) -> None:
        """Take note of a connection that was closed over there after ``rested`` idle seconds.

        Where that is as long as the last time, it is a keep-alive time, and says nothing.
        """
        with self._lock:
            self._stands = self._stands or abs(rested - self._last_rest) > _ALIKE
            self._last_rest = rested

    @property
    def calls_for_registration(self) -> bool:
        """Whether the next heartbeat is to be a registration."""
        return self._stands and self._monotonic() - self._settled_at >= PAUSE

    def registering(self) -> None:
        """Take note of a registration that is about to be sent, whatever it is for.

        It is tried until one is accepted.
        """
        with self._lock:
            if self._stands:
                self._stands, self._settled_at = False, self._monotonic()
