"""Formats log records: one line of text for people, one JSON object for machines."""

from __future__ import annotations

import functools
import json
import logging
import math
import re
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

from avtomatika_worker.observability.log_context import CONTEXT_FIELDS
from avtomatika_worker.observability.printable import printable


class JsonLogFormatter(JsonFormatter):
    """One JSON object per record: timestamp, level, logger, message, action, the context, extras, exception.

    Every record becomes a line of valid JSON: values that JSON lacks are written as their ``repr``.
    """

    _ORDER: Final = ("timestamp", "level", "logger", "message", "action", *CONTEXT_FIELDS, "trace_id", "span_id")

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - the library types its hooks loosely
            "%(message)s",
            rename_fields={"exc_info": "exception", "stack_info": "stack"},
            json_serializer=functools.partial(json.dumps, allow_nan=False),
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Collect the fields in a fixed order, without empty context fields."""
        found: dict[str, Any] = {}
        super().add_fields(found, record, message_dict)
        found["timestamp"] = _iso_utc(record.created)
        found["level"], found["logger"] = record.levelname, record.name
        for name in CONTEXT_FIELDS:
            if found.get(name) == "":
                del found[name]
        log_data.update({name: found.pop(name) for name in self._ORDER if name in found})
        log_data.update(found)

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Return the line."""
        try:
            return super().jsonify_log_record(log_data)
        except (TypeError, ValueError, RecursionError):
            return json.dumps({str(name): _plain(value) for name, value in log_data.items()})


def _plain(value: object) -> str | int | float | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return value if value is None or isinstance(value, str | int) else repr(value)


def _iso_utc(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_LEVELS: Final = {"WARNING": "WARN", "CRITICAL": "CRIT"}
_COLORS: Final = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
INDENT: Final = "\n    "
_TASK_LABELS: Final = (("task", "task_id"), ("job", "job_id"))
_ALL_LABELS: Final = (("worker", "worker_id"), *_TASK_LABELS)


class TextLogFormatter(logging.Formatter):
    """One line per record for people; further lines of a message and tracebacks are indented.

    The worker's id is shown only on request: with a single worker, it would be the same on every line.

    Control characters are escaped and only our own lines start at the margin, so no input can forge a record.
    """

    def __init__(self, *, color: bool = False, show_worker: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._color = color
        self._labels = _ALL_LABELS if show_worker else _TASK_LABELS
        self._clock = (-1, "")
        self._levels: dict[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of the record, without a final line break."""
        first, newline, rest = printable(record.getMessage()).partition("\n")
        context = _text_context(record, self._labels)
        line = f"{self._time(record)} {self._level(record.levelname)} {shown_name(record.name)}  {first}"
        if context:
            line += "  " + self._painted(DIM, context)
        more = [*(rest.split("\n") if newline else ()), *self._traceback(record)]
        return INDENT.join([line, *more])

    def _level(self, name: str) -> str:
        """Return a level's name, padded and in its color."""
        known = self._levels.get(name)
        if known is None:
            known = self._levels[name] = self._painted(_COLORS.get(name, ""), _LEVELS.get(name, name).ljust(5))
        return known

    def _time(self, record: logging.LogRecord) -> str:
        """Return the time of day; it is formatted only once a second."""
        second = int(record.created)
        known, text = self._clock
        if known != second:
            text = self.formatTime(record, self.datefmt)
            self._clock = (second, text)
        return text

    def _traceback(self, record: logging.LogRecord) -> list[str]:
        """Return the lines of the exception and of the stack."""
        if not (record.exc_info or record.exc_text or record.stack_info):
            return []
        text = self.formatException(record.exc_info) if record.exc_info else (record.exc_text or "")
        parts = [part for part in (text, record.stack_info or "") if part]
        return printable("\n".join(parts)).split("\n") if parts else []

    def _painted(self, color: str, text: str) -> str:
        return f"{color}{text}{_PLAIN}" if self._color and color else text


def _text_context(record: logging.LogRecord, labels: tuple[tuple[str, str], ...]) -> str:
    """Return the context as ``task=… job=…``."""
    fields = record.__dict__
    text = " ".join([f"{label}={fields[name]}" for label, name in labels if fields.get(name)])
    return one_line(text)


@functools.lru_cache(maxsize=256)
def shown_name(name: str) -> str:
    return one_line(re.sub(r"^avtomatika_worker(?=\.|$)", "worker", name))


def one_line(text: str) -> str:
    """Return a text as a part of a line: printable, its line feeds escaped too."""
    if text.isprintable():
        return text
    return printable(text).replace("\n", "\\n")
