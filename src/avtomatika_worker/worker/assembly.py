"""Puts a worker's services together from its settings. Nothing starts here."""

from __future__ import annotations

import asyncio
import hashlib
import platform
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec
import platformdirs

from avtomatika_worker._version import __version__
from avtomatika_worker.config import OrchestratorSettings, ResultDurability, Settings, SlotTunerKind
from avtomatika_worker.errors import ConfigError, UnsendableValueError
from avtomatika_worker.execution.bounds import ResultBound
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.execution.middleware import Middleware
from avtomatika_worker.execution.offload import Offload
from avtomatika_worker.execution.outcome import CancelReason
from avtomatika_worker.execution.processes.pool import Processes
from avtomatika_worker.execution.runners import Runners, Threads
from avtomatika_worker.observability.host import HostFacts, detect_host
from avtomatika_worker.observability.telemetry import Telemetry, set_up
from avtomatika_worker.observability.usage import UsageMeter
from avtomatika_worker.policy.backoff import BackoffPolicy
from avtomatika_worker.policy.capacity import Limits
from avtomatika_worker.policy.heartbeat import Catalogue, WorkerState
from avtomatika_worker.policy.rotation import Mode, Rotation
from avtomatika_worker.policy.slot_tuner import SlotTuner, TunerPolicy
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import Capabilities, Resources, SkillInfo, WorkerRegistration
from avtomatika_worker.protocol.stored import storable_schema, storable_schemas
from avtomatika_worker.protocol.trust import TaskGuard
from avtomatika_worker.services.cancels import Cancels
from avtomatika_worker.services.capacity import Admission, CapacityChecker
from avtomatika_worker.services.commands import Commands
from avtomatika_worker.services.containment import keep_running
from avtomatika_worker.services.crossing import Board
from avtomatika_worker.services.gauges import watch_links, watch_machine, watch_slots
from avtomatika_worker.services.health import HealthServer
from avtomatika_worker.services.heartbeats import Announcement, Heartbeats
from avtomatika_worker.services.keeping import Keeper
from avtomatika_worker.services.link import Link, LinkSettings
from avtomatika_worker.services.outbox import Outbox
from avtomatika_worker.services.poller import Poller
from avtomatika_worker.services.presence import Catalogued, Presence
from avtomatika_worker.services.probe import Probe
from avtomatika_worker.services.renewal import TokenRenewal
from avtomatika_worker.services.store import Store
from avtomatika_worker.services.tasks import Tasks, TaskSettings
from avtomatika_worker.services.tls_watch import TlsWatch
from avtomatika_worker.services.tuning import Tuning
from avtomatika_worker.services.usage import UsageChecker, UsageMonitor
from avtomatika_worker.services.watchdog import Pulse, Watchdog
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.supervisor import Parts, Supervisor
from avtomatika_worker.transport.http import HttpTransport
from avtomatika_worker.transport.tls import TlsFiles
from avtomatika_worker.worker.provision import Provision
from avtomatika_worker.worker.standby import make_standby
from avtomatika_worker.worker.storage import make_files

UNVERSIONED: Final = "1.0.0"
"""Announced for a skill without a version: orchestrators 1.0b26 to 1.0b29 hand branches of parallel jobs only to skills
of this one, unless the blueprint names another (observed)."""

FAILOVER_HEARTBEAT: Final = 2.0
"""Seconds between heartbeats to an orchestrator that another one stands in for: its silence is to be noticed soon."""

Service = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Policies:
    """What a `Worker` was told besides its settings."""

    skill_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    skill_type_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    capacity_checker: CapacityChecker | None = None
    usage_checker: UsageChecker | None = None


@dataclass(frozen=True, slots=True)
class Wiring:
    """What every link of the worker shares."""

    settings: Settings
    announcement: Announcement
    board: Board[WorkerState]
    tls: TlsFiles
    on_cancel: Callable[[Link, tuple[str, ...]], None]
    telemetry: Telemetry


