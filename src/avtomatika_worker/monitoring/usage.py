"""Measures the machine's load periodically for the heartbeats. Runs on the link thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.observability.usage_meter import UsageMeter
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import ResourcesUsage
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.usage")

UsageChecker = Callable[[], Mapping[str, Any] | ResourcesUsage]
"""Returns ``{"cpu_load_percent": …, "ram_used_gb": …, "devices_usage": [{"unit_id": …, "load_percent": …}]}``."""

MEASURE_EVERY: Final = 5.0
"""Seconds between measurements."""

FIRST_AFTER: Final = 0.2
"""Seconds over which the first load is measured."""


class UsageMonitor:
    """Holds the newest measurement, by the user's checker or of the machine.

    The checker is user code: it runs in its own thread, so that it blocks nothing if it hangs.
    """

    def __init__(self, checker: UsageChecker | None = None, world: World = REAL) -> None:
        self._faults = LogThrottle(world.monotonic)
        self._measure: UsageChecker = checker or UsageMeter(clock=world.monotonic).measure
        self._latest: ResourcesUsage | None = None

    @property
    def latest(self) -> ResourcesUsage | None:
        """The newest measurement, or None before the first and after a failed one. May be read from any thread."""
        return self._latest

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix="usage")
        try:
            await loop.run_in_executor(pool, self._look)  # a load covers the time since the previous measurement
            await asyncio.sleep(FIRST_AFTER)
            while True:
                self._latest = await loop.run_in_executor(pool, self._look)
                await asyncio.sleep(MEASURE_EVERY)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> ResourcesUsage | None:
        return attempted(self._usage, self._without)  # user code, or a restricted /proc: heartbeats continue

    def _usage(self) -> ResourcesUsage | None:
        usage = msgspec.convert(self._measure(), ResourcesUsage, strict=False, from_attributes=True)
        canonical_bytes(msgspec.to_builtins(usage), NEUTRAL)  # finds what would fail every heartbeat, such as NaN
        return usage

    def _without(self, error: Exception) -> None:
        text = "the usage is not reported: %s: %s"
        self._faults.log(_log, logging.ERROR, text, type(error).__name__, error, action="usage_failed")
