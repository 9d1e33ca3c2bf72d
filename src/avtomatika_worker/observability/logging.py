"""Logs: every record made while a task runs carries worker_id, task_id and job_id, user code's records included.

The context lives in one context variable. Tasks of asyncio and the worker's threads run in copies of their parent's
context, so nothing leaks from one task to another. Importing this module and making a worker touch no logger; the CLI
calls ``configure_logging``, and a program that embeds a worker adds ``TaskContextFilter`` to handlers of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, TextIO

from pythonjsonlogger.json import JsonFormatter

from avtomatika_worker.observability.contained import contain_handlers
from avtomatika_worker.observability.printable import printable
from avtomatika_worker.observability.writer import Writer

CONTEXT_FIELDS: Final = ("worker_id", "task_id", "job_id")

TASK_FINISHED: Final = "task_finished"
"""The ``action`` of the one record that every task makes (services/tasks.py)."""

_OWN: Final = "avtomatika_worker"
_own_logger: Final = logging.getLogger(_OWN)
_set_up: Callable[[], logging.Handler] | None = None
_in_effect: logging.Handler | None = None

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_CONTEXT: Final[ContextVar[Mapping[str, str]]] = ContextVar("avtomatika_worker.log_context", default=_NOTHING)

LogContextToken = Token[Mapping[str, str]]


def current_log_context() -> Mapping[str, str]:
    """Return the fields that records made here and now carry."""
    return _CONTEXT.get()


def bind_log_context(**fields: str) -> LogContextToken:
    """Add ``fields`` to every record made from now on in this context and in those copied from it.

    Fields bound before stay. Returns what ``reset_log_context`` takes to undo it.
    """
    return _CONTEXT.set(MappingProxyType({**_CONTEXT.get(), **fields}))


def reset_log_context(token: LogContextToken) -> None:
    """Undo one ``bind_log_context``. Raises ValueError in another context than the one that was bound in."""
    _CONTEXT.reset(token)


@contextlib.contextmanager
def log_context(**fields: str) -> Generator[None, None, None]:
    """Add ``fields`` to every record made inside of the block."""
    token = bind_log_context(**fields)
    try:
        yield
    finally:
        reset_log_context(token)


class TaskContextFilter(logging.Filter):
    """Set the context's fields on every record that passes; add it to a handler, not to a logger.

    ``defaults`` hold where the context has nothing, in threads that user code started itself, for example. worker_id,
    task_id and job_id are always set, to the empty text when unknown, so formats may name them; trace_id and span_id
    are set inside of a span of OpenTelemetry. What the record
    brings itself (``extra=``) stays.
    """

    def __init__(self, **defaults: str) -> None:
        super().__init__()
        self._defaults = dict.fromkeys(CONTEXT_FIELDS, "") | defaults

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields and let the record pass."""
        fields = record.__dict__
        for source in (_current_span(), _CONTEXT.get(), self._defaults):
            for name, value in source.items():
                fields.setdefault(name, value)
        return True


def _current_span() -> dict[str, str]:
    """Return trace_id and span_id of the span that is open here and now; nothing where nobody traces."""
    otel: Any = sys.modules.get("opentelemetry.trace")  # never imported for this
    span = otel.get_current_span().get_span_context() if hasattr(otel, "get_current_span") else None
    if span is None or not span.is_valid:
        return {}
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


