"""One orchestrator as the poller sees it: its polls in flight, and whether to send another."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from avtomatika_worker.errors import RejectedError, WorkerError
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.retry import delay_after
from avtomatika_worker.policy.adaptive_polls import AdaptivePollCount
from avtomatika_worker.policy.backoff import Backoff
from avtomatika_worker.policy.empty_polls import EmptyPolls

LEND_AFTER: Final = 0.5
"""Seconds after which a waiting poll lends its slot.

The slot goes to a poll for skills that no poll in flight at its orchestrator asks for. If the lender's orchestrator has
more polls waiting, any other poll may have it: an orchestrator that leaves a poll waiting has no tasks. If the lender
brings a task after all, that takes the slot of another poll, or is first in line if all slots are running tasks.
"""

STALE: Final = 8
"""Polls, beyond two for each slot, that one orchestrator may leave unanswered before it gets no more."""

OVERDUE: Final = 5.0
"""Seconds beyond the requested time after which a waiting poll no longer prevents another one."""


_MANY: Final = 10
"""Minimum number of tasks to conclude that a limit on polls holds the worker back; fewer may be chance."""


@dataclass(slots=True)
class Since:
    """The results of polls since an orchestrator's rate limit last refused one; ``began`` is in monotonic seconds."""

    began: float
    tasks: int = 0
    empty: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether most of them brought a task."""
        return self.tasks > self.empty and self.tasks >= _MANY


@dataclass(slots=True, eq=False)
class Poll:
    """A poll in flight. If it has ``lent`` its slot, it holds none. ``breaks`` is the link's when it was sent."""

    sent: float
    skills: tuple[str, ...]
    breaks: int
    lent: bool = False

    def asks_for(self, skills: tuple[str, ...]) -> bool:
        """Return whether it may bring a task for each of ``skills``."""
        return self.skills is skills or set(self.skills).issuperset(skills)

    def is_waiting(self, now: float) -> bool:
        """Return whether it has waited for so long that there are no tasks for what it asks for."""
        return now - self.sent >= LEND_AFTER


class PollSource:
    """One orchestrator as the poller sees it. Only the poller changes it."""

    __slots__ = (
        "backoff",
        "breaks",
        "demand",
        "empty",
        "failed_at",
        "limited_until",
        "link",
        "most",
        "not_before",
        "polls",
        "since",
    )

    def __init__(self, link: Link, slots: int) -> None:
        self.link: Link = link
        self.breaks: int = 0
        self.demand: AdaptivePollCount = AdaptivePollCount(slots)
        self.empty: EmptyPolls = EmptyPolls()
        self.backoff: Backoff = Backoff(link.settings.calls)
        self.not_before: float = 0.0
        self.limited_until: float = 0.0
        self.failed_at: float = 0.0
        self.since: Since = Since(0.0)
        self.most: int = 2 * slots + STALE
        self.polls: dict[Poll, None] = {}  # the oldest first

    def stale(self, now: float) -> list[Poll]:
        """Return the polls that are still awaited but no longer counted on.

        They were sent before a break of contact (a proxy may hold their connections while the orchestrator has lost
        them), or have waited for longer than orchestrators hold polls.
        """
        return [*takewhile(lambda poll: self._is_stale(poll, now), tuple(self.polls))]  # those that follow are younger

    def _is_stale(self, poll: Poll, now: float) -> bool:
        overdue = now - self.link.settings.poll_timeout - OVERDUE
        return poll.breaks != self.link.breaks or poll.sent <= overdue

    def live(self, now: float) -> list[Poll]:
        """Return the polls that are counted on, the oldest first."""
        polls = [*self.polls]
        return polls[len(self.stale(now)) :] if polls and self._is_stale(polls[0], now) else polls

    def unasked(self, skills: tuple[str, ...], now: float) -> tuple[str, ...]:
        """Return those of ``skills`` that no poll asks for."""
        live = self.live(now)
        if any(poll.skills is skills for poll in live):
            return ()
        asked = {skill for poll in live for skill in poll.skills}
        return tuple(skill for skill in skills if skill not in asked)

    def got_task(self, now: float) -> None:
        """Record a poll that brought a new task."""
        self.demand.got_task()
        self.empty.got_task()
        if not self.since.tasks:
            self.since = Since(now)
        self.since.tasks += 1

    def came_empty(self, poll: Poll, now: float) -> None:
        """Record a poll that brought nothing, or nothing new."""
        self.demand.came_empty()
        self.since.empty += 1
        pause = self.empty.came_empty(now - poll.sent, self.link.settings.poll_timeout)
        self.not_before = max(self.not_before, now + pause)

    def wants(self, skills: tuple[str, ...], now: float) -> bool:
        """Return whether to send another poll for ``skills``, judging by the polls in flight.

        A poll that was sent when fewer skills had room asks for fewer of them, and does not count.
        """
        live = self.live(now)
        if not skills:
            return False
        if not live:
            return len(self.polls) < self.most
        if len(live) < self.demand.target and not live[0].is_waiting(now):
            return len(self.polls) < self.most  # whatever they ask for
        asking = 0
        for poll in live:
            if poll.asks_for(skills):
                if poll.is_waiting(now):
                    return False
                asking += 1
        return asking < self.demand.target and len(self.polls) < self.most

    def contact_is_back(self, now: float) -> None:
        """Forget failures, but not a request to wait. After a break, start with one poll.

        Polls from before the break may still bring tasks.
        """
        if self.breaks != self.link.breaks:
            self.breaks = self.link.breaks
            self.demand.failed()
        self.backoff.succeeded()
        self.failed_at = now
        self.not_before = self.limited_until

    def failed(self, poll: Poll, error: WorkerError, now: float) -> float | None:
        """Slow down; return the seconds until the next poll, or None if the failure is part of an earlier one.

        Polls that are in flight together fail together: that counts as one failure.
        """
        if poll.sent > self.failed_at:
            self.failed_at = now
            self.demand.failed()
            delay = delay_after(self.backoff, error, self.link.world)
        elif isinstance(error, RejectedError) and error.rate_limited:  # it may name another time
            chance, wish = self.link.world.random.random(), error.retry_after
            delay = self.backoff.policy.delay(1, chance, retry_after=wish, rate_limited=True)
        else:
            return None
        self.not_before = max(self.not_before, now + delay)
        if isinstance(error, RejectedError) and error.rate_limited:
            self.limited_until = self.not_before
        return delay
