"""A seat is what one process after another takes: it has a number, and so a worker id, that stays."""

from __future__ import annotations

import asyncio
import enum
import time
from dataclasses import dataclass, field

from avtomatika_worker.fleet.member_process import Process
from avtomatika_worker.policy.restarts import Restarts


class MemberState(enum.StrEnum):
    """What a seat's process does."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    WAITING = "waiting"
    """It ended by itself and is started again in a moment."""
    EMPTY = "empty"
    """None was started yet, or its configuration is wrong: then the next rolling restart tries again."""


@dataclass(slots=True, eq=False)
class Member:
    """Changed on the fleet's loop only; its health server's threads read it."""

    number: int
    state: MemberState = MemberState.EMPTY
    process: Process | None = None
    worker_id: str | None = None
    starts: int = 0
    restarted: int = 0
    last_exit: int | None = None
    replacing: bool = False
    """Whether a rolling restart ends the process, so that its end is no failure."""
    restarts: Restarts = field(default_factory=Restarts)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """What people read of it."""
        return self.worker_id or f"process {self.number}"

    @property
    def uptime(self) -> float | None:
        """Seconds since its process was started; None when there is none."""
        process = self.process
        return time.monotonic() - process.started if process is not None and process.runs else None

    def taken_by(self, process: Process) -> None:
        """Let a new process have it."""
        self.process, self.state = process, MemberState.STARTING
