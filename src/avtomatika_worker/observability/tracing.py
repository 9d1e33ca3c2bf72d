"""What spans are made with. Without OpenTelemetry, or with it switched off, nothing is made and nothing imported."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from avtomatika_worker.protocol.messages import Task

_NOTHING: Final = nullcontext()
_EMPTY: Final[Mapping[str, str]] = {}


class Tracing:
    """Traces nothing: what everything is given while traces are off. May be called from any thread."""

    def task(self, skill: str, task: Task) -> AbstractContextManager[object]:
        """Make the span of a task, ``task.{skill}``, a child of what its tracing context (W3C headers) names."""
        return _NOTHING

    def span(self, name: str, attributes: Mapping[str, Any] = _EMPTY) -> AbstractContextManager[object]:
        """Make a span below the current one; an exception that leaves the block is its error."""
        return _NOTHING

    def failed(self, why: str) -> None:
        """Set the current span's status to error."""

    def carrier(self) -> Mapping[str, str]:
        """Return the current span as W3C headers; empty without one."""
        return _EMPTY
