"""The public API is one page; a change of it is a decision, not an accident."""

import inspect

import avtomatika_worker
from avtomatika_worker import CancelReason, SyncTaskFiles, TaskContext, TaskFiles, Worker
from avtomatika_worker.testing import WorkerHarness

EXPORTED = """
Batch CancelReason Cancelled Checkpoint ConfigError ContractViolationError DependencyError DependencyMissingError
DeviceUsage Failed FileMetadata FilePath Final Handler IntegrityMismatchError InternalError InvalidInputError
Middleware ObservabilityManager OrchestratorClient Outcome PermanentError ProcessStartError ResourceError
ResourceExhaustedError ResourcesUsage Resumable S3Uri Saved SecurityError Sent SkillBlueprint SkillDefinitionError
SkillInfo SkillLoadError StoredUri Succeeded SyncTaskFiles TaskCancelledError TaskContext TaskContextFilter TaskError
TaskFiles TaskTimeoutError TransientError UnsafeNameError Worker WorkerCommand WorkerConfig WorkerError __version__
is_valid_identifier setup_logging validate_identifier
"""


TASK_CONTEXT = """
add_cost add_to_hot_cache cancel_reason cancelled checkpoint costs deadline files job_id metadata observability
on_preemption params params_metadata preempted priority raise_if_cancelled remove_from_hot_cache
resource resumable security send_event send_progress skill state task_id tracing_context worker_id
"""
TASK_FILES = """
download_file exists get_root get_root_sync list open path_to path_to_sync read read_json sync upload_dir
upload_file write write_json
"""


def members(kind):
    return sorted(name for name in dir(kind) if not name.startswith("_"))


def test_a_task_s_context_and_files_show_only_what_is_for_skills():
    assert members(TaskContext) == sorted(TASK_CONTEXT.split())
    assert members(TaskFiles) == sorted(TASK_FILES.split())
    assert members(SyncTaskFiles) == sorted(set(TASK_FILES.split()) - {"sync", "get_root_sync", "path_to_sync"})


async def test_a_skill_that_reaches_for_the_worker_s_controls_fails_loudly():
    worker = Worker()

    @worker.skill
    async def cancels_itself(ctx: TaskContext):
        ctx.cancel(CancelReason.REQUESTED)
        return {"important": 1}

    async with WorkerHarness(worker) as h:
        result = await h.run("cancels_itself")
    assert result.status == "failure"
    assert "no attribute 'cancel'" in result.error.message


def test_the_package_exports_what_it_says():
    assert sorted(avtomatika_worker.__all__) == sorted(EXPORTED.split())
    assert all(hasattr(avtomatika_worker, name) for name in avtomatika_worker.__all__)


def test_worker_takes_the_official_parameters_in_their_order_and_few_more_by_keyword():
    """Those of the official SDK, 1.0b13 to 1.0b20, may be given by position; ours may not."""
    parameters = inspect.signature(Worker).parameters.values()
    assert [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD] == [
        "worker_type",
        "max_concurrent_tasks",
        "skill_type_limits",
        "http_session",
        "skill_dependencies",
        "config",
        "capacity_checker",
        "clients",
        "skills_dir",
        "skill_info_class",
    ]
    assert [each.name for each in parameters if each.kind is each.KEYWORD_ONLY] == ["worker_id", "settings"]
