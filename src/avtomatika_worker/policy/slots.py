"""Slots: capacity before work. A slot is reserved before a poll is sent, so that an arriving task always has one."""

from __future__ import annotations


class Slots:
    """Counts the slots of a worker. free → polling → running → free.

    ``usable`` of them may be taken now: `total`, unless some are held back. Running tasks are not affected.
    """

    __slots__ = ("polling", "running", "total", "usable")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a worker needs at least one slot, not {total}")
        self.total: int = total
        self.usable: int = total
        self.polling: int = 0
        self.running: int = 0

    @property
    def free(self) -> int:
        """Slots that may be taken: not running a task, not reserved for a poll in flight and not held back."""
        return max(0, self.usable - self.polling - self.running)

    @property
    def held_back(self) -> int:
        """Unused slots that may not be taken."""
        return self.total - self.free - self.polling - self.running

    @property
    def overbooked(self) -> int:
        """How many more are taken than may be: they were, before some were held back."""
        return max(0, self.polling + self.running - self.usable)

    @property
    def idle(self) -> bool:
        """Whether one more task could start now: what "idle" means to an orchestrator."""
        return self.running < self.usable

    def limit(self, usable: int) -> None:
        """Let at most this many be taken from now on. Raises ValueError for 0, or more than `total`."""
        if not 1 <= usable <= self.total:
            raise ValueError(f"from 1 to {self.total} slots can be usable, not {usable}")
        self.usable = usable

    def reserve(self) -> None:
        """free → polling. Raises RuntimeError if no slot is free."""
        if self.free < 1:
            raise RuntimeError("no free slot to reserve")
        self.polling += 1

    def start(self) -> None:
        """polling → running: the poll brought a task."""
        self.release()
        self.running += 1

    def release(self) -> None:
        """polling → free: the poll brought no task. Raises RuntimeError if there was none."""
        if self.polling < 1:
            raise RuntimeError("no poll in flight")
        self.polling -= 1

    def finish(self) -> None:
        """running → free: the task's outcome is safe."""
        if self.running < 1:
            raise RuntimeError("no running slot to finish")
        self.running -= 1
