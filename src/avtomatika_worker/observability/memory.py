"""How much memory this process uses, and by how much what it does makes that grow."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import Final

import psutil

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.observability.gpu import Gpus

_log: Final = logging.getLogger("avtomatika_worker.models")


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Bytes in use: ``host`` by this process, ``device`` on the machine's GPUs."""

    host: int
    device: int


class MemoryMeter:
    """Reads the resident memory of this process, and that in use on GPUs. May be called in any thread."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        self._gpus = gpus or Gpus()
        self._process = psutil.Process()
        self._latest = MemoryReading(0, 0)
        self._has_failed = False

    def __call__(self) -> MemoryReading:
        """Return what is in use now, or what was, where that cannot be read: the log says so once."""
        self._latest = attempted(self._read, self._without)  # a restricted /proc, or a driver
        return self._latest

    def _read(self) -> MemoryReading:
        return MemoryReading(self._process.memory_info().rss, self._gpus.memory_used())

    def _without(self, error: Exception) -> MemoryReading:
        if not self._has_failed:
            self._has_failed = True
            text = "the memory of models cannot be measured: %s: %s"
            _log.warning(text, type(error).__name__, error, extra={"action": "memory_unknown"})
        return self._latest


class MemoryLedger:
    """Divides the growth of the memory among what goes on at the same time, in equal parts: a byte is counted once."""

    def __init__(self) -> None:
        self._last = MemoryReading(0, 0)
        self._numbers = itertools.count()
        self._host: dict[int, float] = {}
        self._device: dict[int, float] = {}

    def begin(self, reading: MemoryReading) -> int:
        """Measure from now on; return the number to `end` with."""
        self._divide(reading)
        number = next(self._numbers)
        self._host[number] = self._device[number] = 0.0
        return number

    def end(self, number: int, reading: MemoryReading) -> int:
        """Return the bytes by which the memory has changed, host's or device's, whichever grew more."""
        self._divide(reading)
        return round(max(self._host.pop(number), self._device.pop(number)))

    def _divide(self, reading: MemoryReading) -> None:
        """Add what has changed since the last look to all that go on."""
        before, self._last = self._last, reading
        for number in self._host:
            self._host[number] += (reading.host - before.host) / len(self._host)
            self._device[number] += (reading.device - before.device) / len(self._host)
