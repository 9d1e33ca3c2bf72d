"""What a link may still send: one budget for each kind of call, as orchestrators count them. Used from any thread."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

from avtomatika_worker.errors import RejectedError
from avtomatika_worker.policy.backoff import LONGEST_WAIT
from avtomatika_worker.policy.call_budget import DEFAULT_CALLS, CallBudget, CallLimit

CHECK_AGAIN: Final = 1.0
"""Seconds after which whoever is held back looks again: others may have begun or ended, or the limit be learnt."""


class KindBudget(CallBudget):
    """The budget of one kind of call, shared by all tasks of a link: each call is made in a ``with`` block of it.

    ``streams`` are those that combine what they send, and share what is left.
    """

    def __init__(self, limit: CallLimit | None, silence: float, clock: Callable[[], float]) -> None:
        """``limit``: as configured; None for the default of orchestrators, which is then an assumption only.

        ``silence``: the seconds after which orchestrators begin to count again where they do not say it.
        """
        super().__init__(limit or CallLimit(DEFAULT_CALLS, silence), known=limit is not None)
        self._clock = clock
        self._lock = threading.Lock()
        self._held_until = 0.0
        self._streams = 0

    def hold(self, seconds: float) -> None:
        """Send nothing of this kind for a while: the orchestrator asked for that."""
        until = self._clock() + seconds
        with self._lock:
            self._held_until = max(self._held_until, until)

    def held_for(self) -> float:
        """Return the seconds for which nothing of this kind goes out."""
        now = self._clock()
        with self._lock:
            return max(0.0, self._held_until - now, self.must_wait(now))

    def stream_interval(self) -> float:
        """Return the seconds between two calls of a stream, as things are; infinite while nothing is left."""
        now = self._clock()
        with self._lock:
            return self.interval(now, self._streams)

    def join(self) -> None:
        """Be one of those that share what is left, until `leave`."""
        with self._lock:
            self._streams += 1

    def leave(self) -> None:
        """Leave what is left to the others."""
        with self._lock:
            self._streams -= 1

    def __enter__(self) -> None:
        """Count the call that is made inside of the block."""
        now = self._clock()
        with self._lock:
            self.spend(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Learn from how the call ended: from a refusal above all."""
        if error is None:
            if not self.known:  # else nothing can be learned from it
                with self._lock:
                    self.taken()
        elif isinstance(error, RejectedError) and error.rate_limited:
            asked, now = error.retry_after, self._clock()
            with self._lock:
                self.refused(now, asked if (asked or math.inf) <= LONGEST_WAIT else None)
