"""The worker's logs, set up by a program, and what their records carry."""

from __future__ import annotations

import os
from typing import Any

from avtomatika_worker.config.environment import read_setting
from avtomatika_worker.observability.log_context import bind_log_context, unbind_log_context
from avtomatika_worker.observability.logging import configure_logging


def setup_logging(worker_id: str | None = None) -> None:
    """Log as ``LOG_FORMAT`` and ``LOG_LEVEL`` say. Raises `ConfigError` for values that these cannot have.

    `Worker.run` does it, too; called before, logs are there while the program prepares. ``worker_id`` is what records
    carry that belong to no worker.
    """
    log_format, level = read_setting(os.environ, "log_format"), read_setting(os.environ, "log_level")
    configure_logging(log_format.value, level.value, worker_id=worker_id)


def set_context(**fields: Any) -> None:
    """Add fields to the records of this task, or thread, and of what it starts; values are made texts."""
    bind_log_context(**{name: str(value) for name, value in fields.items()})


def clear_context(*names: str) -> None:
    """Take fields back that `set_context` added; all of them without names."""
    unbind_log_context(*names)
