"""What the worker itself gives to skills by annotation."""

from __future__ import annotations

from typing import cast

from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.files.task_files import TaskFiles
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.skills.binding import Injectables


def injectables() -> Injectables:
    """Return a registry that fills arguments from a task's context."""
    found = Injectables()
    found.register(TaskContext, lambda source: cast("TaskContext", source))
    found.register(ObservabilityManager, lambda source: cast("TaskContext", source).observability)
    found.register(TaskFiles, lambda source: cast("TaskContext", source).files)
    return found
