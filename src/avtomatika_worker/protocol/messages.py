"""The messages of RXON (RXON.md, "Messages"), as values.

The worker's messages are built complete: unused containers are empty, not absent, because 1.0b7 cannot dispatch to a
worker whose registration lacks them. The codec handles differences between dialects.
Times are Unix seconds, identifiers match ``[A-Za-z0-9_-]{1,128}``.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from avtomatika_worker.narrowing import is_list
from avtomatika_worker.protocol.coerce import as_texts
from avtomatika_worker.protocol.work import WorkKey

_STALE: Final = frozenset({"stale_task", "worker_mismatch"})
"""Reasons for which a task is not the one that its job waits for: it was handed out again, or went elsewhere."""

_OVER: Final = frozenset({"job_not_found", "job_cancelled", "job_already_terminated", "deadline_exceeded"})
"""Reasons for which nothing of a job is wanted any more."""


class WorkerStatus(enum.StrEnum):
    """A worker's status. Orchestrators dispatch only to "idle" workers."""

    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    OFFLINE = "offline"


# --------------------------------------------------------------------------------- worker → orchestrator


class HardwareDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device in the worker's machine, such as a GPU."""

    type: str
    model: str | None = None
    id: str | None = None
    properties: dict[str, Any] | None = None


class InstalledArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """Something installed that dispatching may require, such as a model."""

    name: str
    version: str = "unknown"
    type: str | None = None
    properties: dict[str, Any] | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """The resources of the worker's machine. ``ram_gb`` is in GiB."""

    max_concurrent_tasks: int
    cpu_cores: int
    ram_gb: float
    devices: tuple[HardwareDevice, ...] = ()
    properties: dict[str, Any] = {}


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Who the worker is and what it costs. ``extra`` holds ``websockets`` and every custom capability."""

    hostname: str
    ip_address: str
    cost_per_skill: dict[str, float] = {}
    s3_config_hash: str | None = None
    extra: dict[str, Any] = {}


class SkillInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An announced skill. Marketplace metadata survives only inside ``properties``."""

    name: str
    type: str
    description: str | None = None
    version: str | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    events_schema: dict[str, Any] | None = None
    output_statuses: tuple[str, ...] | None = None
    schema_dialect: str = "json-schema"
    properties: dict[str, Any] | None = None


class WorkerRegistration(msgspec.Struct, frozen=True, kw_only=True):
    """The first message: who the worker is and what it can do."""

    worker_id: str
    worker_type: str
    supported_skills: tuple[SkillInfo, ...]
    available_skills: tuple[str, ...]
    hot_skills: tuple[str, ...] = ()
    resources: Resources
    installed_software: dict[str, str] = {}
    installed_artifacts: tuple[InstalledArtifact, ...] = ()
    capabilities: Capabilities
    skills_hash: str
    metadata: dict[str, Any] | None = None


class DeviceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The load of one device, in percent."""

    unit_id: str
    load_percent: float
    metrics: dict[str, Any] | None = None


class ResourcesUsage(msgspec.Struct, frozen=True, kw_only=True):
    """The load of the machine: percent of all cores, and GiB."""

    cpu_load_percent: float
    ram_used_gb: float
    devices_usage: tuple[DeviceUsage, ...] | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """The lease, and the worker's state.

    ``current_tasks`` lists the *job* ids of the running tasks (RXON.md, Behaviour 3). ``catalogue`` is sent only if the
    orchestrator needs it. ``capabilities`` with ``websockets`` at the top level turns on real-time cancellation; the
    orchestrator keeps it until the next registration.
    """

    worker_id: str
    status: WorkerStatus
    skills_hash: str
    current_tasks: tuple[str, ...] = ()
    available_skills: tuple[str, ...] = ()
    hot_skills: tuple[str, ...] = ()
    hot_cache: tuple[str, ...] = ()
    skill_dependencies: dict[str, list[str]] = {}
    catalogue: tuple[SkillInfo, ...] | None = None
    usage: ResourcesUsage | None = None
    capabilities: dict[str, Any] | None = None


class FileMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """A file in an object store. ``size`` is in bytes."""

    uri: str
    size: int
    etag: str | None = None
    metadata: dict[str, Any] | None = None


class ResultError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a task failed; ``code`` decides what the orchestrator does about it."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class CanonicalData(msgspec.Struct, frozen=True, array_like=True):
    """A JSON object in the canonical form of a protocol version, as embedded in a message and signed."""

    json: bytes
    version: str


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a task ended: "success", "failure", "cancelled", or one of the skill's own statuses.

    ``identity_chain`` goes into ``security``: the nodes that the task passed through, this worker last. ``work`` names
    what it answers, whatever the task's id; it is stored with the result, and never sent.
    """

    job_id: str
    task_id: str
    worker_id: str
    origin_worker_id: str
    status: str
    data: dict[str, Any] | CanonicalData = {}
    error: ResultError | None = None
    data_metadata: dict[str, FileMetadata] | None = None
    metadata: dict[str, Any] | None = None
    costs: dict[str, Any] | None = None
    identity_chain: tuple[str, ...] | None = None
    work: WorkKey | None = None

    @property
    def is_plain(self) -> bool:
        """Whether nothing in it but its data is a skill's: no error, no metadata, no costs but one."""
        return self.error is None and not self.metadata and not self.data_metadata and len(self.costs or ()) <= 1


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened while a task ran. A retried event keeps its ``event_id``."""

    event_id: str
    worker_id: str
    origin_worker_id: str
    event_type: str
    payload: dict[str, Any]
    target_job_id: str | None = None
    target_task_id: str | None = None
    origin_task_id: str | None = None
    trace_context: dict[str, str] = {}
    priority: float = 0.0
    metadata: dict[str, Any] | None = None
    identity_chain: tuple[str, ...] | None = None


# --------------------------------------------------------------------------------- orchestrator → worker


class Task(msgspec.Struct, kw_only=True):
    """A task as handed out. Numbers are loose on the wire: ints and floats are both accepted."""

    job_id: str
    task_id: str
    type: str
    params: dict[str, Any] | None = None
    tracing_context: dict[str, Any] | None = None
    params_metadata: dict[str, Any] | None = None
    priority: float | None = None
    deadline: float | None = None
    security: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    timestamp: Any = None
    step: Any = None

    def chain_through(self, worker_id: str) -> tuple[str, ...] | None:
        """Return the nodes that the task passed through, ``worker_id`` last, or None if it came without a chain."""
        if not self.security:
            return None
        chain: object = self.security.get("identity_chain")
        return None if not is_list(chain) else (*as_texts(chain), worker_id)


class RegistrationReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a registration. Orchestrators that issue their own tokens include them."""

    status: str
    version: str | None = None
    warning: str | None = None
    access_token: str | None = None
    refresh_token: str | None = None
    expires_in: float | None = None

    @property
    def tokens(self) -> TokenReply | None:
        """The tokens in the answer."""
        if not self.access_token:
            return None
        return TokenReply(access_token=self.access_token, refresh_token=self.refresh_token, expires_in=self.expires_in)

    def __repr__(self) -> str:
        return f"RegistrationReply(status={self.status!r}, version={self.version!r})"


class HeartbeatReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat. ``cancel_ids`` may be job ids and task ids."""

    cancel_ids: tuple[str, ...] = ()
    jitter_ms: float = 0.0
    full_sync: bool = False


class ResultReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a result: "accepted", or "ignored" with its reason; both are final."""

    status: str
    reason: str | None = None
    message: str | None = None

    @property
    def final(self) -> bool:
        """Whether the orchestrator is done with the result."""
        return self.status in {"accepted", "ignored"}

    @property
    def stale(self) -> bool:
        """Whether the job waits for another task's result."""
        return self.status == "ignored" and self.reason in _STALE


class EventReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an event; ``status`` is "event_accepted", or "error" with a code."""

    status: str
    code: str | None = None
    message: str | None = None

    @property
    def accepted(self) -> bool:
        """Whether the event was accepted."""
        return self.status == "event_accepted"

    @property
    def stale(self) -> bool:
        """Whether the task that it comes from is not wanted any more. No release up to 1.0b30 says so."""
        return self.status == "error" and (self.code or "").lower() in _STALE | _OVER


class TokenReply(msgspec.Struct, frozen=True, kw_only=True):
    """An access token; ``expires_in`` is in seconds."""

    access_token: str
    refresh_token: str | None = None
    expires_in: float | None = None

    def __repr__(self) -> str:
        return f"TokenReply(expires_in={self.expires_in!r})"


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command from the WebSocket; `CANCEL_TASK` is the one every orchestrator knows."""

    command: str
    task_id: str | None = None
    job_id: str | None = None
    params: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


CANCEL_TASK = "cancel_task"
PROGRESS_EVENT = "progress"
