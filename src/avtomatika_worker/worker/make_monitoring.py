"""Makes a worker's monitoring from its settings: watchdog, usage, slot tuner, gauges, health server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker._version import __version__
from avtomatika_worker._waiting import in_thread
from avtomatika_worker.config import Settings, SlotTunerKind
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.link.link import Link
from avtomatika_worker.link_thread import Service
from avtomatika_worker.monitoring.gauges import watch_links, watch_machine, watch_models, watch_slots
from avtomatika_worker.monitoring.health import HealthServer
from avtomatika_worker.monitoring.health_probe import HealthProbe
from avtomatika_worker.monitoring.slot_tuning import tune_slots
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.monitoring.watchdog import Pulse, Watchdog
from avtomatika_worker.observability.telemetry import Telemetry, set_up
from avtomatika_worker.observability.usage_meter import UsageMeter
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slot_tuner import LEAST_SLOTS, TunerPolicy
from avtomatika_worker.supervisor import Part
from avtomatika_worker.tasks.poller import Poller
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.health")


class Monitoring(msgspec.Struct, frozen=True):
    """The main loop's sign of life, what watches from the link thread, and what answers for the worker's health."""

    pulse: Pulse
    services: Sequence[Service]
    probe: HealthProbe
    health: HealthServer | None
    port_is_asked_for: bool = True

    def parts(self) -> list[Part]:
        """Return what is opened and closed. A port that is taken is known before anything else is made."""
        if self.health is None:
            return []
        return [Part("the health server", self._open_health_server, partial(in_thread, self.health.close))]

    def _open_health_server(self) -> None:
        """Listen. A port that nobody asked for may be taken: by another worker of the same host, for instance."""
        assert self.health is not None  # noqa: S101 - of `parts`
        try:
            self.health.open()
        except ConfigError as error:
            if self.port_is_asked_for:
                raise
            _log.warning("there is no health server: %s", error, extra={"action": "health_server_off"})


def make_telemetry(settings: Settings) -> Telemetry:
    """Return the worker's metrics and traces. Raises `ConfigError` if they are enabled but unavailable."""
    return set_up(
        enabled=settings.enable_metrics,
        service_name=settings.worker_type,
        worker_id=settings.worker_id,
        version=__version__,
    )


def make_monitoring(
    settings: Settings,
    links: Sequence[Link],
    outbox: Outbox,
    state_watch: threadsafe.Watch[WorkerState],
    to_main: threadsafe.CallQueue,
    tasks: TaskRunner,
    poller: Poller,
    usage: UsageMonitor,
    telemetry: Telemetry,
    world: World = REAL,
    *,
    health_check: bool,
) -> Monitoring:
    """Return what watches over these parts. Called on the main loop."""
    pulse = Pulse(poller.is_due, world)
    limit, skills = settings.loop_blocked_limit, tasks.running.skills
    watchdog = Watchdog(pulse, pulse.poll_is_due, skills, blocked_limit=limit, clock=world.monotonic)
    watch_slots(telemetry.metrics, state_watch, poller)
    watch_models(telemetry.metrics, state_watch)
    watch_links(telemetry.metrics, links, outbox)
    watch_machine(telemetry.metrics, usage, pulse)
    services: list[Service] = [watchdog.run, usage.run]
    if settings.slot_tuner is SlotTunerKind.RESOURCE:
        policy = TunerPolicy(LEAST_SLOTS, tasks.slots.total)
        shares = UsageMeter(clock=world.monotonic).shares
        services.append(tune_slots(policy, shares, state_watch, to_main, tasks, world).run)
    facts = {"version": __version__, "worker_id": settings.worker_id, "worker_type": settings.worker_type}
    probe = HealthProbe(links, outbox, state_watch, watchdog, facts, tasks)
    health = HealthServer(settings.health_host, settings.port, probe, telemetry.scrape) if health_check else None
    return Monitoring(pulse, services, probe, health, settings.port_is_asked_for)