def assemble(
    settings: Settings,
    registry: SkillRegistry,
    middlewares: Sequence[Middleware],
    policies: Policies,
    provision: Provision,
    *,
    health_check: bool,
    prestart: bool = True,
) -> Supervisor:
    """Return a supervisor that is ready to run. Called on the main loop. Raises `ConfigError`."""
    telemetry = set_up(
        enabled=settings.enable_metrics,
        service_name=settings.worker_type,
        worker_id=settings.worker_id,
        version=__version__,
    )
    board = Board(WorkerState())
    threads = Threads(settings.skill_threads or settings.max_concurrent_tasks)
    most = settings.skill_processes or settings.max_concurrent_tasks
    processes = Processes(provision.recipe, most, prestart=prestart)
    files = make_files(settings, telemetry)
    outbox = _outbox(settings)
    slots = Slots(settings.max_concurrent_tasks)
    admission = Admission(_limits(registry, policies.skill_type_limits), policies.capacity_checker)
    presence = Presence(slots, Catalogued(registry.names(), policies.skill_dependencies), admission, board)
    tasks = Tasks(
        TaskSettings(
            worker_id=settings.worker_id,
            strict_events=settings.strict_event_validation,
            progress_interval=settings.progress_interval,
            max_event_bytes=settings.max_result_bytes,
        ),
        slots,
        Pipeline(
            registry,
            middlewares,
            Runners(threads, processes),
            telemetry.tracing,
            provision.resources.values,
            ResultBound(settings.max_result_bytes),
            files=Offload(registry, telemetry.tracing, untyped=settings.untyped_files),
        ),
        outbox,
        presence,
        admission,
        files,
        telemetry,
    )
    board.publish(presence.state())
    wiring = Wiring(
        settings=settings,
        announcement=announce(settings, registry, policies.skill_dependencies, detect_host()),
        board=board,
        tls=_tls(settings),
        on_cancel=_cancel_on_main_loop(tasks),
        telemetry=telemetry,
    )
    links = tuple(_link(each, wiring) for each in settings.orchestrators)
    poller = Poller(links, _rotation(settings), tasks, presence, outbox)
    pulse = Pulse()
    watchdog = Watchdog(pulse, poller.is_due, tasks.skills_running, blocked_limit=settings.loop_blocked_limit)
    usage = UsageMonitor(policies.usage_checker)
    heartbeats = tuple(Heartbeats(link, board, wiring.announcement, wiring.on_cancel, usage) for link in links)
    watch_slots(telemetry.metrics, slots, poller)
    watch_links(telemetry.metrics, links, outbox)
    watch_machine(telemetry.metrics, usage, pulse)
    services: list[Service] = [
        outbox.run,
        watchdog.run,
        usage.run,
        *(partial(keep_running, link, TokenRenewal(link).run) for link in links),
    ]
    if settings.slot_tuner is SlotTunerKind.RESOURCE:
        services.append(_tuning(settings, tasks).run)
    if settings.enable_websockets:
        most = settings.max_response_bytes
        services += [
            _kept(link, Commands(link, wiring.on_cancel, tls=wiring.tls, max_message=most).run) for link in links
        ]
    if wiring.tls != TlsFiles():
        services.append(TlsWatch(wiring.tls, links, settings.tls_reload_interval).run)
    facts = {"version": __version__, "worker_id": settings.worker_id, "worker_type": settings.worker_type}
    probe = Probe(links, outbox, board, watchdog, facts)
    health = HealthServer(settings.health_host, settings.port, probe, telemetry.scrape) if health_check else None
    if health is not None:
        services.append(health.run)
    standby = None
    if settings.heartbeat_process:
        standby = make_standby(settings, wiring.tls, heartbeats, health, probe, tasks.skills_running)
        for link in links:
            link.caught_up = standby.caught_up
        services.append(standby.run)
    if settings.lease_lost_after is not None:
        watchers = _lease_watchers(heartbeats, settings.lease_lost_after, tasks)
        services += [_kept(link, watch) for link, watch in zip(links, watchers, strict=True)]
    parts = Parts(
        links=links,
        heartbeats=heartbeats,
        poller=poller,
        tasks=tasks,
        pulse=pulse,
        presence=presence,
        outbox=outbox,
        threads=threads,
        processes=processes,
        resources=provision.resources,
        resource_thread=provision.thread,
        telemetry=telemetry,
        files=files,
        health=health,
        standby=standby,
        link_services=tuple(services),
    )
    return Supervisor(
        parts,
        shutdown_timeout=settings.shutdown_timeout,
        store_required=settings.state_dir is not None,
        loop_factory=loop_factory(),
    )