class TracebackLogger:
    """Writes records with a traceback that is text already; ``logging`` itself takes exceptions only."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def log(
        self, level: int, message: str, args: tuple[object, ...], traceback: str, *, extra: Mapping[str, object]
    ) -> None:
        """Log a message, and below it a traceback unless that is empty."""
        if not traceback:
            self._logger.log(level, message, *args, extra=extra, stacklevel=2)
        elif self._logger.isEnabledFor(level):
            path, line, function, _ = self._logger.findCaller(stacklevel=2)
            record = self._logger.makeRecord(
                self._logger.name, level, path, line, message, args, None, function, dict(extra)
            )
            record.exc_text = traceback
            self._logger.handle(record)


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler that ``configure_logging`` installs; known by its type when it is called again.

    The line that tells a task's end is written with those of all tasks that end in the same turn of the event loop:
    writing each costs more than all else about it. Every other line is written at once, after those that wait; with a
    ``writer``, by that.
    """

    def __init__(self, stream: TextIO, writer: Writer | None = None) -> None:
        super().__init__(stream)
        self._writer = writer
        self.closed = False
        self._waiting: list[str] = []
        self._written_by: asyncio.AbstractEventLoop | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.append(self.format(record) + self.terminator)
            if getattr(record, "action", None) != TASK_FINISHED or not self._is_written_later():
                self._write_lines()
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - what logging's own handlers do: a log that fails stops nothing
            self.handleError(record)

    def flush(self) -> None:
        """Write what waits; a stream that takes nothing any more is not waited for, where there is a ``writer``."""
        self._write_lines()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Let the writer end, if there is one."""
        self._write_lines()
        self.closed = True
        if self._writer is not None:
            self._writer.close()
        super().close()

    def _write_lines(self) -> None:
        with self.lock or contextlib.nullcontext():
            lines, self._waiting, self._written_by = self._waiting, [], None
            if self._writer is None:
                if lines:
                    self.stream.write("".join(lines))
                super().flush()
            elif lines:
                self._writer.write("".join(lines))

    def _is_written_later(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._written_by is not loop:
            self._written_by = loop
            loop.call_soon(self._flush_late)
        return True

    def _flush_late(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or the stream is closed
            self._write_lines()


def configure_logging(
    format: str = "text",  # noqa: A002 - named like the setting
    level: str = "INFO",
    stream: TextIO | None = None,
    *,
    worker_id: str | None = None,
    show_worker: bool = False,
    background: bool = False,
) -> logging.Handler:
    """Log as ``text`` or ``json`` to ``stream`` (standard error) through the root logger and return the handler.

    ``worker_id`` is what records carry that are made outside of any context; text shows it when ``show_worker`` says
    that others write there, too. With ``background`` a thread writes: a full pipe stops nobody who logs, and what finds
    no room is dropped, counted and reported. Called again, it replaces what it set up before.

    Where the program has set up a handler that writes to the console, no record is written twice: ``text`` leaves the
    console to that handler, which is returned; ``json``, which somebody has asked for, takes its place. Other handlers
    are left alone. The worker's own loggers are enabled, whatever a ``dictConfig`` has disabled; `restore_logging` does
    all that again. Raises ValueError for an unknown format or level.
    """
    target = sys.stderr if stream is None else stream
    formatter = _formatter(format, target, show_worker=show_worker)
    logging.Handler().setLevel(level)  # raises ValueError before anything has changed

    def set_up() -> logging.Handler:
        root = logging.getLogger()
        root.setLevel(level)
        for old in [each for each in root.handlers if isinstance(each, _Handler)]:
            root.removeHandler(old)
            old.close()
        theirs = [each for each in root.handlers if _writes_to_console(each)] if _is_console(target) else []
        if format == "text" and theirs:
            return theirs[0]
        for each in theirs:
            root.removeHandler(each)
        handler = _Handler(target, Writer(target) if background and _has_descriptor(target) else None)
        handler.setFormatter(formatter)
        handler.addFilter(TaskContextFilter(worker_id=worker_id or ""))
        root.addHandler(handler)
        contain_handlers()
        logging.captureWarnings(True)
        # One record per probe of the health server says nothing.
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
        return handler

    disabled = logging.root.manager.disable
    if disabled >= logging.getLevelNamesMapping()[level]:
        print(f"worker: logging.disable({disabled}) is in force: only records above that are logged", file=target)
    return keep_logging(set_up)


def keep_logging(set_up: Callable[[], logging.Handler]) -> logging.Handler:
    """Set logs up for the process by ``set_up``, which returns its handler, and have `restore_logging` repeat that."""
    global _set_up, _in_effect
    _set_up = set_up
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == _OWN:
            logger.disabled = False
    _in_effect = set_up()
    return _in_effect


def restore_logging() -> None:
    """Set up logs again where user code has undone that: by ``dictConfig`` or ``fileConfig``, or without a handler.

    Called after user code has run. A program that embeds a worker, and has its own logging, is left alone.
    """
    if _set_up is None:
        return
    closed = isinstance(_in_effect, _Handler) and _in_effect.closed
    if closed or _own_logger.disabled or _in_effect not in logging.root.handlers:
        keep_logging(_set_up)


def _is_console(stream: object) -> bool:
    return any(stream is each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))


def _writes_to_console(handler: logging.Handler) -> bool:
    """Whether a handler, a ``StreamHandler`` or one of rich, writes to standard output or standard error."""
    console: Any = getattr(handler, "console", None)
    stream: Any = getattr(handler, "stream", None) or getattr(console, "file", None)
    return stream is not None and _is_console(stream)


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):  # a stream in memory
        return False


def _formatter(format_name: str, stream: TextIO, *, show_worker: bool) -> logging.Formatter:
    if format_name == "json":
        return JsonLogFormatter()
    if format_name == "text":
        return TextLogFormatter(color=_wants_color(stream), show_worker=show_worker)
    raise ValueError(f"log format must be text or json, not {format_name!r}")


def _wants_color(stream: TextIO) -> bool:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


class JsonLogFormatter(JsonFormatter):
    """One JSON object per record: timestamp, level, logger, message, action, the context, extras, exception.

    Every record makes a line of valid JSON: values that JSON does not have are written as their ``repr``.
    """

    _ORDER: Final = ("timestamp", "level", "logger", "message", "action", *CONTEXT_FIELDS, "trace_id", "span_id")

    def __init__(self) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - the library types its hooks loosely
            "%(message)s",
            rename_fields={"exc_info": "exception", "stack_info": "stack"},
            json_serializer=functools.partial(json.dumps, allow_nan=False),
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Collect the fields in a fixed order, without the empty ones of the context."""
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
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_INDENT: Final = "\n    "
_TASK_LABELS: Final = (("task", "task_id"), ("job", "job_id"))
_ALL_LABELS: Final = (("worker", "worker_id"), *_TASK_LABELS)


