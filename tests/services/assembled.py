"""A supervisor put together by hand, so that tests can add parts that fail and call its parts."""

import asyncio
import contextlib

from msgspec.structs import replace

from avtomatika_worker import threadsafe
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.observability.host import detect_host
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.rotation import Rotation
from avtomatika_worker.supervisor import Engine, MainService, Part, Supervisor
from avtomatika_worker.tasks.poller import Poller
from avtomatika_worker.worker.announcement import announce
from avtomatika_worker.worker.make_delivery import make_outbox
from avtomatika_worker.worker.make_links import make_links
from avtomatika_worker.worker.make_monitoring import make_telemetry
from avtomatika_worker.worker.make_tasks import Policies, make_tasks, make_workshop
from services.conftest import make_settings


@contextlib.asynccontextmanager
async def supervised(supervisor, orchestrator):
    """Run a supervisor of the worker ``w1``, which has registered when this is entered."""
    run = asyncio.create_task(supervisor.run())
    try:
        await orchestrator.wait_for_worker("w1", timeout=10)
        yield
    finally:
        supervisor.shutdown()
        await run


def make_supervisor(worker, orchestrator, *, parts=(), services=(), link_services=(), files=None, **settings):
    """Return a supervisor of the worker's own services and of what a test adds, and its engine.

    ``files`` replace the worker's own.
    """
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token or ""}
    settings = make_settings(worker, environment, settings)
    worker.load_skills(settings)
    policies, state_watch, telemetry = Policies(), threadsafe.Watch(WorkerState()), make_telemetry(settings)
    workshop = make_workshop(settings, worker._provide("w1", {}), telemetry, prestart=False)  # noqa: SLF001
    if files is not None:
        workshop = replace(workshop, files=files)
    outbox = make_outbox(settings, workshop.checkpoints)
    tasks, publisher = make_tasks(settings, worker.skills, [], policies, workshop, outbox, state_watch, telemetry)
    announcement = announce(settings, worker.skills, {}, detect_host())
    to_main = threadsafe.CallQueue(asyncio.get_running_loop())
    links = make_links(
        settings, announcement, state_watch, to_main, tasks, UsageMonitor(), telemetry, policies.handlers
    )
    rotation = Rotation(settings.multi_orchestrator_mode, [1.0])
    poller = Poller(links.links, rotation, tasks, publisher, outbox)

    def open_outbox():
        outbox.open(links.links, required=False)

    async def close_outbox():
        outbox.close()

    def open_links():
        for link in links.links:
            link.open()

    async def close_links():
        for link in links.links:
            await link.close()

    engine = Engine(links.links, links.heartbeats, poller, tasks, publisher, outbox, workshop.processes, None)
    supervisor = Supervisor(
        engine,
        [*workshop.parts(), Part("outbox", open_outbox, close_outbox), Part("links", open_links, close_links), *parts],
        [MainService("the poller", poller.run), *services],
        [*links.services, outbox.run, *link_services],
        shutdown_timeout=settings.shutdown_timeout,
        loop_factory=asyncio.new_event_loop,
    )
    return supervisor, engine
