"""Decides when connections closed while idle are a reason to register again (RXON.md, Behaviour 4).

An orchestrator that restarts closes them all and may have lost the worker, but its responses to heartbeats do not say
so. Servers and proxies, however, also close connections after their keep-alive time, which is the same each time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Final

PAUSE: Final = 60.0
"""Minimum seconds between two registrations for this reason: the orchestrators' default lease."""

_ALIKE: Final = 0.5
"""Seconds by which idle times that end with the same keep-alive time may differ."""


class Doubt:
    """Whether one orchestrator may have lost the worker although no call has failed. May be used in any thread."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._last_rest = -math.inf
        self._stands = False
        self._settled_at = -math.inf

    def dropped(self, rested: float) -> None:
        """Record that the other side closed a connection after ``rested`` idle seconds.

        If that is as long as the last time, it is a keep-alive time and means nothing.
        """
        with self._lock:
            self._stands = self._stands or abs(rested - self._last_rest) > _ALIKE
            self._last_rest = rested

    @property
    def calls_for_registration(self) -> bool:
        """Whether the next heartbeat should be a registration."""
        return self._stands and self._monotonic() - self._settled_at >= PAUSE

    def registering(self) -> None:
        """Record that a registration is about to be sent, for whatever reason.

        It will be retried until accepted.
        """
        with self._lock:
            if self._stands:
                self._stands, self._settled_at = False, self._monotonic()
