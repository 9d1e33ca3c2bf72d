"""The official SDK's ``avtomatika_worker.logging``."""

from __future__ import annotations

from avtomatika_worker.compat.logs import clear_context, set_context, setup_logging
from avtomatika_worker.observability.log_context import TaskContextFilter as ContextFilter

__all__ = ["ContextFilter", "clear_context", "set_context", "setup_logging"]
