"""The one place where an outcome becomes a result and the end of a task is logged."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import (
    TASK_ERRORS,
    ContractViolationError,
    InternalError,
    RejectedError,
    TaskTimeoutError,
    TransientError,
    UnsendableValueError,
)
from avtomatika_worker.execution.outcome import Cancelled, CancelReason, Failed, Outcome, Succeeded
from avtomatika_worker.observability.logging import TracebackLogger
from avtomatika_worker.protocol.codec import check_result
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import CanonicalData, FileMetadata, ResultError, Task, TaskResult
from avtomatika_worker.protocol.work import WorkKey
from avtomatika_worker.skills.contract import CANCELLED, FAILURE

_log: Final = logging.getLogger("avtomatika_worker.task")
_traced: Final = TracebackLogger(_log)

_NO_COSTS: Final[Mapping[str, float]] = {}
_CANCEL_ERRORS: Final = {
    CancelReason.DEADLINE: (TaskTimeoutError.code, "the task exceeded its time limit"),
    CancelReason.SHUTDOWN: (TransientError.code, "the worker is shutting down"),
    CancelReason.LEASE_LOST: (TransientError.code, "the worker lost its lease"),
    CancelReason.STALE: (TransientError.code, "the orchestrator is waiting for another attempt"),
}


def build_result(
    task: Task,
    outcome: Outcome,
    worker_id: str,
    *,
    seconds: float,
    added: Mapping[str, float] = _NO_COSTS,
    encoded: CanonicalData | None = None,
    work: WorkKey | None = None,
) -> TaskResult:
    """Return the result that reports ``outcome``.

    ``seconds`` is how long the task ran, rounded; ``added`` its other costs; ``encoded`` its data if already encoded;
    ``work`` the key of the work that it answers.
    """
    costs: dict[str, Any] = {"execution_time_seconds": seconds, **added}
    metadata: dict[str, Any] | None = None
    data: dict[str, Any] = {}
    files: dict[str, FileMetadata] = {}
    error: ResultError | None = None
    match outcome:
        case Succeeded():
            status, data, metadata, files = outcome.status, outcome.data, outcome.metadata, outcome.data_metadata
            costs |= _with_added(outcome.costs, added)
        case Failed():
            status, data, metadata, files = FAILURE, outcome.data, outcome.metadata, outcome.data_metadata
            error = ResultError(code=outcome.code, message=outcome.message, details=outcome.details or None)
            costs |= _with_added(outcome.costs, added)
        case Cancelled(reason=CancelReason.REQUESTED):
            status = CANCELLED
        case Cancelled():
            status = FAILURE
            code, message = _CANCEL_ERRORS[outcome.reason]
            error = ResultError(code=code, message=outcome.message or message)
    return TaskResult(
        job_id=task.job_id,
        task_id=task.task_id,
        worker_id=worker_id,
        origin_worker_id=worker_id,
        status=status,
        data=encoded or data,
        error=error,
        data_metadata=files or None,
        metadata=_metadata(task, metadata) if metadata else None,
        costs=costs,
        identity_chain=task.chain_through(worker_id),
        work=work,
    )


def _with_added(costs: Mapping[str, Any], added: Mapping[str, float]) -> dict[str, Any]:
    """Return an outcome's costs, each with what ``ctx.add_cost`` has added to it: a middleware may have."""
    return {
        name: amount + added[name] if name in added and type(amount) in {int, float} else amount
        for name, amount in costs.items()
    }


def log_end(task: Task, outcome: Outcome, result: TaskResult, seconds: float) -> None:
    """Write the one log record of a task's end; the ids come from the context, as in every record of the task."""
    facts: dict[str, object] = {"skill": task.type, "status": result.status, "seconds": seconds}
    trace = outcome.traceback if isinstance(outcome, Failed | Cancelled) else ""
    if result.error is not None:
        facts["code"] = result.error.code
        _traced.log(
            logging.WARNING,
            "skill %s failed after %.3f s: %s: %s",
            (task.type, seconds, result.error.code, result.error.message),
            trace,
            extra={"action": "task_failed", **facts},
        )
        return
    said = outcome.message if isinstance(outcome, Cancelled) else ""
    _traced.log(
        logging.INFO,
        "skill %s: %s after %.3f s%s",
        (task.type, result.status, seconds, f": {said}" if said else ""),
        trace,
        extra={"action": "task_finished", **facts},
        caller=log_end.__code__,
    )


def sendable(result: TaskResult, dialect: Dialect) -> TaskResult:
    """Return the result, or the failure that replaces it if an orchestrator could not process it.

    Encoded data were checked when they were encoded; this checks the rest, which most results do not have.
    """
    if isinstance(result.data, CanonicalData) and result.data.version == dialect.version and result.is_plain:
        return result
    try:
        check_result(result, dialect)
    except UnsendableValueError as error:
        return replace_unsendable(result, error)
    return result


def replace_unsendable(result: TaskResult, error: UnsendableValueError) -> TaskResult:
    """Return the failure that replaces a result that the orchestrator could not process.

    A failure keeps its reason; its other contents are dropped.
    """
    path = error.path.encode("utf-8", "replace").decode()
    text = f"the result cannot be sent: {path}: {error.problem}"
    if result.error is not None and not error.path.startswith("$.error"):
        reason = msgspec.structs.replace(
            result.error, message=f"{result.error.message} (its other contents were dropped: {text})"
        )
        return _failure_instead_of(result, reason)
    problem = ResultError(
        code=ContractViolationError.code,
        message=text,
        details={"path": path},
    )
    return _failure_instead_of(result, problem)


def replace_refused(result: TaskResult, error: RejectedError) -> TaskResult | None:
    """Return the failure that replaces a permanently refused result; None if the result is already such a failure."""
    if result.error is not None and result.error.code == InternalError.code:
        return None
    problem = ResultError(code=InternalError.code, message=f"the orchestrator refused the result: {error}")
    return _failure_instead_of(result, problem)


def is_retried(result: TaskResult) -> bool:
    """Whether an orchestrator retries the task after this result."""
    if result.error is None:
        return False
    known = TASK_ERRORS.get(result.error.code)
    return known is None or known.retryable


def _failure_instead_of(result: TaskResult, error: ResultError) -> TaskResult:
    return TaskResult(
        job_id=result.job_id,
        task_id=result.task_id,
        worker_id=result.worker_id,
        origin_worker_id=result.origin_worker_id,
        status=FAILURE,
        error=error,
        identity_chain=result.identity_chain,
        work=result.work,
    )


def _metadata(task: Task, metadata: dict[str, Any]) -> dict[str, Any] | None:
    """Drop metadata if the task had none: that makes orchestrators fail permanently (RXON.md, Behaviour 6)."""
    if task.metadata:
        return metadata
    _log.warning(
        "result metadata of task %s dropped: the task came without metadata, and orchestrators then reject it",
        task.task_id,
        extra={"action": "result_metadata_dropped"},
    )
    return None
