"""Metrics and traces of one worker, as passed to everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from avtomatika_worker._extras import install_hint
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.observability.metrics import Recorder
from avtomatika_worker.observability.tracing import Tracing


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
    that a skill need not check.
    """

    tracer: Any = _NOTHING
    meter: Any = _NOTHING


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
