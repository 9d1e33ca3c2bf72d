"""The official SDK's ``avtomatika_worker.task_files``."""

from __future__ import annotations

from avtomatika_worker.files.task_files import TaskFiles

__all__ = ["TaskFiles"]
