"""How many calls a link may still make: one budget per kind of call, as orchestrators count them. Thread-safe."""

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
"""Seconds after which a blocked sender checks again: others may have come or gone, or the limit may now be known."""


class KindBudget(CallBudget):
    """The budget for one kind of call, shared by all tasks of a link: each call is made in a ``with`` block on it.

    Streams, which combine what they send, share what is left of it.
    """

    def __init__(self, limit: CallLimit | None, silence: float, clock: Callable[[], float]) -> None:
        """``limit`` is the configured one; None assumes the orchestrators' default.

        ``silence`` is the seconds after which orchestrators reset their count unless they say otherwise.
        """
        super().__init__(limit or CallLimit(DEFAULT_CALLS, silence), known=limit is not None)
        self._clock = clock
        self._lock = threading.Lock()
        self._held_until = 0.0
        self._streams = 0

    def hold(self, seconds: float) -> None:
        """Send nothing of this kind for ``seconds``, as the orchestrator requested."""
        until = self._clock() + seconds
        with self._lock:
            self._held_until = max(self._held_until, until)

    def held_for(self) -> float:
        """Return the seconds for which nothing of this kind may be sent."""
        now = self._clock()
        with self._lock:
            return max(0.0, self._held_until - now, self.must_wait(now))

    def stream_interval(self) -> float:
        """Return the current interval between calls of a stream, in seconds; infinite while nothing is left."""
        now = self._clock()
        with self._lock:
            return self.interval(now, self._streams)

    def join(self) -> None:
        """Start sharing what is left, until `leave`."""
        with self._lock:
            self._streams += 1

    def leave(self) -> None:
        """Stop sharing what is left."""
        with self._lock:
            self._streams -= 1

    def __enter__(self) -> None:
        """Count the call that is made inside the block."""
        now = self._clock()
        with self._lock:
            self.spend(now)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Learn from how the call ended, above all from a refusal."""
        if error is None:
            if not self.known:  # otherwise there is nothing to learn
                with self._lock:
                    self.taken()
        elif isinstance(error, RejectedError) and error.rate_limited:
            asked, now = error.retry_after, self._clock()
            with self._lock:
                self.refused(now, asked if (asked or math.inf) <= LONGEST_WAIT else None)
