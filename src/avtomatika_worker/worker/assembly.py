"""Assembles a worker from its settings, one area after another. Nothing starts here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from avtomatika_worker import threadsafe
from avtomatika_worker._waiting import in_thread
from avtomatika_worker.config import Settings
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.middleware import Middleware
from avtomatika_worker.link.link import Link
from avtomatika_worker.link_thread import Service
from avtomatika_worker.monitoring.notices import Notices
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.rotation import Rotation
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.supervisor import Engine, MainService, Part, Supervisor
from avtomatika_worker.tasks.poller import Poller
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.tasks.worker_events import WorkerEvents
from avtomatika_worker.worker.announcement import announce
from avtomatika_worker.worker.make_delivery import make_outbox
from avtomatika_worker.worker.make_links import Links, make_links
from avtomatika_worker.worker.make_monitoring import Monitoring, make_monitoring, make_telemetry
from avtomatika_worker.worker.make_notices import make_notices
from avtomatika_worker.worker.make_tasks import Policies, make_tasks, make_workshop, needed_when_hot
from avtomatika_worker.worker.resource_plan import ResourcePlan
from avtomatika_worker.world import REAL, World

if TYPE_CHECKING:
    from avtomatika_worker.monitoring.heartbeat_process import HeartbeatProcess

_STORE_TIMEOUT: Final = 10.0
"""Seconds for writing undelivered results to disk."""


def assemble(
    settings: Settings,
    registry: SkillRegistry,
    middlewares: Sequence[Middleware],
    policies: Policies,
    resource_plan: ResourcePlan,
    *,
    health_check: bool,
    prestart: bool = True,
    world: World = REAL,
) -> Supervisor:
    """Return a supervisor ready to run. Called on the main loop. Raises `ConfigError`."""
    state_watch, usage = threadsafe.Watch(WorkerState()), UsageMonitor(policies.usage_checker, world)
    to_main = threadsafe.CallQueue(asyncio.get_running_loop())
    telemetry = make_telemetry(settings)
    workshop = make_workshop(settings, resource_plan, telemetry, world, prestart=prestart, skills=registry)
    outbox = make_outbox(settings, workshop.checkpoints, world)
    tasks, publisher = make_tasks(
        settings, registry, middlewares, policies, workshop, outbox, state_watch, telemetry, world
    )
    announcement = announce(settings, registry, needed_when_hot(registry, policies), detect_host(), tasks.slots.total)
    links = make_links(settings, announcement, state_watch, to_main, tasks, usage, telemetry, policies.handlers, world)
    poller = Poller(links.links, _rotation(settings), tasks, publisher, outbox, world)
    monitoring = make_monitoring(
        settings,
        links.links,
        outbox,
        state_watch,
        to_main,
        tasks,
        poller,
        usage,
        telemetry,
        world,
        health_check=health_check,
    )
    standby = _make_standby(settings, links, monitoring, tasks) if settings.heartbeat_process else None
    notices, processes = make_notices(settings, world), workshop.processes
    own_events = partial(policies.events.run, links.links, outbox, settings.max_result_bytes)
    return Supervisor(
        Engine(links.links, links.heartbeats, poller, tasks, publisher, outbox, processes, standby, notices),
        parts=[
            Part("telemetry", close=partial(in_thread, telemetry.close)),
            *workshop.parts(),
            *monitoring.parts(),
            _outbox(outbox, links.links, policies.events, required=settings.state_dir is not None),
            *(Part(f"the link to {each.label}", each.open, each.close) for each in links.links),
            Part("what skills need", workshop.open),  # last: what else is wrong is known by then
        ],
        services=[
            MainService("the poller", poller.run),
            MainService("the pulse", monitoring.pulse.run),
            MainService("the handlers of commands", policies.handlers.run),
            MainService("checkpoints", workshop.checkpoints.run),
            MainService("the worker's own events", own_events),
        ],
        link_services=[*links.services, outbox.run, *monitoring.services, *_runs(standby, notices)],
        shutdown_timeout=settings.shutdown_timeout,
        loop_factory=loop_factory(),
    )


def _make_standby(settings: Settings, links: Links, monitoring: Monitoring, tasks: TaskRunner) -> HeartbeatProcess:
    from avtomatika_worker.worker.standby import make_standby  # with an HTTP client of its own, for few workers

    return make_standby(settings, links, monitoring, tasks.running.skills)


def _runs(*optional: HeartbeatProcess | Notices | None) -> list[Service]:
    return [each.run for each in optional if each is not None]


def _outbox(outbox: Outbox, links: Sequence[Link], events: WorkerEvents, *, required: bool) -> Part:
    """Return the outbox as a part. It closes after the links, which may add to it until then, and takes the rest."""

    async def close() -> None:
        events.set_aside(links, outbox)
        await in_thread(outbox.close)

    return Part("the outbox", partial(outbox.open, links, required=required), close, _STORE_TIMEOUT)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the event loop factory: uvloop's if it is installed."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _rotation(settings: Settings) -> Rotation:
    return Rotation(settings.multi_orchestrator_mode, [each.weight for each in settings.orchestrators])
