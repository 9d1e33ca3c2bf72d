"""Keeps the log records of tasks for the console."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Any, Final

from avtomatika_worker.observability.log_context import TaskContextFilter

_LINES_OF_A_JOB: Final = 500
_JOBS: Final = 500
_RECENT: Final = 2000
_LONGEST: Final = 20_000

Line = dict[str, Any]
"""``number``, ``time`` (Unix seconds), ``level``, ``logger``, ``text`` with the traceback, ``job_id``, ``task_id``."""


class TaskLogs(logging.Handler):
    """A handler for the root logger that keeps the latest records by job; "" is for those without a job.

    Records may come from any thread. Only those of this process are seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(TaskContextFilter())
        self._text = logging.Formatter("%(message)s")
        self._guard = threading.Lock()
        self._number = 0
        self._recent: deque[Line] = deque(maxlen=_RECENT)
        self._by_job: OrderedDict[str, deque[Line]] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        try:
            text = self._text.format(record)
        except Exception:  # noqa: BLE001 - logging reports a user's record that cannot be formatted
            self.handleError(record)
            return
        job_id, task_id = str(getattr(record, "job_id", "")), str(getattr(record, "task_id", ""))
        with self._guard:
            self._number += 1
            line: Line = {
                "number": self._number,
                "time": record.created,
                "level": record.levelname,
                "logger": record.name,
                "text": text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …",
                "job_id": job_id,
                "task_id": task_id,
            }
            self._recent.append(line)
            self._lines(job_id).append(line)

    def _lines(self, job_id: str) -> deque[Line]:
        lines = self._by_job.get(job_id)
        if lines is None:
            lines = self._by_job[job_id] = deque(maxlen=_LINES_OF_A_JOB)
            while len(self._by_job) > _JOBS:
                self._by_job.popitem(last=False)
        else:
            self._by_job.move_to_end(job_id)
        return lines

    def of(self, job_id: str) -> list[Line]:
        """Return the lines of a job, oldest first."""
        with self._guard:
            return list(self._by_job.get(job_id, ()))

    def after(self, number: int) -> list[Line]:
        """Return the lines after the one with this number, as far as they are kept."""
        with self._guard:
            if number == self._number:
                return []
            return [line for line in self._recent if line["number"] > number]

    @property
    def newest(self) -> int:
        """The number of the newest line."""
        return self._number
