"""Makes what runs a worker's tasks from its settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker._waiting import in_thread, side_by_side
from avtomatika_worker.checkpoints.checkpoint_service import Checkpoints
from avtomatika_worker.config import Settings
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.execution.batching import Batches
from avtomatika_worker.execution.bounds import ResultBound
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.execution import Pipeline
from avtomatika_worker.execution.file_stage import Offload
from avtomatika_worker.execution.middleware import Middleware
from avtomatika_worker.execution.processes.process import KILL_TIMEOUT
from avtomatika_worker.execution.processes.process_pool import Processes
from avtomatika_worker.execution.processes.process_room import ProcessRoom
from avtomatika_worker.execution.resources import CLOSE_TIMEOUT
from avtomatika_worker.execution.runners import Runners, Threads
from avtomatika_worker.files.service import Files
from avtomatika_worker.monitoring.usage import UsageChecker
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.devices import Accelerator
from avtomatika_worker.observability.telemetry import Telemetry
from avtomatika_worker.policy.capacity import Limits
from avtomatika_worker.policy.device_shares import most_at_once
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.skills.registry import SkillRegistry
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.supervisor import Part
from avtomatika_worker.tasks.command_handlers import CommandHandlers
from avtomatika_worker.tasks.context_factory import ContextFactory
from avtomatika_worker.tasks.limits import CapacityChecker, ConcurrencyLimiter
from avtomatika_worker.tasks.runner import TaskRunner, TaskSettings
from avtomatika_worker.tasks.state import Catalogued, HotCache, StatePublisher
from avtomatika_worker.tasks.worker_events import WorkerEvents
from avtomatika_worker.worker.file_settings import make_files
from avtomatika_worker.worker.make_checkpoints import make_checkpoints
from avtomatika_worker.worker.make_devices import find_devices
from avtomatika_worker.worker.resource_plan import ResourcePlan
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker")


@dataclass(frozen=True, slots=True)
class Policies:
    """A `Worker`'s arguments besides its settings."""

    skill_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    skill_type_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    capacity_checker: CapacityChecker | None = None
    usage_checker: UsageChecker | None = None
    handlers: CommandHandlers = field(default_factory=CommandHandlers)
    events: WorkerEvents = field(default_factory=WorkerEvents)
    hot: HotCache = field(default_factory=HotCache)


class Workshop(msgspec.Struct, frozen=True):
    """Where skills run, and what they need there."""

    resource_plan: ResourcePlan
    processes: Processes
    threads: Threads
    files: Files
    checkpoints: Checkpoints
    children: Children
    devices: tuple[Accelerator, ...] = ()

    def parts(self) -> list[Part]:
        """Return what is closed, the last first. `open` is for later."""
        plan = self.resource_plan
        close = partial(side_by_side, self.processes.close, plan.resources.close, plan.models.close)
        return [
            Part("the tasks' files", close=partial(in_thread, self.files.close)),
            Part("checkpoints", close=self.children.cancel),
            Part("the threads of skills", close=partial(in_thread, self.threads.close)),
            Part("the thread of resources", close=partial(in_thread, self.resource_plan.thread.close)),
            Part("the processes of skills", close=self.processes.kill, limit=KILL_TIMEOUT),
            Part("resources", close=close, limit=CLOSE_TIMEOUT + KILL_TIMEOUT, skipped_in_haste=True),
        ]

    async def open(self) -> None:
        """Make what skills need. Raises what keeps it from being made."""
        await self.resource_plan.resources.open()
        await self.resource_plan.models.open()
        await self.processes.open()


def make_workshop(
    settings: Settings,
    resource_plan: ResourcePlan,
    telemetry: Telemetry,
    world: World = REAL,
    *,
    prestart: bool,
    skills: Iterable[Skill] = (),
) -> Workshop:
    """Return where skills run; nothing is made or started yet. Raises `ConfigError` and `SkillDefinitionError`."""
    skills = tuple(skills)
    batched = sum(skill.options.batch is not None for skill in skills)  # no batch waits for a thread of others
    devices, specs = find_devices(skills, os.environ), resource_plan.process_specs
    most, files, children = settings.max_concurrent_tasks, make_files(settings, telemetry, world), Children()
    return Workshop(
        resource_plan,
        Processes(
            specs,
            ProcessRoom(settings.skill_processes or most, devices, mixed=len(specs.keys() - {0}) > 1),
            prestart=prestart,
        ),
        Threads(settings.skill_threads or most + batched),
        files,
        make_checkpoints(settings, files, children.start, world),
        children,
        devices,
    )


