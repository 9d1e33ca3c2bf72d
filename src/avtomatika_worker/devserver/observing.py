"""Lets others see what embedded orchestrators do, as it happens and completely: for histories of what happened."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from avtomatika_worker.devserver.changes import Change
    from avtomatika_worker.devserver.snapshots import RecordedCall


class Observer(Protocol):
    """Is called in the orchestrator's event loop; ``url`` says which orchestrator it is."""

    def started(self, url: str, lease: float) -> None:
        """It listens."""

    def stopped(self, url: str) -> None:
        """It no longer listens."""

    def received(self, url: str, call: RecordedCall) -> None:
        """A worker's call has arrived."""

    def answered(self, url: str, call: RecordedCall) -> None:
        """It is answered, or its caller is gone."""

    def changed(self, url: str, change: Change) -> None:
        """Something has changed."""


OBSERVERS: Final[list[Observer]] = []
"""Those that see every embedded orchestrator of this process."""


@contextlib.contextmanager
def observed_by(observer: Observer) -> Generator[None]:
    """Let ``observer`` see every embedded orchestrator of this process inside the block."""
    OBSERVERS.append(observer)
    try:
        yield
    finally:
        OBSERVERS.remove(observer)
