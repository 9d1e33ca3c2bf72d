"""Slots: capacity before work. A slot is reserved before a poll goes out, so a task that arrives always has one."""

from __future__ import annotations


class Slots:
    """Counts the slots of a worker. free → polling → running → free."""

    __slots__ = ("polling", "running", "total")

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a worker needs at least one slot, not {total}")
        self.total: int = total
        self.polling: int = 0
        self.running: int = 0

    @property
    def free(self) -> int:
        """Slots that are neither running a task nor reserved for a poll in flight."""
        return self.total - self.polling - self.running

    @property
    def idle(self) -> bool:
        """Whether one more task could start now: what "idle" means to an orchestrator."""
        return self.running < self.total

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
