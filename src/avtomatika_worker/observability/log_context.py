"""The context of log records: every record made while a task runs carries worker_id, task_id and job_id.

It is stored in one context variable. asyncio tasks and the worker's threads run in copies of their parent's context, so
nothing leaks from one task to another.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Final

CONTEXT_FIELDS: Final = ("worker_id", "task_id", "job_id")

_NOTHING: Final[dict[str, str]] = {}
_CONTEXT: Final[ContextVar[dict[str, str]]] = ContextVar("avtomatika_worker.log_context", default=_NOTHING)
"""Replaced, never changed."""

LogContextToken = Token[dict[str, str]]


def current_log_context() -> Mapping[str, str]:
    """Return the fields of records made in the current context."""
    return MappingProxyType(_CONTEXT.get())


def bind_log_context(**fields: str) -> LogContextToken:
    """Add ``fields`` to every record made from now on in this context and its copies.

    Fields bound earlier stay. Returns the token for ``reset_log_context``.
    """
    return _CONTEXT.set({**_CONTEXT.get(), **fields})


def reset_log_context(token: LogContextToken) -> None:
    """Undo one ``bind_log_context``. Raises ValueError outside the context it was called in."""
    _CONTEXT.reset(token)


def unbind_log_context(*names: str) -> None:
    """Remove these fields from records made from now on in this context and its copies; all of them without names."""
    kept = {name: value for name, value in _CONTEXT.get().items() if names and name not in names}
    _CONTEXT.set(kept)


@contextlib.contextmanager
def log_context(**fields: str) -> Generator[None, None, None]:
    """Add ``fields`` to every record made inside the block."""
    token = bind_log_context(**fields)
    try:
        yield
    finally:
        reset_log_context(token)


class TaskContextFilter(logging.Filter):
    """Set the context's fields on every record that passes; add it to a handler, not to a logger.

    ``defaults`` apply where the context has nothing, for example in threads started by user code. worker_id, task_id
    and job_id are always set, to the empty text if unknown, so that formats may name them; trace_id and span_id are set
    inside an OpenTelemetry span. Fields of the record itself (``extra=``) stay.
    """

    def __init__(self, **defaults: str) -> None:
        super().__init__()
        self._defaults = dict.fromkeys(CONTEXT_FIELDS, "") | defaults

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the fields and let the record pass."""
        fields = record.__dict__
        context = {**self._defaults, **_CONTEXT.get()}
        if (otel := sys.modules.get("opentelemetry.trace")) is not None:  # never imported for this
            context |= _current_span(otel)
        for name, value in context.items():
            fields.setdefault(name, value)
        return True


def _current_span(otel: Any) -> dict[str, str]:
    """Return trace_id and span_id of the current span; empty without tracing."""
    span = otel.get_current_span().get_span_context() if hasattr(otel, "get_current_span") else None
    if span is None or not span.is_valid:
        return {}
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
