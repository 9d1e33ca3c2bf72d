"""Decides when a heartbeat is due, and its content. State is per orchestrator (RXON.md, Behaviour 4)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from avtomatika_worker.policy.model_pool import ModelFacts
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import Heartbeat, ResourcesUsage, SkillInfo, WorkerStatus

COALESCE: Final = 0.05
"""Seconds that a state change waits for others to share its heartbeat."""

BURST: Final = 20.0
"""Heartbeats for state changes that may go out in a burst ..."""

REFILL: Final = 1.0
"""... and how many more each second allows: orchestrators accept 120 heartbeats a minute by default."""

USAGE_REFRESH: Final = 60.0
"""Seconds after which the usage is reported again even if it has hardly changed."""

DEAD_BAND_POINTS: Final = 5.0
"""Percentage points by which a load must change to be reported ..."""

DEAD_BAND_SHARE: Final = 0.05
"""... and the share of itself by which an amount of memory must."""

REREGISTER_EVERY: Final = 300.0
"""Seconds after which a worker registers again anyway: an orchestrator that lost it does not say so."""


class WorkerState(msgspec.Struct, frozen=True):
    """The state that the main loop publishes and the link thread reports: an immutable snapshot."""

    status: WorkerStatus = WorkerStatus.IDLE
    running_jobs: tuple[str, ...] = ()
    available_skills: tuple[str, ...] = ()
    hot_skills: tuple[str, ...] = ()
    hot_cache: tuple[str, ...] = ()
    slots_total: int = 0
    slots_usable: int = 0
    slots_running: int = 0
    slots_polling: int = 0
    models: tuple[ModelFacts, ...] = ()
    """The models of the worker's own process: for people and metrics."""

    def reports_the_same_as(self, other: WorkerState) -> bool:
        """Whether an orchestrator would dispatch the same way for both (the list of tasks can wait)."""
        mine = (self.status, self.available_skills, self.hot_skills, self.hot_cache)
        return mine == (other.status, other.available_skills, other.hot_skills, other.hot_cache)


class Catalogue(msgspec.Struct, frozen=True):
    """The facts that do not change while a worker runs."""

    worker_id: str
    skills: tuple[SkillInfo, ...]
    skills_hash: str
    capabilities: dict[str, Any] | None
    """What a registration could not report, or None if it could report everything."""
    skill_dependencies: dict[str, list[str]]


