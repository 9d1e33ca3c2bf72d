"""Functions for programs to set up the worker's logging and add fields to its records."""

from __future__ import annotations

import os
from typing import Any

from avtomatika_worker.config.environment import read_setting
from avtomatika_worker.observability.log_context import bind_log_context, unbind_log_context
from avtomatika_worker.observability.logging import configure_logging


def setup_logging(worker_id: str | None = None) -> None:
    """Set up logging according to ``LOG_FORMAT`` and ``LOG_LEVEL``. Raises `ConfigError` if these are invalid.

    `Worker.run` does this too; call it earlier to log while the program prepares. ``worker_id`` is used in records that
    belong to no worker.
    """
    log_format, level = read_setting(os.environ, "log_format"), read_setting(os.environ, "log_level")
    configure_logging(log_format.value, level.value, worker_id=worker_id)


def set_context(**fields: Any) -> None:
    """Add fields to the records of this task or thread and whatever it starts; values are converted to strings."""
    bind_log_context(**{name: str(value) for name, value in fields.items()})


def clear_context(*names: str) -> None:
    """Remove fields that `set_context` added; without names, all of them."""
    unbind_log_context(*names)
