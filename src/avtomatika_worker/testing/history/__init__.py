"""Histories of what happened between orchestrators and workers, and the invariants that hold in every one.

    with recording() as history:
        ...  # a worker runs tasks of an EmbeddedOrchestrator
    history.check()

The invariants are those of docs/delivery.md. A test that breaks one on purpose names it: ``check(except_for={"…"})``.
The pytest plugin's fixture ``worker_history`` checks when its test ends.
"""

from __future__ import annotations

from avtomatika_worker.testing.history.entries import Entry, Kind
from avtomatika_worker.testing.history.invariants import INVARIANTS, Invariant
from avtomatika_worker.testing.history.recorder import History, Violation, recording

__all__ = ["INVARIANTS", "Entry", "History", "Invariant", "Kind", "Violation", "recording"]
