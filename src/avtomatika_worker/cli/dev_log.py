"""The log of ``worker dev``: a task's lines begin with a short id, and its end is ``a3f1 resize ✓ 0.31 s``."""

from __future__ import annotations

import logging
import re
import sys
from collections import OrderedDict
from typing import Final

from avtomatika_worker.observability.log_formats import DIM, INDENT, TextLogFormatter, one_line, shown_name
from avtomatika_worker.observability.printable import printable

SHORT: Final = 4
"""Characters shown of a job's id, if it is a UUID."""

_LONGEST: Final = 12
"""Characters shown of another id."""

_REMEMBERED: Final = 200
"""Maximum number of jobs whose last failure is remembered."""

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_GREEN: Final = "\x1b[32m"
_RED: Final = "\x1b[31m"
_CYAN: Final = "\x1b[36m"


def short_id(job_id: str) -> str:
    """Return the short id of a job for the terminal."""
    return one_line(job_id[: SHORT if _UUID.fullmatch(job_id) else _LONGEST])


class DevLogFormatter(TextLogFormatter):
    """Like `TextLogFormatter`, with a short id in place of the task's and the job's.

    When a job fails as it did before, its attempt is one line: the message and the traceback are not repeated.
    """

    def __init__(self, *, color: bool = False, show_worker: bool = False) -> None:
        super().__init__(color=color, show_worker=show_worker)
        self._failures: OrderedDict[str, tuple[str, int]] = OrderedDict()
        writes_signs = (getattr(sys.stderr, "encoding", "") or "").lower().startswith("utf")
        self._done, self._failed = ("✓", "✗") if writes_signs else ("ok", "FAILED")

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of the record, without a final line break."""
        job_id = str(record.__dict__.get("job_id") or "")
        head = f"{self._time(record)} {self._painted(_CYAN, short_id(job_id).ljust(SHORT))}"
        action = record.__dict__.get("action")
        if action in {"task_finished", "task_failed"}:
            return self._end(record, head, job_id)
        level = "" if record.levelno == logging.INFO else f"{self._level(record.levelname).rstrip()} "
        first, *rest = printable(record.getMessage()).split("\n")
        name = self._painted(DIM, shown_name(record.name))
        return INDENT.join([f"{head} {level}{name}  {first}", *rest, *self._traceback(record)])

    def _end(self, record: logging.LogRecord, head: str, job_id: str) -> str:
        facts = record.__dict__
        status, seconds = str(facts.get("status")), f"{facts.get('seconds') or 0:.2f} s"
        failed = "code" in facts
        mark = self._painted(_RED, self._failed) if failed else self._painted(_GREEN, self._done)
        line = f"{head} {one_line(str(facts.get('skill')))} {mark} {seconds}"
        if not failed:
            self._failures.pop(job_id, None)
            line += "" if status == "success" else f"  {one_line(status)}"
            return INDENT.join([line, *self._traceback(record)])
        said = record.args[-1] if isinstance(record.args, tuple) and record.args else ""
        problem, trace = f"{facts['code']}: {said}", self._traceback(record)
        if times := self._times(job_id, "\n".join([problem, *trace])):
            return f"{line}  the same failure again (attempt {times + 1})"
        first, *rest = printable(problem).split("\n")
        return INDENT.join([f"{line}  {first}", *rest, *trace])

    def _times(self, job_id: str, failure: str) -> int:
        """Return how often the job has failed in just this way before, in a row."""
        before, times = self._failures.pop(job_id, ("", 0))
        times = times + 1 if before == failure else 0
        self._failures[job_id] = failure, times
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
        return times
