"""Watches the main loop and the poller from the link thread: neither may stop silently."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Final

from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.watchdog")

TICK: Final = 0.5
"""Seconds between the main loop's signs of life, and between checks of them."""

BLOCKED_AFTER: Final = 2.0
"""Seconds without a sign of life after which the log says what blocks the loop."""

STALLED_AFTER: Final = 10.0
"""Seconds for which a poll may be due without being sent."""

_FRAMES: Final = 12
"""The number of stack frames logged: the innermost ones matter."""


class Pulse:
    """The main loop's sign of life; `run` runs there, the rest may be called from any thread.

    With each beat it calls ``poll_is_due`` there, and publishes the answer.
    """

    def __init__(self, poll_is_due: Callable[[], bool] = lambda: False, world: World = REAL) -> None:
        self._monotonic = world.monotonic
        self._ask_poller = poll_is_due
        self._poll_is_due = False
        self._at = self._monotonic()
        self._thread_id = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self) -> None:
        """Beat until cancelled."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        while True:
            self._at = self._monotonic()
            self._poll_is_due = self._ask_poller()
            await asyncio.sleep(TICK)

    def poll_is_due(self) -> bool:
        """Whether a poll was due at the last beat."""
        return self._poll_is_due

    @property
    def silence(self) -> float:
        """Seconds for which the loop has been blocked, or 0."""
        if self._loop is None:
            return 0.0
        silence = self._monotonic() - self._at - TICK
        return silence if silence > TICK else 0.0

    def blocker(self) -> str:
        """Return the name of the task that the main loop is running."""
        task = asyncio.current_task(self._loop) if self._loop is not None else None
        return task.get_name() if task is not None else "a callback"

    def stack(self) -> str:
        """Return where the main loop's thread is, innermost frame last."""
        frames = sys._current_frames()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented nonetheless
        frame = frames.get(self._thread_id)
        return "" if frame is None else "".join(traceback.format_stack(frame)[-_FRAMES:])


class Watchdog:
    """Runs on the link thread. ``poll_is_due`` returns whether a poll should be sent now."""

    def __init__(
        self,
        pulse: Pulse,
        poll_is_due: Callable[[], bool],
        running_skills: Callable[[], Iterable[str]],
        *,
        blocked_limit: float,
        clock: Callable[[], float] = REAL.monotonic,
    ) -> None:
        self._pulse = pulse
        self._poll_is_due = poll_is_due
        self._running_skills = running_skills
        self._blocked_limit = blocked_limit
        self._clock = clock
        self._blocked: str | None = None
        self._longest = 0.0
        self._due_since: float | None = None
        self._stalled = False

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(TICK)
            self.look()

    def look(self) -> None:
        """Check once."""
        self._look_at_loop()
        self._look_at_poller(self._clock())

    def problem(self) -> str | None:
        """Return why the worker is not live, or None if it is."""
        silence = self._pulse.silence
        if silence > self._blocked_limit:
            return f"the main loop has been blocked for {silence:.0f} s by {self._blocked or self._pulse.blocker()}"
        if self._stalled:
            return f"no poll goes out although one has been due for more than {STALLED_AFTER:.0f} s"
        return None

    def _look_at_loop(self) -> None:
        silence = self._pulse.silence
        if silence >= BLOCKED_AFTER:
            self._longest = silence
            if self._blocked is None:
                self._blocked = self._pulse.blocker()
                self._log_blocked(silence)
        elif self._blocked is not None and not silence:
            _log.warning(
                "the main loop runs again; %s had blocked it for %.1f s",
                self._blocked,
                self._longest,
                extra={"action": "loop_unblocked"},
            )
            self._blocked = None

    def _log_blocked(self, silence: float) -> None:
        running = ", ".join(sorted(set(self._running_skills()))) or "none"
        _log.error(
            "the main loop has been blocked for %.1f s by %s: no task is started or ended meanwhile (running skills:"
            " %s). Blocking work belongs in a plain def skill. It is here:\n%s",
            silence,
            self._blocked,
            running,
            self._pulse.stack(),
            extra={"action": "loop_blocked"},
        )

    def _look_at_poller(self, now: float) -> None:
        if self._pulse.silence or not self._poll_is_due():
            self._due_since, self._stalled = None, False
        elif self._due_since is None:
            self._due_since = now
        elif now - self._due_since > STALLED_AFTER and not self._stalled:
            self._stalled = True
            _log.critical(
                "no poll goes out although one has been due for %.0f s: this is a bug of the worker",
                now - self._due_since,
                extra={"action": "poller_stalled"},
            )
