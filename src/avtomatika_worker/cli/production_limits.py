"""Warns in ``worker dev`` when a skill does what a released orchestrator's defaults would not allow."""

from __future__ import annotations

import logging
from typing import Final

from avtomatika_worker.devserver import PRODUCTION_LIKE, Change, EmbeddedOrchestrator, JobRecord, JobState
from avtomatika_worker.devserver.verification import RateLimiter, Refusal

_log: Final = logging.getLogger("avtomatika_worker.dev")

_LOOK: Final = 5.0
"""Seconds between checks of how long tasks have been running."""


class ProductionLimits:
    """Notices which skills exceed the defaults of released orchestrators: rate limits of events, and the task timeout.

    Each excess is warned of once per skill.
    """

    def __init__(self) -> None:
        limits = PRODUCTION_LIKE.rate_limits or {}
        self._events = limits["event"]
        self._limiter = RateLimiter(limits, PRODUCTION_LIKE.rate_period)
        self._warned: set[tuple[str, str]] = set()

    def saw(self, change: Change) -> None:
        """Count an event."""
        if change.job is None or change.kind not in {"event", "progress"}:
            return
        try:
            self._limiter.check("event", change.worker_id or "", change.time)
        except Refusal:
            self._warn(
                change.job.skill,
                "event_rate",
                f"sends more events than a released orchestrator accepts by default: after {self._events} of a worker's"
                f" events it refuses all until {PRODUCTION_LIKE.rate_period:.0f} s pass without one. Send fewer",
            )

    def looked_at(self, job: JobRecord, now: float) -> None:
        """Check for how long a task has been running."""
        if job.state is JobState.RUNNING and now - (job.handed_out_at or now) > PRODUCTION_LIKE.task_timeout:
            self._warn(
                job.skill,
                "task_timeout",
                f"takes longer than a released orchestrator waits by default: after {PRODUCTION_LIKE.task_timeout:.0f}"
                " s it hands out the task again. Raise WORKER_TIMEOUT_SECONDS there, or split the work",
            )

    def _warn(self, skill: str, what: str, problem: str) -> None:
        if (skill, what) not in self._warned:
            self._warned.add((skill, what))
            text = "skill %s %s; worker dev --production-like shows the effect"
            _log.warning(text, skill, problem, extra={"action": "production_limit_exceeded", "skill": skill})


async def warn_of_production_limits(orchestrator: EmbeddedOrchestrator) -> None:
    """Warn until the orchestrator stops."""
    limits, looked = ProductionLimits(), 0.0
    async with orchestrator.subscribe() as changes:
        while not changes.ended:
            change = await changes.next_within(_LOOK)
            if change is not None:
                limits.saw(change)
            now = orchestrator.now()
            if abs(now - looked) >= _LOOK:
                looked = now
                for job in orchestrator.jobs.values():
                    limits.looked_at(job, now)
