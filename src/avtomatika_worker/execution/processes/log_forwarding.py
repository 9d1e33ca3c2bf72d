"""Forwards the log records of a skill process to the worker, whose handlers write them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from avtomatika_worker._forks import in_forked_children
from avtomatika_worker.execution.processes.child_connection import ChildConnection
from avtomatika_worker.execution.processes.wire import CANNOT_ENCODE, encode
from avtomatika_worker.observability.log_context import TaskContextFilter
from avtomatika_worker.observability.log_formats import TextLogFormatter
from avtomatika_worker.observability.logging import keep_logging

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_KEPT: Final = (
    "name",
    "levelno",
    "levelname",
    "pathname",
    "filename",
    "module",
    "lineno",
    "funcName",
    "created",
    "msecs",
    "relativeCreated",
    "thread",
    "threadName",
    "process",
    "processName",
    "stack_info",
)


def forward_logs(connection: ChildConnection, levels: Mapping[str, int], worker_id: str) -> None:
    """From now on, send log records to the worker, except those below the worker's levels."""
    handler = _Forward(connection)
    handler.addFilter(TaskContextFilter(worker_id=worker_id))

    def set_up() -> logging.Handler:
        logging.root.handlers[:] = [handler]
        for name, level in levels.items():
            logging.getLogger(name or None).setLevel(level)
        logging.captureWarnings(True)
        return handler

    keep_logging(set_up)
    in_forked_children(_log_to_standard_error)


def _log_to_standard_error() -> None:
    """In a child that a skill forked, log to standard error: it has no connection to the worker."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextLogFormatter())
    handler.addFilter(TaskContextFilter())
    logging.root.handlers[:] = [handler]


class _Forward(logging.Handler):
    def __init__(self, connection: ChildConnection) -> None:
        super().__init__()
        self._connection = connection
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record: text and traceback already formatted, extras as values if possible, else as their repr."""
        try:
            fields: dict[str, Any] = {name: getattr(record, name, None) for name in _KEPT}
            fields["msg"] = record.getMessage()
            if record.exc_info or record.exc_text:
                fields["exc_text"] = record.exc_text or self._formatter.formatException(
                    record.exc_info or (None, None, None)
                )
            for name, value in record.__dict__.items():
                if name not in _OWN:
                    fields[name] = _sendable(value)
            self._connection.write(_encoded(fields))
        except Exception:  # noqa: BLE001 - as in every handler: logging must not break anything
            self.handleError(record)


def _encoded(fields: dict[str, Any]) -> bytes:
    try:
        return encode("log", fields)
    except CANNOT_ENCODE:  # a string that is not valid Unicode
        return encode("log", {k: _unicode(v) if isinstance(v, str) else v for k, v in fields.items()})


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _sendable(value: object) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    try:
        encode(value)
    except CANNOT_ENCODE:
        return repr(value)
    return value
