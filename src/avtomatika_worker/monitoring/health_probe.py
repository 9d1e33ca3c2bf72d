"""The worker's own view of its health, for the health server. Called on the link thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.link.link import Link
from avtomatika_worker.monitoring.health import Health
from avtomatika_worker.monitoring.watchdog import Watchdog
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.link_state import LinkState
from avtomatika_worker.tasks.runner import TaskRunner


class HealthProbe(msgspec.Struct, frozen=True):
    """Checks everything relevant; ``facts`` are passed on unchanged."""

    links: Sequence[Link]
    outbox: Outbox
    state_watch: threadsafe.Watch[WorkerState]
    watchdog: Watchdog
    facts: Mapping[str, Any]
    tasks: TaskRunner

    def __call__(self) -> Health:
        """Return the worker's current health. An orchestrator's outage is not the worker's."""
        return Health(not_live=self.watchdog.problem(), not_ready=self._not_ready(), details=self._details())

    def _not_ready(self) -> str | None:
        states = {link.state for link in self.links}
        if states & {LinkState.DRAINING, LinkState.CLOSED}:
            return "shutting down"
        return None if LinkState.REGISTERED in states else "not registered with any orchestrator"

    def _details(self) -> dict[str, Any]:
        state, outbox = self.state_watch.value, self.outbox
        return {
            **self.facts,
            "status": state.status.value,
            "slots": {
                "total": state.slots_total,
                "usable": state.slots_usable,
                "running": state.slots_running,
                "polling": state.slots_polling,
            },
            "skills": [
                {"name": name, "available": name in state.available_skills, "hot": name in state.hot_skills}
                for name in self.tasks.skills
            ],
            "models": [
                {
                    "name": each.name,
                    "loader": each.loader,
                    "state": each.phase.value,
                    "tasks": each.users,
                    "bytes": each.size,
                }
                for each in state.models
            ],
            "tasks": self.tasks.running.overview(),
            "adopted": self.tasks.adoption.total,
            "links": [
                {
                    "orchestrator": link.label,
                    "state": link.state.value,
                    "protocol": link.dialect.version,
                    "outbox": outbox.backlog(link),
                }
                for link in self.links
            ],
            "outbox": {"depth": outbox.depth, "oldest_seconds": round(outbox.oldest, 1), "expired": outbox.expired},
        }
