"""Keeps the worker's own log records from ending it: user code may raise anything while one is made and handled.

That can happen in handlers and filters, in the record factory, and in any part of the standard library that a skill has
replaced.
"""

from __future__ import annotations

import logging
import weakref
from types import TracebackType
from typing import Any, Final

from avtomatika_worker._atexit import write_error

_PACKAGE: Final = "avtomatika_worker"
_CONTAINED: Final = frozenset({_PACKAGE, "asyncio", "concurrent"})
"""The packages whose loggers the worker's event loops call."""
_NAME: Final = f"{_PACKAGE} to root"
_package: Final = logging.getLogger(_PACKAGE)


def contain_handlers() -> None:
    """Pass the worker's records to the root logger's handlers, and catch any exception on the way."""
    for name, each in list(logging.root.manager.loggerDict.items()):
        if type(each) is logging.Logger and name.partition(".")[0] in _CONTAINED:
            each.__class__ = ContainedLogger
    if not any(each.get_name() == _NAME for each in _package.handlers):  # this module may have been imported again
        _package.addHandler(_ToRoot())
    _package.propagate = False


_reported: Final = set[type[BaseException]]()


def record_lost(error: BaseException) -> None:
    """Report a lost record on standard error, once for each kind of problem."""
    if type(error) not in _reported:
        _reported.add(type(error))
        write_error(f"worker: a log record was lost: {type(error).__name__} was raised while it was made")


class _MadeOrLost:
    """A ``with`` block in which a log record is made and handled: whatever is raised there ends nothing but that."""

    def __enter__(self) -> None:
        pass

    def __exit__(  # ends whatever users' handlers, filters and factories raise
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is not None:
            record_lost(error)
        return True


MADE_OR_LOST: Final = _MadeOrLost()


class ContainedLogger(logging.Logger):
    """A logger that never raises."""

    def _log(self, *args: Any, **kwargs: Any) -> None:
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # skip this method's own frame
        with MADE_OR_LOST:
            super()._log(*args, **kwargs)


class _ToRoot(logging.Handler):
    """Hands records to the root logger's handlers, as propagating them would."""

    def __init__(self) -> None:
        super().__init__()
        self.set_name(_NAME)
        self._broken: weakref.WeakSet[logging.Handler] = weakref.WeakSet()

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass on a record without a lock: each of those handlers has its own."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a record; the first exception from a handler is reported on standard error."""
        own = _package.handlers
        for handler in logging.root.handlers.copy():
            if record.levelno < handler.level or handler in own:  # pytest gives its handlers to both
                continue
            try:
                handler.handle(record)
            except BaseException as error:  # noqa: BLE001 - a log record must not end anything
                if handler not in self._broken:
                    self._broken.add(handler)
                    write_error(f"worker: the log handler {handler!r} raised {type(error).__name__}: {error}")