def make_tasks(
    settings: Settings,
    registry: SkillRegistry,
    middlewares: Sequence[Middleware],
    policies: Policies,
    workshop: Workshop,
    outbox: Outbox,
    state_watch: threadsafe.Watch[WorkerState],
    telemetry: Telemetry,
    world: World = REAL,
) -> tuple[TaskRunner, StatePublisher]:
    """Return what runs tasks, and what publishes the worker's state on ``state_watch``."""
    most = settings.max_concurrent_tasks
    slots, limits = Slots(_slots(most, registry)), _limits(registry, policies.skill_type_limits, most, workshop.devices)
    _compare(limits, slots)
    limiter = ConcurrencyLimiter(limits, policies.capacity_checker, world)
    publisher = StatePublisher(slots, _catalogued(registry, policies), limiter, state_watch, policies.hot, world)
    models = workshop.resource_plan.models
    models.publish = publisher.hot.show_models
    models.count = partial(telemetry.metrics.count, metrics.MODEL_USES)
    batches = Batches(workshop.threads.run, workshop.processes.run_batch, models, telemetry, world)
    pipeline = Pipeline(
        registry,
        middlewares,
        Runners(workshop.threads, workshop.processes, batches, models),
        telemetry.tracing,
        workshop.resource_plan.resources.values,
        ResultBound(settings.max_result_bytes),
        files=Offload(telemetry.tracing, untyped=settings.untyped_files),
        world=world,
    )
    contexts = ContextFactory(
        settings.worker_id,
        pipeline,
        publisher.hot,
        workshop.files,
        telemetry,
        strict_events=settings.strict_event_validation,
        checkpoints=workshop.checkpoints,
        start=workshop.children.start,
    )
    tasks = TaskRunner(
        TaskSettings(settings.worker_id, settings.progress_interval, settings.max_result_bytes),
        slots,
        pipeline,
        outbox,
        publisher,
        limiter,
        workshop.files,
        telemetry,
        world,
        contexts=contexts,
    )
    limiter.on_room = tasks.slots_freed
    state_watch.publish(publisher.state())
    return tasks, publisher


def _slots(most: int, registry: SkillRegistry) -> int:
    """Return how many tasks the worker holds. Batched skills bring slots of their own, for a batch and the next."""
    batched = {skill.family: skill.options.most_tasks or 0 for skill in registry if skill.options.batch is not None}
    others = any(skill.options.batch is None for skill in registry)
    return sum(batched.values()) + (most if others or not batched else 0)


def needed_when_hot(registry: SkillRegistry, policies: Policies) -> dict[str, tuple[str, ...]]:
    """Return what is to be in the hot cache for a skill to be hot, for orchestrators of protocol 1.0b7."""
    fixed = {
        skill.contract.name: (skill.uses.fixed,)
        for skill in registry
        if skill.uses is not None and skill.uses.fixed is not None
    }
    return {**fixed, **policies.skill_dependencies}


def _catalogued(registry: SkillRegistry, policies: Policies) -> Catalogued:
    models = {
        skill.contract.name: (skill.uses.loader.name, skill.uses.fixed)
        for skill in registry
        if skill.uses is not None and not skill.options.in_process
    }
    return Catalogued(registry.names(), policies.skill_dependencies, models)


def _limits(
    registry: SkillRegistry, by_type: Mapping[str, int], most: int, found: Sequence[Accelerator] = ()
) -> Limits:
    """Return the limits. One for a type that no skill has is named in the log: programs share them between workers."""
    types = {contract.name: contract.type for contract in registry.contracts()}
    unknown = [kind for kind in by_type if kind not in types.values()]
    if unknown:
        _log.warning(
            "skill_type_limits: no skill has the type %s (types: %s)",
            ", ".join(map(repr, unknown)),
            ", ".join(sorted(set(types.values()))) or "none",
            extra={"action": "limit_unused"},
        )
    by_skill = {skill.contract.name: limit for skill in registry if (limit := skill.options.most_tasks) is not None}
    devices, gpus = tuple(each.combinable for each in found), _gpus(registry)
    for name, each in gpus.items():
        room = most_at_once(each, devices)
        by_skill[name] = min(room, by_skill.get(name, room))
    batched = frozenset(skill.contract.name for skill in registry if skill.options.batch is not None)
    prefetch = {skill.contract.name: skill.options.prefetch for skill in registry}
    beside = {types[name] for name, number in prefetch.items() if number} & by_type.keys()
    # Tasks of the other skills of such a type have to be here as well when it is their turn, or they would have none.
    ahead = {name: number for name, number in prefetch.items() if number or types[name] in beside}
    counted = {name: of for name in types if (of := registry.definition(name).variant_of) is not None}
    return Limits(by_skill, by_type, types, ahead, counted, batched, most if batched else None, gpus, devices)


def _gpus(registry: SkillRegistry) -> dict[str, float]:
    """Return how many devices a task takes. Those of batched skills share a process: they wait for it there."""
    return {
        skill.contract.name: skill.options.gpus
        for skill in registry
        if skill.options.gpus is not None and skill.options.batch is None
    }


def _compare(limits: Limits, slots: Slots) -> None:
    """Warn of skills that are to have more tasks here, those fetched ahead included, than the worker has slots for."""
    total = slots.total if limits.others is None else limits.others
    for skill, wanted in limits.places.by_skill.items():
        if limits.ahead[skill] and wanted > total:
            _log.warning(
                "skill %s: with its prefetch it has up to %d tasks here, and the worker has slots for %d: set"
                " MAX_CONCURRENT_TASKS to %d or more",
                skill,
                wanted,
                total,
                wanted,
                extra={"action": "prefetch_unused"},
            )