def _kept(link: Link, service: Service) -> Service:
    """Return the service of a link, which no fault ends."""
    return partial(keep_running, link, service)


def announce(
    settings: Settings, registry: SkillRegistry, skill_dependencies: Mapping[str, tuple[str, ...]], host: HostFacts
) -> Announcement:
    """Return what the worker says of itself. Raises `ConfigError` when no orchestrator could digest it."""
    skills = tuple(_skill_info(contract) for contract in registry.contracts())
    if len(skills) > settings.max_skills:
        raise ConfigError([f"the worker has {len(skills)} skills, and may have {settings.max_skills} (MAX_SKILLS)"])
    costs = {c.name: c.cost for c in registry.contracts() if c.cost is not None} | dict(settings.cost_per_skill)
    capabilities = Capabilities(
        hostname=host.hostname,
        ip_address=host.ip_address,
        cost_per_skill=costs,
        s3_config_hash=_s3_config_hash(settings),
        extra={"websockets": settings.enable_websockets, **settings.extra_capabilities},
    )
    registration = WorkerRegistration(
        worker_id=settings.worker_id,
        worker_type=settings.worker_type,
        supported_skills=skills,
        available_skills=tuple(registry.names()),
        resources=Resources(
            max_concurrent_tasks=settings.max_concurrent_tasks,
            cpu_cores=settings.cpu_cores or host.cpu_cores,
            ram_gb=settings.ram_gb or host.ram_gb,
            devices=settings.devices or host.devices,
        ),
        installed_software={
            "python": platform.python_version(),
            "avtomatika-worker": __version__,
            **settings.installed_software,
        },
        installed_artifacts=settings.installed_artifacts,
        capabilities=capabilities,
        skills_hash=_skills_hash(skills),
    )
    _check_sendable(registration)
    catalogue = Catalogue(
        worker_id=settings.worker_id,
        skills=skills,
        skills_hash=registration.skills_hash,
        # ``websockets`` on top is what the orchestrator looks for, and registrations lose (RXON.md, Behaviour 3).
        capabilities={**msgspec.to_builtins(capabilities), "websockets": True} if settings.enable_websockets else None,
        skill_dependencies={name: list(needs) for name, needs in skill_dependencies.items()},
    )
    return Announcement(registration, catalogue)


def _check_sendable(registration: WorkerRegistration) -> None:
    """Find now what would make every registration fail: skills are checked already, settings are not."""
    try:
        canonical_bytes(msgspec.to_builtins(registration), NEUTRAL)
    except UnsendableValueError as error:
        raise ConfigError([f"the worker cannot announce {error.path.removeprefix('$.')}: {error.problem}"]) from error


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes event loops: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _link(orchestrator: OrchestratorSettings, wiring: Wiring) -> Link:
    settings = wiring.settings
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
    )
    transport = HttpTransport(
        orchestrator.url,
        user_agent=f"avtomatika-worker/{__version__}",
        tls=wiring.tls,
        max_answer=settings.max_response_bytes,
    )
    return Link(link_settings, settings.worker_id, transport, wiring.telemetry)


def _heartbeat_interval(orchestrator: OrchestratorSettings, settings: Settings) -> float:
    watched = settings.multi_orchestrator_mode is Mode.FAILOVER and orchestrator is not settings.orchestrators[-1]
    return min(settings.heartbeat_interval, FAILOVER_HEARTBEAT) if watched else settings.heartbeat_interval


def guard_of(orchestrator: OrchestratorSettings, settings: Settings) -> TaskGuard:
    """Return what decides which tasks of an orchestrator may run."""
    return TaskGuard(
        orchestrator.secret_key,
        signature_required=settings.require_task_signature is not False,
        max_nesting=settings.max_task_nesting,
    )


