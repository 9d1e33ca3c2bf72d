"""Sets up logging for a process, and keeps it set up.

Importing this module and creating a worker touch no logger; the CLI calls ``configure_logging``, and a program that
embeds a worker adds ``TaskContextFilter`` to its own handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any, Final, TextIO

from avtomatika_worker.observability.contained import MADE_OR_LOST, contain_handlers
from avtomatika_worker.observability.log_context import TaskContextFilter
from avtomatika_worker.observability.log_formats import JsonLogFormatter, TextLogFormatter
from avtomatika_worker.observability.writer import Writer

TASK_FINISHED: Final = "task_finished"
"""The ``action`` of the one record that every task makes (tasks/runner.py)."""

_OWN: Final = "avtomatika_worker"
_own_logger: Final = logging.getLogger(_OWN)
_set_up: Callable[[], logging.Handler] | None = None
_in_effect: logging.Handler | None = None


class TracebackLogger:
    """Writes records with a traceback that is already text; ``logging`` itself accepts only exceptions."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._place: tuple[object, ...] = ()
        self._common: Mapping[str, Any] = {}

    def log(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        traceback: str,
        *,
        extra: dict[str, object],
        caller: CodeType | None = None,
    ) -> None:
        """Log a message, followed by a traceback unless that is empty.

        ``caller`` is the function that logs, for every task and outside of any; without it, the stack is searched.
        """
        if self._logger.isEnabledFor(level):
            with MADE_OR_LOST:
                if caller is None:
                    record = self._made(level, message, args, self._logger.findCaller(stacklevel=2)[:3], extra)
                else:
                    record = self._made_again(level, message, args, caller, extra)
                if traceback:
                    record.exc_text = traceback
                self._logger.handle(record)

    def _made(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        place: tuple[str, int, str],
        extra: dict[str, object] | None,
    ) -> logging.LogRecord:
        path, line, function = place
        return self._logger.makeRecord(self._logger.name, level, path, line, message, args, None, function, extra)

    def _made_again(
        self, level: int, message: str, args: tuple[object, ...], caller: CodeType, extra: dict[str, object]
    ) -> logging.LogRecord:
        """Return a record that has most in common with the last one from its place: the rest is filled in.

        ``logging`` would look up names of files, threads and the process each time, which takes as long as to format
        the line and to write it.
        """
        place = (level, message, caller, logging.getLogRecordFactory(), threading.get_ident())
        if place != self._place:
            code = (caller.co_filename, caller.co_firstlineno, caller.co_name)
            record = self._made(level, message, args, code, extra)
            if logging.getLogRecordFactory() is not logging.LogRecord:  # that of the program may do anything
                return record
            self._place = place
            self._common = {name: value for name, value in vars(record).items() if name not in extra}
            return record
        record, now = logging.LogRecord.__new__(logging.LogRecord), time.time()
        fields = vars(record)
        fields.update(self._common)
        fields["args"] = args
        fields["created"], fields["msecs"] = now, float(int(now % 1 * 1000))
        fields["relativeCreated"] += (now - self._common["created"]) * 1000
        fields.update(extra)
        return record


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that ``configure_logging`` installs, recognized by its type on later calls.

    The line about a task's end is written together with those of all tasks that end in the same turn of the event loop:
    a separate write would cost more than everything else about it. Every other line is written at once, after those
    waiting; by the ``writer``, if there is one.
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
        except Exception:  # noqa: BLE001 - as in logging's own handlers: a failing log stops nothing
            self.handleError(record)

    def flush(self) -> None:
        """Write the waiting lines; with a ``writer``, do not wait for a stream that has stopped accepting data."""
        self._write_lines()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Stop the writer, if there is one."""
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
        with contextlib.suppress(OSError, ValueError):  # the reader is gone, or the stream is closed
            self._write_lines()


def configure_logging(
    format: str = "text",  # noqa: A002 - named like the setting
    level: str = "INFO",
    stream: TextIO | None = None,
    *,
    worker_id: str | None = None,
    show_worker: bool = False,
    background: bool = False,
    text: type[TextLogFormatter] = TextLogFormatter,
) -> logging.Handler:
    """Log as ``text`` or ``json`` to ``stream`` (standard error) through the root logger and return the handler.

    ``worker_id`` is for records made outside any context; text shows it if ``show_worker`` says that other workers
    write there too. With ``background``, a thread writes: a full pipe never blocks a caller, and lines without room are
    dropped, counted and reported. ``text`` formats the records as text. Another call replaces the earlier setup.

    If the program has set up a handler that writes to the console, no record is written twice: ``text`` leaves the
    console to that handler, which is returned; ``json``, which must have been requested, replaces it. Other handlers
    are left alone. The worker's own loggers are enabled, even if a ``dictConfig`` has disabled them; `restore_logging`
    repeats all this. Raises ValueError for an unknown format or level.
    """
    target = sys.stderr if stream is None else stream
    formatter = _formatter(format, target, text, show_worker=show_worker)
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
        # One record per health probe is noise.
        logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
        return handler

    disabled = logging.root.manager.disable
    if disabled >= logging.getLevelNamesMapping()[level]:
        print(f"worker: logging.disable({disabled}) is in force: only records above that are logged", file=target)
    return keep_logging(set_up)


def keep_logging(set_up: Callable[[], logging.Handler]) -> logging.Handler:
    """Set up logging for the process with ``set_up``, which returns its handler; `restore_logging` repeats it."""
    global _set_up, _in_effect
    _set_up = set_up
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == _OWN:
            logger.disabled = False
    _in_effect = set_up()
    return _in_effect


def restore_logging() -> None:
    """Set up logging again if user code has undone it with ``dictConfig`` or ``fileConfig``, or removed the handler.

    Called after user code has run. A program that embeds a worker and has its own logging is left alone.
    """
    if _set_up is None:
        return
    closed = isinstance(_in_effect, _Handler) and _in_effect.closed
    if closed or _own_logger.disabled or _in_effect not in logging.root.handlers:
        keep_logging(_set_up)


def _is_console(stream: object) -> bool:
    return any(stream is each for each in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))


def _writes_to_console(handler: logging.Handler) -> bool:
    """Whether a handler, a ``StreamHandler`` or rich's, writes to standard output or standard error."""
    console: Any = getattr(handler, "console", None)
    stream: Any = getattr(handler, "stream", None) or getattr(console, "file", None)
    return stream is not None and _is_console(stream)


def _has_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):  # a stream in memory
        return False


def _formatter(
    format_name: str, stream: TextIO, text: type[TextLogFormatter], *, show_worker: bool
) -> logging.Formatter:
    if format_name == "json":
        return JsonLogFormatter()
    if format_name == "text":
        return text(color=_wants_color(stream), show_worker=show_worker)
    raise ValueError(f"log format must be text or json, not {format_name!r}")


def _wants_color(stream: TextIO) -> bool:
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain
