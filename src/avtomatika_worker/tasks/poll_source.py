"""One orchestrator as the poller sees it: its polls in flight, and whether another one makes sense."""

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
"""Seconds after which a poll that waits lends its slot.

It does so to another orchestrator that has none in flight or, when its own has more polls waiting, to any that has
tasks: one that leaves a poll waiting has none. What a lent poll brings all the same takes the slot of another poll, or
is first in line for one where all run tasks.
"""

STALE: Final = 8
"""Polls beyond two for each slot that one orchestrator may leave unanswered before it is sent no more."""

OVERDUE: Final = 5.0
"""Seconds beyond the wished time after which a poll that waits is no reason not to send another one."""


@dataclass(slots=True, eq=False)
class Poll:
    """A poll in flight. One that has ``lent`` its slot holds none. ``breaks``: the link's, when it was sent."""

    sent: float
    skills: tuple[str, ...]
    breaks: int
    lent: bool = False

    def asks_for(self, skills: tuple[str, ...]) -> bool:
        """Whether it would bring a task of any of ``skills``."""
        return self.skills is skills or set(self.skills).issuperset(skills)


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
        self.most: int = 2 * slots + STALE
        self.polls: dict[Poll, None] = {}  # the oldest first

    def stale(self, now: float) -> list[Poll]:
        """Return the polls that are listened to, and not counted on.

        They are from before a break of contact (a proxy may hold their connections, and the orchestrator know nothing
        of them) or wait for longer than orchestrators do.
        """
        return [*takewhile(lambda poll: self._is_stale(poll, now), tuple(self.polls))]  # those that follow are younger

    def _is_stale(self, poll: Poll, now: float) -> bool:
        overdue = now - self.link.settings.poll_timeout - OVERDUE
        return poll.breaks != self.link.breaks or poll.sent <= overdue

    def live(self, now: float) -> list[Poll]:
        """Return the polls that are counted on, the oldest first."""
        polls = [*self.polls]
        return polls[len(self.stale(now)) :] if polls and self._is_stale(polls[0], now) else polls

    def came_empty(self, poll: Poll, now: float) -> None:
        """Take note of a poll that brought nothing, or nothing new."""
        self.demand.came_empty()
        pause = self.empty.came_empty(now - poll.sent, self.link.settings.poll_timeout)
        self.not_before = max(self.not_before, now + pause)

    def wants(self, skills: tuple[str, ...], now: float) -> bool:
        """Whether another poll for ``skills`` makes sense, as far as its tasks go.

        A poll from a time with less room leaves some skills out, and does not count.
        """
        live = self.live(now)
        if not live:
            return len(self.polls) < self.most
        if len(live) < self.demand.target and now - live[0].sent <= LEND_AFTER:
            return len(self.polls) < self.most  # whatever they ask for
        by_name = self.link.dialect.skill_names
        asking = 0
        for poll in live:
            if not by_name or poll.asks_for(skills):
                if now - poll.sent > LEND_AFTER:
                    return False  # one that waits shows that there is nothing to be had
                asking += 1
        return asking < self.demand.target and len(self.polls) < self.most

    def contact_is_back(self, now: float) -> None:
        """Forget failures, but not that the orchestrator asked to wait. After a break, begin with one poll.

        Those from before may still bring tasks.
        """
        if self.breaks != self.link.breaks:
            self.breaks = self.link.breaks
            self.demand.failed()
        self.backoff.succeeded()
        self.failed_at = now
        self.not_before = self.limited_until

    def failed(self, poll: Poll, error: WorkerError, now: float) -> float | None:
        """Slow down; return the seconds until the next poll, None for a failure that is part of a former one.

        Polls that were in flight together fail together: that is one failure.
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
