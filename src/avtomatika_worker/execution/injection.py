"""What the worker itself injects into skills by annotation."""

from __future__ import annotations

from typing import cast

from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.files.task_files import TaskFiles
from avtomatika_worker.observability.telemetry import ObservabilityManager
from avtomatika_worker.skills.binding import Injectables


def injectables() -> Injectables:
    """Return a registry that fills arguments from a task's controls."""
    found = Injectables()
    found.register(TaskContext, lambda source: _controls(source).ctx, of_task=True)
    found.register(ObservabilityManager, lambda source: _controls(source).observability)
    found.register(TaskFiles, lambda source: _controls(source).files.files, of_task=True)
    return found


def _controls(source: object) -> Controls:
    return cast("Controls", source)