def _tls(settings: Settings) -> TlsFiles:
    tls = TlsFiles(settings.tls_ca_path, settings.tls_cert_path, settings.tls_key_path)
    if problems := tls.problems():
        raise ConfigError(problems)
    return tls


def _outbox(settings: Settings) -> Outbox:
    directory = settings.state_dir or platformdirs.user_state_path("avtomatika-worker", appauthor=False)
    off = settings.result_durability is ResultDurability.OFF
    return Outbox(
        Keeper(None if off else Store(directory, settings.worker_id, temporary=settings.worker_id_is_random)),
        max_age=settings.result_max_age,
        store_first=settings.result_durability is ResultDurability.ALWAYS,
    )


def _rotation(settings: Settings) -> Rotation:
    return Rotation(settings.multi_orchestrator_mode, [each.weight for each in settings.orchestrators])


def _limits(registry: SkillRegistry, by_type: Mapping[str, int]) -> Limits:
    """Return the limits. Raises `ConfigError` for a type that no skill has."""
    types = {contract.name: contract.type for contract in registry.contracts()}
    unknown = [kind for kind in by_type if kind not in types.values()]
    if unknown:
        known = ", ".join(sorted(set(types.values()))) or "none"
        raise ConfigError([f"skill_type_limits: no skill has the type {kind!r} (types: {known})" for kind in unknown])
    by_skill = {skill.contract.name: skill.options.max_concurrent for skill in registry}
    return Limits({name: most for name, most in by_skill.items() if most is not None}, by_type, types)


def _cancel_on_main_loop(tasks: Tasks) -> Cancels:
    """Return what the link thread calls to cancel tasks: they live on the main loop."""
    return Cancels(asyncio.get_running_loop(), partial(tasks.cancel, reason=CancelReason.REQUESTED))


def _tuning(settings: Settings, tasks: Tasks) -> Tuning:
    """Return what limits the slots by the load: it looks from the link thread, the slots are the main loop's."""
    loop = asyncio.get_running_loop()
    tuner = SlotTuner(
        TunerPolicy(
            least=settings.slot_tuner_min_slots,
            most=settings.max_concurrent_tasks,
            memory_target=settings.slot_tuner_memory_target,
            cpu_target=settings.slot_tuner_cpu_target,
        )
    )

    def apply(usable: int) -> None:  # over there
        tasks.slots.limit(usable)
        tasks.slots_freed()

    return Tuning(tuner, tasks.slots, UsageMeter().shares, lambda usable: loop.call_soon_threadsafe(apply, usable))


def _lease_watchers(heartbeats: Iterable[Heartbeats], limit: float, tasks: Tasks) -> list[Service]:
    """Return the services that stop the tasks of an orchestrator which is out of reach for too long."""
    loop = asyncio.get_running_loop()

    def lost(link: Link) -> None:
        loop.call_soon_threadsafe(tasks.cancel_all, CancelReason.LEASE_LOST, link)

    return [partial(each.watch_lease, limit, lost) for each in heartbeats]


def _skill_info(contract: SkillContract) -> SkillInfo:
    return SkillInfo(
        name=contract.name,
        type=contract.type,
        description=contract.description,
        version=contract.version or UNVERSIONED,
        input_schema=storable_schema(contract.input_schema),
        output_schema=storable_schema(contract.output_schema),
        events_schema=storable_schemas(contract.events_schema),
        output_statuses=contract.output_statuses or None,
        properties=dict(contract.properties) or None,
    )


def _skills_hash(skills: tuple[SkillInfo, ...]) -> str:
    return hashlib.sha256(msgspec.json.encode(skills, order="deterministic")).hexdigest()


def _s3_config_hash(settings: Settings) -> str | None:
    """Return the hash by which orchestrators notice another S3 configuration than theirs (RXON.md, Behaviour 8)."""
    parts = (settings.s3_endpoint_url, settings.s3_access_key, settings.s3_default_bucket)
    if not all(parts):
        return None
    return hashlib.sha256("|".join(part or "" for part in parts).encode()).hexdigest()[:16]
