"""`setup_logging`: the worker's logs, set up by a program."""

from __future__ import annotations

import os

from avtomatika_worker.config.environment import read_setting
from avtomatika_worker.observability.logging import configure_logging


def setup_logging(worker_id: str | None = None) -> None:
    """Log as ``LOG_FORMAT`` and ``LOG_LEVEL`` say. Raises `ConfigError` for values that these cannot have.

    `Worker.run` does it, too; called before, logs are there while the program prepares. ``worker_id`` is what records
    carry that belong to no worker.
    """
    log_format, level = read_setting(os.environ, "log_format"), read_setting(os.environ, "log_level")
    configure_logging(log_format.value, level.value, worker_id=worker_id)
