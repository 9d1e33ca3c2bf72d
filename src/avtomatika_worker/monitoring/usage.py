"""Measures the machine's load now and then, for the heartbeats. Runs in the link thread."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from avtomatika_worker.observability.usage_meter import UsageMeter
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.protocol.messages import ResourcesUsage

_log: Final = logging.getLogger("avtomatika_worker.usage")

UsageChecker = Callable[[], Mapping[str, Any] | ResourcesUsage]
"""Returns ``{"cpu_load_percent": …, "ram_used_gb": …, "devices_usage": [{"unit_id": …, "load_percent": …}]}``."""

MEASURE_EVERY: Final = 5.0
"""Seconds between two measurements."""

FIRST_AFTER: Final = 0.2
"""Seconds over which the first load is measured."""

_COMPLAIN_EVERY: Final = 60.0
"""Seconds between two error lines about measurements that fail."""


class UsageMonitor:
    """Holds the newest measurement: the user's checker's, or the machine's own.

    The checker is user code: it runs in a thread of its own, and one that hangs holds nothing up.
    """

    def __init__(self, checker: UsageChecker | None = None) -> None:
        self._measure: UsageChecker = checker or UsageMeter().measure
        self._latest: ResourcesUsage | None = None
        self._complained = -_COMPLAIN_EVERY

    @property
    def latest(self) -> ResourcesUsage | None:
        """The newest measurement; None before the first, and after one that failed. May be read from any thread."""
        return self._latest

    async def run(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix="usage")
        try:
            await loop.run_in_executor(pool, self._look)  # a load is one since the measurement before
            await asyncio.sleep(FIRST_AFTER)
            while True:
                self._latest = await loop.run_in_executor(pool, self._look)
                await asyncio.sleep(MEASURE_EVERY)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> ResourcesUsage | None:
        try:
            usage = msgspec.convert(self._measure(), ResourcesUsage, strict=False, from_attributes=True)
            canonical_bytes(msgspec.to_builtins(usage), NEUTRAL)  # finds what would make every heartbeat fail, as NaN
        except Exception as error:  # noqa: BLE001 - user code, or a restricted /proc: a heartbeat goes without it
            now = time.monotonic()
            if now - self._complained >= _COMPLAIN_EVERY:
                self._complained = now
                _log.error(
                    "the usage cannot be told: %s: %s", type(error).__name__, error, extra={"action": "usage_failed"}
                )
            return None
        return usage
