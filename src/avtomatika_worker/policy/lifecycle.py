"""The life of a worker, as a table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class Phase(enum.StrEnum):
    """Where a worker stands in its life."""

    NEW = "new"
    RUNNING = "running"
    DRAINING = "draining"
    """No new polls; running tasks have their grace."""
    STOPPING = "stopping"
    """Grace is over or not needed: the rest is cancelled, results are flushed, links close."""
    STOPPED = "stopped"


class Signal(enum.StrEnum):
    """What moves a worker on."""

    START = "start"
    SHUTDOWN = "shutdown"
    DRAINED = "drained"
    FORCE = "force"
    CLOSED = "closed"


TRANSITIONS: Final[Mapping[tuple[Phase, Signal], Phase]] = {
    (Phase.NEW, Signal.START): Phase.RUNNING,
    (Phase.NEW, Signal.SHUTDOWN): Phase.STOPPED,
    (Phase.RUNNING, Signal.SHUTDOWN): Phase.DRAINING,
    (Phase.RUNNING, Signal.FORCE): Phase.STOPPING,
    (Phase.DRAINING, Signal.SHUTDOWN): Phase.DRAINING,
    (Phase.DRAINING, Signal.DRAINED): Phase.STOPPING,
    (Phase.DRAINING, Signal.FORCE): Phase.STOPPING,
    (Phase.STOPPING, Signal.SHUTDOWN): Phase.STOPPING,
    (Phase.STOPPING, Signal.FORCE): Phase.STOPPING,
    (Phase.STOPPING, Signal.CLOSED): Phase.STOPPED,
    (Phase.STOPPED, Signal.SHUTDOWN): Phase.STOPPED,
    (Phase.STOPPED, Signal.FORCE): Phase.STOPPED,
}


def step(phase: Phase, signal: Signal) -> Phase:
    """Return the phase after ``signal``. Raises ValueError for a signal that cannot come in ``phase``."""
    try:
        return TRANSITIONS[phase, signal]
    except KeyError:
        raise ValueError(f"a worker that is {phase} does not take {signal}") from None
