"""Builds a worker's registration from its settings and skills."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Final

import msgspec

from avtomatika_worker._version import __version__
from avtomatika_worker.config import Settings
from avtomatika_worker.errors import ConfigError, UnsendableValueError
from avtomatika_worker.link.heartbeats import Announcement
from avtomatika_worker.observability.host import HostFacts
from avtomatika_worker.policy.heartbeat import Catalogue
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import Capabilities, Resources, SkillInfo, WorkerRegistration
from avtomatika_worker.protocol.redis_safe_schema import storable_schema, storable_schemas
from avtomatika_worker.skills.contract import SkillContract
from avtomatika_worker.skills.registry import SkillRegistry

UNVERSIONED: Final = "1.0.0"
"""Announced for a skill without a version: orchestrators 1.0b26 to 1.0b29 hand branches of parallel jobs only to skills
of this one, unless the blueprint names another (observed)."""


def announce(
    settings: Settings,
    registry: SkillRegistry,
    skill_dependencies: Mapping[str, tuple[str, ...]],
    host: HostFacts,
    slots: int | None = None,
) -> Announcement:
    """Return the worker's registration. Raises `ConfigError` if no orchestrator could digest it.

    ``slots`` is how many tasks it takes, by default ``MAX_CONCURRENT_TASKS``.
    """
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
            max_concurrent_tasks=slots or settings.max_concurrent_tasks,
            cpu_cores=settings.cpu_cores or host.cpu_cores,
            ram_gb=settings.ram_gb or host.ram_gb,
            devices=settings.devices or host.devices,
        ),
        installed_software={
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",  # what requirements are written against
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
        # The orchestrator reads ``websockets`` at the top level, which registrations lose (RXON.md, Behaviour 3).
        capabilities={**msgspec.to_builtins(capabilities), "websockets": True} if settings.enable_websockets else None,
        skill_dependencies={name: list(needs) for name, needs in skill_dependencies.items()},
    )
    return Announcement(registration, catalogue)


def _check_sendable(registration: WorkerRegistration) -> None:
    """Find values that would make every registration fail: skills have been checked, settings have not."""
    try:
        canonical_bytes(msgspec.to_builtins(registration), NEUTRAL)
    except UnsendableValueError as error:
        raise ConfigError([f"the worker cannot announce {error.path.removeprefix('$.')}: {error.problem}"]) from error


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
    """Return the hash by which orchestrators notice a different S3 configuration (RXON.md, Behaviour 8)."""
    parts = (settings.s3_endpoint_url, settings.s3_access_key, settings.s3_default_bucket)
    if not all(parts):
        return None
    return hashlib.sha256("|".join(part or "" for part in parts).encode()).hexdigest()[:16]
