"""The public API is one page; a change of it is a decision, not an accident."""

import inspect

import avtomatika_worker
from avtomatika_worker import Worker

EXPORTED = """
CancelReason Cancelled ConfigError ContractViolationError DependencyError DependencyMissingError Failed FileMetadata
Handler IntegrityMismatchError InternalError InvalidInputError Middleware ObservabilityManager Outcome PermanentError
ProcessStartError ResourceError ResourceExhaustedError S3Uri SecurityError Sent SkillBlueprint SkillDefinitionError
SkillLoadError Succeeded SyncTaskFiles TaskCancelledError TaskContext TaskContextFilter TaskError TaskFiles
TaskTimeoutError TransientError UnsafeNameError Worker WorkerError __version__
"""


def test_the_package_exports_what_it_says():
    assert sorted(avtomatika_worker.__all__) == sorted(EXPORTED.split())
    assert all(hasattr(avtomatika_worker, name) for name in avtomatika_worker.__all__)


def test_worker_takes_at_most_ten_keyword_only_parameters():
    parameters = list(inspect.signature(Worker).parameters.values())
    assert len(parameters) <= 10
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
