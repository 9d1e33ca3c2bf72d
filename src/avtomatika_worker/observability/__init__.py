"""A worker's reports about itself: logs with the task's context, metrics, facts about its host."""

from __future__ import annotations

from avtomatika_worker.observability.log_context import (
    TaskContextFilter,
    bind_log_context,
    current_log_context,
    log_context,
    reset_log_context,
)
from avtomatika_worker.observability.logging import configure_logging
from avtomatika_worker.observability.telemetry import ObservabilityManager

__all__ = [
    "ObservabilityManager",
    "TaskContextFilter",
    "bind_log_context",
    "configure_logging",
    "current_log_context",
    "log_context",
    "reset_log_context",
]
