"""The console: a page of the embedded orchestrator for trying and watching skills."""

from __future__ import annotations

from avtomatika_worker.devserver.console.console import Console, ConsoleApi
from avtomatika_worker.devserver.console.feed import Feed
from avtomatika_worker.devserver.console.figures import Figures
from avtomatika_worker.devserver.console.file_room import FileRoom
from avtomatika_worker.devserver.console.task_logs import TaskLogs

__all__ = ["Console", "ConsoleApi", "Feed", "Figures", "FileRoom", "TaskLogs"]
