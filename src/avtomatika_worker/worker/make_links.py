"""Makes a worker's links and their services on the link thread from its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker._version import __version__
from avtomatika_worker.config import OrchestratorSettings, Settings
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.link.cancellations import CancellationQueue
from avtomatika_worker.link.commands import Commands
from avtomatika_worker.link.doubt import Doubt
from avtomatika_worker.link.heartbeats import Announcement, Heartbeats
from avtomatika_worker.link.isolation import keep_running
from avtomatika_worker.link.link import Link
from avtomatika_worker.link.link_settings import LinkSettings
from avtomatika_worker.link.tls_reload import TlsReload
from avtomatika_worker.link.token_renewal import TokenRenewal
from avtomatika_worker.link_thread import Service
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.rotation import Mode
from avtomatika_worker.protocol.task_verification import TaskGuard
from avtomatika_worker.tasks.command_handlers import CommandHandlers
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.link")

FAILOVER_HEARTBEAT: Final = 2.0
"""Seconds between heartbeats to an orchestrator that another one stands in for: its silence is to be noticed soon."""


class Links(msgspec.Struct, frozen=True):
    """The links, in the order of their priority, the heartbeats of each, and what else runs for them."""

    links: Sequence[Link]
    heartbeats: Sequence[Heartbeats]
    services: Sequence[Service]
    tls: TlsFiles


def make_links(
    settings: Settings,
    announcement: Announcement,
    state_watch: threadsafe.Watch[WorkerState],
    to_main: threadsafe.CallQueue,
    tasks: TaskRunner,
    usage: UsageMonitor,
    telemetry: Telemetry,
    handlers: CommandHandlers,
    world: World = REAL,
) -> Links:
    """Return the links, which are not open yet. Called on the main loop. Raises `ConfigError` for TLS files."""
    tls = _tls(settings)
    on_cancel = CancellationQueue(to_main, partial(tasks.running.cancel, reason=CancelReason.REQUESTED))
    _warn_of_missing_keys(settings)
    doubts = [Doubt(world.monotonic) for _ in settings.orchestrators]
    links = tuple(
        _link(each, settings, tls, telemetry, world, doubt)
        for each, doubt in zip(settings.orchestrators, doubts, strict=True)
    )
    heartbeats = tuple(
        Heartbeats(link, state_watch, announcement, on_cancel, lambda: usage.latest, doubt)
        for link, doubt in zip(links, doubts, strict=True)
    )
    services: list[Service] = [each.run for each in heartbeats]
    services += [_kept(link, TokenRenewal(link).run) for link in links]
    if settings.enable_websockets:
        most = settings.max_response_bytes
        commands = [Commands(link, on_cancel, tls=tls, max_message=most, on_command=handlers.take) for link in links]
        services += [_kept(link, each.run) for link, each in zip(links, commands, strict=True)]
    if tls != TlsFiles():
        services.append(TlsReload(tls, links, settings.tls_reload_interval).run)
    if settings.lease_lost_after is not None:
        watchers = _lease_watchers(heartbeats, settings.lease_lost_after, to_main, tasks)
        services += [_kept(link, watch) for link, watch in zip(links, watchers, strict=True)]
    return Links(links, heartbeats, services, tls)


def _kept(link: Link, service: Service) -> Service:
    """Return the service of a link, which no fault ends."""
    return partial(keep_running, link, service)


def _link(
    orchestrator: OrchestratorSettings,
    settings: Settings,
    tls: TlsFiles,
    telemetry: Telemetry,
    world: World,
    doubt: Doubt,
) -> Link:
    link_settings = LinkSettings(
        url=orchestrator.url,
        token=orchestrator.token,
        token_fallback=orchestrator.token_fallback,
        has_certificate=settings.tls_cert_path is not None,
        heartbeat_interval=_heartbeat_interval(orchestrator, settings),
        poll_timeout=settings.task_poll_timeout,
        registration=BackoffPolicy(
            settings.registration_retry_initial_delay, settings.registration_retry_max_delay, settings.rate_limit_wait
        ),
        calls=BackoffPolicy(
            settings.result_retry_initial_delay, settings.result_retry_max_delay, settings.rate_limit_wait
        ),
        guard=guard_of(orchestrator, settings),
        event_rate=settings.max_event_rate,
        rate_limit=orchestrator.call_limit,
    )
    transport = HttpTransport(
        orchestrator.url,
        user_agent=f"avtomatika-worker/{__version__}",
        tls=tls,
        max_answer=settings.max_response_bytes,
        on_dropped=doubt.dropped,
    )
    return Link(link_settings, settings.worker_id, transport, telemetry, world)


def _heartbeat_interval(orchestrator: OrchestratorSettings, settings: Settings) -> float:
    watched = settings.multi_orchestrator_mode is Mode.FAILOVER and orchestrator != settings.orchestrators[-1]
    return min(settings.heartbeat_interval, FAILOVER_HEARTBEAT) if watched else settings.heartbeat_interval


def guard_of(orchestrator: OrchestratorSettings, settings: Settings) -> TaskGuard:
    """Return what decides which tasks of an orchestrator may run."""
    return TaskGuard(
        orchestrator.secret_key,
        signature_required=settings.require_task_signature is not False,
        max_nesting=settings.max_task_nesting,
    )


def _warn_of_missing_keys(settings: Settings) -> None:
    keyless = [each.url for each in settings.orchestrators if each.secret_key is None]
    if settings.require_task_signature and keyless:
        _log.warning(
            "REQUIRE_TASK_SIGNATURE is true, but nothing is checked for %s: the key is missing; set"
            " ORCHESTRATOR_SECRET_KEY to the orchestrator's",
            ", ".join(keyless),
            extra={"action": "signatures_unchecked"},
        )


def _tls(settings: Settings) -> TlsFiles:
    tls = TlsFiles(settings.tls_ca_path, settings.tls_cert_path, settings.tls_key_path)
    if problems := tls.problems():
        raise ConfigError(problems)
    return tls


def _lease_watchers(
    heartbeats: Iterable[Heartbeats], limit: float, to_main: threadsafe.CallQueue, tasks: TaskRunner
) -> list[Service]:
    """Return the services that stop the tasks of an orchestrator which is out of reach for too long."""

    def lost(link: Link) -> None:
        to_main.put(tasks.running.cancel_all, CancelReason.LEASE_LOST, link)

    return [partial(each.watch_lease, limit, lost) for each in heartbeats]
