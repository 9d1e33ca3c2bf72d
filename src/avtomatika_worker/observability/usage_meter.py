"""Measures the machine's load: CPU, memory and GPUs, relative to the control group's share if there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import psutil

from avtomatika_worker.observability.cgroup import ControlGroup
from avtomatika_worker.observability.gpu import Gpus
from avtomatika_worker.policy.slot_tuner import Load
from avtomatika_worker.protocol.messages import ResourcesUsage

GIB: Final = 2**30


class UsageMeter:
    """Measures on request. CPU load covers the time since the previous request; the first one has none.

    Not thread-safe.
    """

    def __init__(
        self, group: ControlGroup | None = None, gpus: Gpus | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._group = group or ControlGroup()
        self._gpus = gpus or Gpus()
        self._clock = clock
        self._before: tuple[float, float] | None = None

    def measure(self) -> ResourcesUsage:
        """Return the current load. Raises whatever psutil raises for a broken ``/proc``."""
        used = self._group.memory_used()
        return ResourcesUsage(
            cpu_load_percent=round(self._cpu_load(), 1),
            ram_used_gb=round((psutil.virtual_memory().used if used is None else used) / GIB, 2),
            devices_usage=self._gpus.usage() or None,
        )

    def shares(self) -> Load:
        """Return the percentages that are in use. Raises whatever psutil raises for a broken ``/proc``."""
        used, limit = self._group.memory_used(), self._group.memory()
        memory = 100 * used / limit if used is not None and limit else psutil.virtual_memory().percent
        return Load(memory=float(memory), cpu=self._cpu_load(), device=self._gpus.memory_share())

    def _cpu_load(self) -> float:
        host: Any = psutil.cpu_percent(interval=None)  # called every time: it measures since the previous call
        cpus, seconds = self._group.cpus(), self._group.cpu_seconds()
        if cpus is None or seconds is None:
            self._before = None
            return float(host)
        now = self._clock()
        before, self._before = self._before, (now, seconds)
        if before is None or now <= before[0]:
            return 0.0
        return min(100.0, max(0.0, 100 * (seconds - before[1]) / ((now - before[0]) * cpus)))
