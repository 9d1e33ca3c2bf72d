"""Seats, each taken by one process after another: its number, and so its worker id, stays the same."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from avtomatika_worker.fleet.member_process import Process
from avtomatika_worker.policy.restarts import Restarts


class MemberState(enum.StrEnum):
    """The state of a member's process."""

    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    WAITING = "waiting"
    """It ended by itself and will be restarted shortly."""
    LEFT = "left"
    """It has left because the machine is taken away, and is not restarted."""
    EMPTY = "empty"
    """None was started yet, or its configuration is wrong; in that case the next rolling restart tries again."""


@dataclass(frozen=True, slots=True)
class Place:
    """What distinguishes a member's process: the end of its worker id, and variables of its own."""

    suffix: str
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True, eq=False)
class Member:
    """Written only on the fleet's loop; read by the threads of its health server."""

    number: int
    place: Place
    state: MemberState = MemberState.EMPTY
    process: Process | None = None
    worker_id: str | None = None
    starts: int = 0
    restarted: int = 0
    last_exit: int | None = None
    replacing: bool = False
    """Whether a rolling restart is ending the process, so that its end is not a failure."""
    restarts: Restarts = field(default_factory=Restarts)
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The name shown to people."""
        return self.worker_id or f"process {self.place.suffix}"

    @property
    def uptime(self) -> float | None:
        """Seconds since its process was started, or None without a process."""
        process = self.process
        return time.monotonic() - process.started if process is not None and process.runs else None

    def taken_by(self, process: Process) -> None:
        """Run in a new process from now on."""
        self.process, self.state = process, MemberState.STARTING
