"""Slots: capacity before work. A slot is reserved before a poll goes out, so a task that arrives always has one."""

from __future__ import annotations


class Slots:
    """Counts the slots of a worker. free → polling → running → free.

    ``usable`` of them may be taken now: `total`, unless something holds the others back. What runs is left to run.
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
        """Slots that may be taken: neither running a task nor reserved for a poll in flight, nor held back."""
        return max(0, self.usable - self.polling - self.running)

    @property
    def held_back(self) -> int:
        """Slots that nothing uses and that may not be taken."""
        return self.total - self.free - self.polling - self.running

    @property
    def idle(self) -> bool:
        """Whether one more task could start now: what "idle" means to an orchestrator."""
        return self.running < self.usable

    def limit(self, usable: int) -> None:
        """Let only so many be taken from now on. Raises ValueError for none, or more than there are."""
        if not 1 <= usable <= self.total:
            raise ValueError(f"from 1 to {self.total} slots can be usable, not {usable}")
        self.usable = usable

    def reserve(self) -> None:
        """free → polling. Raises when no slot is free."""
        if self.free < 1:
            raise RuntimeError("no free slot to reserve")
        self.polling += 1

    def start(self) -> None:
        """polling → running: the poll brought a task."""
        self._leave_polling()
        self.running += 1

    def release(self) -> None:
        """polling → free: the poll brought nothing."""
        self._leave_polling()

    def finish(self) -> None:
        """running → free: the task's outcome is in safe hands."""
        if self.running < 1:
            raise RuntimeError("no running slot to finish")
        self.running -= 1

    def _leave_polling(self) -> None:
        if self.polling < 1:
            raise RuntimeError("no poll in flight")
        self.polling -= 1
