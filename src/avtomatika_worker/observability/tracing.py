"""The interface for spans. Without OpenTelemetry, or with it off, nothing is created or imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from avtomatika_worker.protocol.messages import Task

_NOTHING: Final = nullcontext()
_EMPTY: Final[Mapping[str, str]] = {}


class Tracing:
    """Traces nothing; used while traces are off. May be called from any thread."""

    def task(self, skill: str, task: Task) -> AbstractContextManager[object]:
        """Make the span of a task, ``task.{skill}``, as a child of the one in its tracing context (W3C headers)."""
        return _NOTHING

    def span(self, name: str, attributes: Mapping[str, Any] = _EMPTY) -> AbstractContextManager[object]:
        """Make a child of the current span; an exception that leaves the block is its error."""
        return _NOTHING

    def linked(
        self, name: str, spans: Sequence[object], attributes: Mapping[str, Any] = _EMPTY
    ) -> AbstractContextManager[object]:
        """Make a span of a trace of its own, with links to ``spans``."""
        return _NOTHING

    def current(self) -> object:
        """Return the current span, for a link to it; None without one."""
        return None

    def failed(self, why: str, span: Any = None) -> None:
        """Set the status of ``span``, or of the current one, to error."""

    def carrier(self) -> Mapping[str, str]:
        """Return the current span as W3C headers; empty without one."""
        return _EMPTY
