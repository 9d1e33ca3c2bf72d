"""Metrics and traces of one worker, as passed to everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.metrics import S3_OPERATIONS, TASK_DURATION, TASKS, Recorder
from avtomatika_worker.observability.tracing import Tracing
from avtomatika_worker.protocol.messages import Task


class _Nothing:
    """Stands in for a missing tracer or meter: every call on it does nothing."""

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # ``@tracer.start_as_current_span("name")`` is a decorator: return the function unchanged.
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else self

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return None


_NOTHING: Final = _Nothing()


@dataclass(frozen=True, slots=True)
class ObservabilityManager:
    """The worker's OpenTelemetry ``tracer`` and ``meter``: annotate an argument of a skill with this class.

    They are OpenTelemetry's own objects if ``WORKER_ENABLE_METRICS`` is true; otherwise calls on them do nothing, so
    that a skill need not check. The worker makes a span of each task and transfer, and counts them, by itself; the
    methods are the official SDK's, for skills that do it again.
    """

    tracer: Any = _NOTHING
    meter: Any = _NOTHING
    _tracing: Tracing = field(default_factory=Tracing, repr=False)
    _metrics: Recorder = field(default_factory=Recorder, repr=False)

    @property
    def has_otel(self) -> bool:
        """Whether anything is recorded."""
        return self.tracer is not _NOTHING

    def start_task_span(
        self,
        task_type: str,
        task_id: str,
        job_id: str,
        parent_context: Mapping[str, Any] | None = None,
        step: int = 0,
        depth: int = 0,
        parent_hash: str | None = None,
    ) -> AbstractContextManager[Any]:
        """Make a span ``task.{task_type}``, and enter it with ``with``, which gives it, or None while traces are off.

        It is a child of ``parent_context`` (W3C headers), or else of the current span.
        """
        if parent_context:
            task = Task(job_id=job_id, task_id=task_id, type=task_type, tracing_context=dict(parent_context))
            return self._tracing.task(task_type, task)
        facts = {"task.id": task_id, "job.id": job_id, "task.type": task_type, "task.step": step, "task.depth": depth}
        more = {} if parent_hash is None else {"task.parent_hash": parent_hash}
        return self._tracing.span(f"task.{task_type}", {**facts, **more})

    def start_s3_span(self, op: str, uri: str) -> AbstractContextManager[Any]:
        """Make a span ``s3.{op}``, and enter it with ``with``, which gives it, or None while traces are off."""
        return self._tracing.span(f"s3.{op}", {"s3.uri": uri})

    def set_span_status_error(self, span: Any, message: str) -> None:
        """Set a span's status to error. None is no span, and nothing happens."""
        if span is not None:
            self._tracing.failed(message, span)

    def record_s3_op(self, op: str, status: str) -> None:
        """Count an operation of an object store, in ``worker.s3.operations.total``."""
        self._metrics.count(S3_OPERATIONS, op, status)

    def record_task_finished(self, task_type: str, status: str, duration: float) -> None:
        """Count a task, in ``worker.tasks.total``, and its ``duration`` in seconds."""
        self._metrics.count(TASKS, task_type, status)
        self._metrics.time(TASK_DURATION, duration, task_type, status)


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The destination of metrics and spans.

    ``scrape`` returns the metrics in Prometheus's text format and its content type. ``close`` sends what is waiting,
    within a few seconds; it blocks.
    """

    metrics: Recorder = field(default_factory=Recorder)
    tracing: Tracing = field(default_factory=Tracing)
    manager: ObservabilityManager = field(default_factory=ObservabilityManager)
    scrape: Callable[[], tuple[bytes, str]] | None = None
    close: Callable[[], None] = lambda: None


OFF: Final = Telemetry()


def set_up(*, enabled: bool, service_name: str, worker_id: str, version: str) -> Telemetry:
    """Return the worker's telemetry. Raises `ConfigError` if it is enabled but OpenTelemetry is not installed."""
    if not enabled:
        return OFF
    try:
        from avtomatika_worker.observability import otel
    except ImportError as error:
        problem = f"WORKER_ENABLE_METRICS=true needs OpenTelemetry, but {error.name or error} is not installed"
        raise ConfigError([f"{problem}; {install_hint('metrics')}"]) from error
    return otel.set_up(service_name=service_name, worker_id=worker_id, version=version)
