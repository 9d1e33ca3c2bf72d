"""Worker SDK for the Avtomatika orchestrator: write a function, run a worker, forget about the rest."""

from avtomatika_worker._version import __version__
from avtomatika_worker.checkpoints.checkpoint import Checkpoint, Saved
from avtomatika_worker.checkpoints.resumable import Resumable
from avtomatika_worker.compat.drop_in import SkillBlueprint, Worker
from avtomatika_worker.compat.identifiers import is_valid_identifier, validate_identifier
from avtomatika_worker.compat.logs import setup_logging
from avtomatika_worker.compat.orchestrator_client import OrchestratorClient
from avtomatika_worker.compat.skill_info import SkillInfo
from avtomatika_worker.compat.usage_objects import DeviceUsage, ResourcesUsage
from avtomatika_worker.compat.worker_command import WorkerCommand
from avtomatika_worker.compat.worker_config import WorkerConfig
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
from avtomatika_worker.filepath import FilePath
from avtomatika_worker.files.stored_uri import StoredUri
from avtomatika_worker.files.task_files import SyncTaskFiles, TaskFiles
from avtomatika_worker.observability.log_context import TaskContextFilter
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.batch import Batch
from avtomatika_worker.skills.chunks import Final

__all__ = [
    "Batch",
    "CancelReason",
    "Cancelled",
    "Checkpoint",
    "ConfigError",
    "ContractViolationError",
    "DependencyError",
    "DependencyMissingError",
    "DeviceUsage",
    "Failed",
    "FileMetadata",
    "FilePath",
    "Final",
    "Handler",
    "IntegrityMismatchError",
    "InternalError",
    "InvalidInputError",
    "Middleware",
    "ObservabilityManager",
    "OrchestratorClient",
    "Outcome",
    "PermanentError",
    "ProcessStartError",
    "ResourceError",
    "ResourceExhaustedError",
    "ResourcesUsage",
    "Resumable",
    "S3Uri",
    "Saved",
    "SecurityError",
    "Sent",
    "SkillBlueprint",
    "SkillDefinitionError",
    "SkillInfo",
    "SkillLoadError",
    "StoredUri",
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
    "WorkerCommand",
    "WorkerConfig",
    "WorkerError",
    "__version__",
    "is_valid_identifier",
    "setup_logging",
    "validate_identifier",
]
