"""Keeps the log records of tasks for the console."""

from __future__ import annotations

import logging
import re
import sysconfig
import threading
from collections import OrderedDict, deque
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.observability.log_context import TaskContextFilter

_LINES_OF_A_JOB: Final = 500
_JOBS: Final = 500
_RECENT: Final = 2000
_LONGEST: Final = 20_000

_FRAMES: Final = 50
_BEGINNING: Final = "Traceback (most recent call last):"
_FRAME: Final = re.compile(
    r'^ +File "(?P<file>[^"\n]+)", line (?P<line>\d+), in (?P<function>.+)\n(?: {4,}(?P<source>\S.*))?', re.MULTILINE
)
_PACKAGE: Final = str(Path(__file__).parents[2])
_DEMO: Final = str(Path(__file__).parents[2] / "demo_app")
_PYTHON: Final = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})

Line = dict[str, Any]
"""``number``, ``time`` (Unix seconds), ``level``, ``logger``, ``text`` with the traceback, ``job_id``, ``task_id``.

With a traceback also ``frames``, outermost first: ``file``, ``line``, ``function``, ``source``, and
``yours`` for those that belong neither to Python nor to an installed package.
"""


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
            frames = {"frames": _frames(record.exc_text)} if record.exc_text else {}
        except Exception:  # noqa: BLE001 - logging reports a user's record that cannot be formatted
            self.handleError(record)
            return
        job_id, task_id = str(getattr(record, "job_id", "")), str(getattr(record, "task_id", ""))
        self.take(
            {
                "time": record.created,
                "level": record.levelname,
                "logger": record.name,
                "text": text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …",
                "job_id": job_id,
                "task_id": task_id,
                **frames,
            }
        )

    def take(self, line: Line) -> None:
        """Keep a line, which gets its number here."""
        with self._guard:
            self._number += 1
            numbered = {"number": self._number, **line}
            self._recent.append(numbered)
            self._lines(str(line["job_id"])).append(numbered)

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


def _frames(trace: str) -> list[dict[str, Any]]:
    """Return the innermost frames of a traceback's text, outermost first; of a chain, those of the last exception.

    A task's traceback is text only: it was written where the task ran, perhaps in a process of its own.
    """
    last = trace[max(trace.rfind(_BEGINNING), 0) :]
    return [
        {
            "file": _short(found["file"]),
            "line": int(found["line"]),
            "function": found["function"],
            "source": found["source"] or "",
            "yours": _is_the_users(found["file"]),
        }
        for found in list(_FRAME.finditer(last))[-_FRAMES:]
    ]


def _is_the_users(file: str) -> bool:
    if file.startswith("<") or {"site-packages", "dist-packages"} & set(Path(file).parts):
        return False
    return file.startswith(_DEMO) or not file.startswith((_PACKAGE, *_PYTHON))


def _short(file: str) -> str:
    """Return a path relative to the current directory, if it is below it."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