class TextLogFormatter(logging.Formatter):
    """One line per record for people; further lines of a message and tracebacks are indented.

    The worker's id is shown only on request: where one worker writes, it would be the same on every line.

    Control characters are escaped and only our own lines start at the margin, so nobody's input can forge a record.
    """

    def __init__(self, *, color: bool = False, show_worker: bool = False) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self._color = color
        self._labels = _ALL_LABELS if show_worker else _TASK_LABELS
        self._clock = (-1, "")
        self._levels: dict[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of the record, without the last line's end."""
        first, newline, rest = printable(record.getMessage()).partition("\n")
        context = _text_context(record, self._labels)
        line = f"{self._time(record)} {self._level(record.levelname)} {_shown_name(record.name)}  {first}"
        if context:
            line += "  " + self._painted(_DIM, context)
        more = [*(rest.split("\n") if newline else ()), *self._traceback(record)]
        return _INDENT.join([line, *more]) if more else line

    def _level(self, name: str) -> str:
        """Return a level's name, as wide as all and in its colour."""
        known = self._levels.get(name)
        if known is None:
            known = self._levels[name] = self._painted(_COLORS.get(name, ""), _LEVELS.get(name, name).ljust(5))
        return known

    def _time(self, record: logging.LogRecord) -> str:
        """Return the time of day; it is written anew only once a second."""
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
    return " ".join([f"{label}={_one_line(str(fields[name]))}" for label, name in labels if fields.get(name)])


@functools.lru_cache(maxsize=256)
def _shown_name(name: str) -> str:
    return _one_line(re.sub(r"^avtomatika_worker(?=\.|$)", "worker", name))


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return printable(text).replace("\n", "\\n")