@dataclass(slots=True)
class HeartbeatMemory:
    """What one orchestrator knows, and when its next heartbeat is due (monotonic seconds)."""

    interval: float
    last_state: WorkerState | None = None
    last_hash: str | None = None
    full_sync: bool = False
    next_regular: float = 0.0
    changed_at: float | None = None
    last_usage: ResourcesUsage | None = None
    usage_reported_at: float = 0.0
    held_until: float = 0.0
    """Until then the orchestrator takes no heartbeats: it registers the worker again each time that one is due."""
    _limited: bool = False
    _leaving: bool = False
    _not_before: float = 0.0
    _credit: float = field(default=BURST)
    _credit_at: float = 0.0

    def noticed(self, state: WorkerState, now: float) -> None:
        """Record the newest state: a relevant change makes a heartbeat due soon."""
        if self.last_state is None or not state.reports_the_same_as(self.last_state):
            if self.changed_at is None:
                self.changed_at = now
        else:
            self.changed_at = None
        reported = self.last_state is not None and self.last_state.status is WorkerStatus.DRAINING
        self._leaving = state.status is WorkerStatus.DRAINING and not reported

    def due_at(self, now: float) -> float:
        """Return when the next heartbeat is due."""
        if self.changed_at is None or now < self.held_until:  # registrations are limited, too
            return max(self._not_before, self.next_regular)
        credit = self._credit_now(now)
        in_credit = credit >= 1 or self._leaving  # once in a life: orchestrators would send what is refused here
        earliest = self.changed_at + COALESCE if in_credit else now + (1 - credit) / REFILL
        return max(self._not_before, min(self.next_regular, earliest))

    def compose(
        self, state: WorkerState, catalogue: Catalogue, dialect: Dialect, usage: ResourcesUsage | None = None
    ) -> Heartbeat:
        """Return the heartbeat for ``state``; the catalog and ``usage`` are included if there is news about them.

        ``usage`` is the result of `usage_to_report`.
        """
        # Up to 1.0b8, the catalog is also the availability list (RXON.md, Behaviour 1).
        available_before = self.last_state.available_skills if self.last_state else None
        moved = not dialect.skill_names and available_before != state.available_skills
        is_first = self.last_state is None  # since the registration; a heartbeat's state lasts until the next
        news = self.full_sync or self.last_hash != catalogue.skills_hash or moved
        return Heartbeat(
            worker_id=catalogue.worker_id,
            status=state.status,
            skills_hash=catalogue.skills_hash,
            current_tasks=state.running_jobs,
            available_skills=state.available_skills,
            hot_skills=state.hot_skills,
            hot_cache=state.hot_cache,
            skill_dependencies=catalogue.skill_dependencies,
            catalogue=catalogue.skills if news else None,
            usage=usage,
            capabilities=catalogue.capabilities if is_first or self.full_sync else None,
        )

    def usage_to_report(self, usage: ResourcesUsage | None, now: float) -> ResourcesUsage | None:
        """Return ``usage`` if it is news: unlike the last report, or the last report is too old."""
        if usage is None or self.last_usage is None:
            return usage
        stale = now - self.usage_reported_at >= USAGE_REFRESH
        return usage if stale or differs(usage, self.last_usage) else None

    def usage_reported(self, usage: ResourcesUsage | None, now: float) -> None:
        """Record the usage reported by an accepted heartbeat."""
        if usage is not None:
            self.last_usage, self.usage_reported_at = usage, now

    def sent(self, state: WorkerState, catalogue: Catalogue, now: float, *, jitter: float, full_sync: bool) -> None:
        """Record an accepted heartbeat; ``jitter`` (seconds) shifts the next regular one."""
        self._credit = max(0.0, self._credit_now(now) - 1)
        self._credit_at = now
        self.last_state = state
        self.last_hash = catalogue.skills_hash
        self.full_sync = full_sync
        self.changed_at = None
        self._limited = False
        self.next_regular = now + bounded_interval(self.interval, jitter)

    def failed(self, now: float, delay: float) -> None:
        """Record a failed heartbeat: the next one is due in ``delay`` seconds, and not before."""
        self._not_before = self.next_regular = now + delay

    def limited(self, now: float, delay: float) -> None:
        """Record a heartbeat that was one too many: for ``delay`` seconds a registration is due in place of each."""
        self.held_until = now + delay
        self._limited = True
        self._not_before = self.next_regular = now

    def registered(self, state: WorkerState, catalogue: Catalogue, now: float) -> None:
        """Record a registration: it reported the catalog but not the status, so a heartbeat is due at once.

        After one that was one too many, what follows is due after the interval: the hold may be over by now, were it
        shorter than a registration takes.
        """
        self.last_hash = catalogue.skills_hash
        self.last_state = None
        self.last_usage = None
        self.full_sync = False
        self._not_before = self.next_regular = now + (self.interval if self._limited else 0.0)
        self.noticed(state, now)

    def _credit_now(self, now: float) -> float:
        return min(BURST, self._credit + max(0.0, now - self._credit_at) * REFILL)


def differs(usage: ResourcesUsage, reported: ResourcesUsage) -> bool:
    """Whether the usage has left the dead band around the last report: 5 points of load, 5 % of memory."""
    if abs(usage.cpu_load_percent - reported.cpu_load_percent) >= DEAD_BAND_POINTS:
        return True
    if (
        abs(usage.ram_used_gb - reported.ram_used_gb)
        >= DEAD_BAND_SHARE * max(reported.ram_used_gb, usage.ram_used_gb)
        > 0
    ):
        return True
    loads = {device.unit_id: device.load_percent for device in usage.devices_usage or ()}
    loads_reported = {device.unit_id: device.load_percent for device in reported.devices_usage or ()}
    if loads.keys() != loads_reported.keys():
        return True
    return any(abs(load - loads_reported[unit]) >= DEAD_BAND_POINTS for unit, load in loads.items())


def bounded_interval(interval: float, jitter: float) -> float:
    """Return ``interval`` shifted as the orchestrator asked: to between half and one and a half of itself."""
    return min(1.5 * interval, max(0.5 * interval, interval + jitter))
