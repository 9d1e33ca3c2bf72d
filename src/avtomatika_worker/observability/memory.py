"""How much memory this process uses, and by how much what it does makes that grow."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from avtomatika_worker.observability.gpu import Gpus


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes in use: ``host`` by this process, ``device`` on the machine's GPUs."""

    host: int
    device: int

    def __add__(self, other: MemoryReading) -> MemoryReading:
        return MemoryReading(self.host + other.host, self.device + other.device)

    def __sub__(self, other: MemoryReading) -> MemoryReading:
        return MemoryReading(self.host - other.host, self.device - other.device)


class MemoryMeter:
    """Reads the resident memory of this process, and that in use on GPUs. May be called in any thread."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        self._gpus = gpus or Gpus()
        self._process = psutil.Process()

    def __call__(self) -> MemoryReading:
        """Return what is in use now."""
        return MemoryReading(self._process.memory_info().rss, self._gpus.memory_used())


class MemoryLedger:
    """Divides the growth of the memory among what goes on side by side: a byte is counted once."""

    def __init__(self) -> None:
        self._counted = MemoryReading(0, 0)

    def begin(self, reading: MemoryReading) -> MemoryReading:
        """Return the mark from which a change is measured."""
        return reading - self._counted

    def end(self, mark: MemoryReading, reading: MemoryReading) -> int:
        """Return the bytes by which the memory has changed since, host's or device's, whichever grew more."""
        change = self.begin(reading) - mark
        self._counted += change
        return max(change.host, change.device)
