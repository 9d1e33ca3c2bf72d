"""Keeps the worker's own log records from ending it: handlers are users' code, and may raise anything."""

from __future__ import annotations

import logging
import weakref
from typing import Final

from avtomatika_worker._atexit import write_error

_PACKAGE: Final = "avtomatika_worker"
_NAME: Final = f"{_PACKAGE} to root"


def contain_handlers() -> None:
    """Let records of the worker reach the root logger's handlers with whatever these raise caught."""
    logger = logging.getLogger(_PACKAGE)
    if not any(each.get_name() == _NAME for each in logger.handlers):  # this module may have been imported again
        logger.addHandler(_ToRoot())
    logger.propagate = False


class _ToRoot(logging.Handler):
    """Hands records to the root logger's handlers, as propagating them would."""

    def __init__(self) -> None:
        super().__init__()
        self.set_name(_NAME)
        self._broken: weakref.WeakSet[logging.Handler] = weakref.WeakSet()

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand a record on without a lock: each of those handlers has its own."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on; the first time that a handler raises is told on standard error."""
        own = logging.getLogger(_PACKAGE).handlers
        for handler in logging.root.handlers.copy():
            if record.levelno < handler.level or handler in own:  # pytest gives its handlers to both
                continue
            try:
                handler.handle(record)
            except BaseException as error:  # noqa: BLE001 - a log record ends nothing
                if handler not in self._broken:
                    self._broken.add(handler)
                    write_error(f"worker: the log handler {handler!r} raised {type(error).__name__}: {error}")
