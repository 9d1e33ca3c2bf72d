"""Worker SDK for the Avtomatika orchestrator: write a function, run a worker, forget about the rest."""

from avtomatika_worker._version import __version__
from avtomatika_worker.errors import (
    ConfigError,
    ContractViolationError,
    DependencyError,
    DependencyMissingError,
    IntegrityMismatchError,
    InternalError,
    InvalidInputError,
    PermanentError,
    ProcessStartError,
    ResourceError,
    ResourceExhaustedError,
    SecurityError,
    SkillDefinitionError,
    SkillLoadError,
    TaskError,
    TaskTimeoutError,
    TransientError,
    UnsafeNameError,
    WorkerError,
)
from avtomatika_worker.execution.context import Sent, TaskCancelledError, TaskContext
from avtomatika_worker.execution.middleware import Handler, Middleware
from avtomatika_worker.execution.outcome import Cancelled, CancelReason, Failed, Outcome, Succeeded
from avtomatika_worker.files.task_files import SyncTaskFiles, TaskFiles
from avtomatika_worker.observability.log_context import TaskContextFilter
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.blueprint import SkillBlueprint
from avtomatika_worker.worker import Worker

__all__ = [
    "CancelReason",
    "Cancelled",
    "ConfigError",
    "ContractViolationError",
    "DependencyError",
    "DependencyMissingError",
    "Failed",
    "FileMetadata",
    "Handler",
    "IntegrityMismatchError",
    "InternalError",
    "InvalidInputError",
    "Middleware",
    "ObservabilityManager",
    "Outcome",
    "PermanentError",
    "ProcessStartError",
    "ResourceError",
    "ResourceExhaustedError",
    "S3Uri",
    "SecurityError",
    "Sent",
    "SkillBlueprint",
    "SkillDefinitionError",
    "SkillLoadError",
    "Succeeded",
    "SyncTaskFiles",
    "TaskCancelledError",
    "TaskContext",
    "TaskContextFilter",
    "TaskError",
    "TaskFiles",
    "TaskTimeoutError",
    "TransientError",
    "UnsafeNameError",
    "Worker",
    "WorkerError",
    "__version__",
]
