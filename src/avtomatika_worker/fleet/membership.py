"""The messages between the fleet and its members: one line each way, over a socket pair."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec


class Command(enum.Enum):
    """An order from the fleet to a member."""

    GO = b"go\n"
    """Begin: the fleet has the port."""

    DRAIN = b"drain\n"
    """Shut down gracefully; repeating it changes nothing."""

    FORCE = b"force\n"
    """Cut the shutdown short."""


PREEMPTED: Final = b"preempted\n"
"""A member's report that it leaves because of a notice that the machine is taken away: it is not restarted."""


class Ready(msgspec.Struct, frozen=True):
    """A member's report that its app is loaded and its settings are valid.

    Most of it is the same for all members, but it depends on user code, which the fleet does not load.
    """

    worker_id: str
    health_host: str
    port: int
    metrics: bool
    log_format: str
    log_level: str
    drain_limit: float
    """Limit for the shutdown, in seconds, with tasks that do not end by themselves."""


@dataclass(frozen=True, slots=True)
class Membership:
    """A member's start argument. ``base_id`` is the id before the suffix, unless a setting names one."""

    suffix: str
    control: int
    base_id: str
    socket: Path

    def to_argument(self) -> str:
        """Return the membership as one command-line argument."""
        return f"{self.suffix},{self.control},{self.base_id},{self.socket}"

    @classmethod
    def parse(cls, argument: str) -> Self:
        """Read a membership from its argument. Raises ValueError for any other text."""
        suffix, control, base_id, socket = argument.split(",", 3)
        return cls(suffix, int(control), base_id, Path(socket))
