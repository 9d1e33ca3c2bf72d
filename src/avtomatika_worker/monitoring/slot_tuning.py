"""Uses fewer slots while memory or CPU is short. Runs on the link thread; slots belong to the main loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from avtomatika_worker import threadsafe
from avtomatika_worker._boundaries import attempted
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slot_tuner import Load, SlotTuner
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.capacity")

LOOK_EVERY: Final = 1.0
"""Seconds between checks of the load."""

_COMPLAIN_EVERY: Final = 60.0
"""Seconds between error lines about a load that cannot be measured."""


class SlotTuning:
    """Measures the load, applies the policy, and limits the slots through ``apply``.

    ``measure`` returns the percentages of memory and CPU in use; it is called in its own thread.
    """

    def __init__(
        self,
        tuner: SlotTuner,
        state_watch: threadsafe.Watch[WorkerState],
        measure: Callable[[], tuple[float, float]],
        apply: Callable[[int], object],
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self._tuner = tuner
        self._state_watch = state_watch
        self._measure = measure
        self._apply = apply
        self._complained = -_COMPLAIN_EVERY

    async def run(self) -> None:
        """Check until cancelled."""
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, thread_name_prefix="usage")
        try:
            await loop.run_in_executor(pool, self._load)  # a CPU load covers the time since the previous measurement
            while True:
                await asyncio.sleep(LOOK_EVERY)
                load = await loop.run_in_executor(pool, self._load)
                if load is not None:
                    self.look(load, self._monotonic())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def look(self, load: Load, now: float) -> None:
        """Decide once."""
        tuner, state = self._tuner, self._state_watch.value
        before = tuner.usable
        usable = tuner.look(load, state.slots_running, now)
        if usable == before:
            return
        self._apply(usable)
        if usable < before:
            _log.warning(
                "%s: %d of %d slots may be used",
                tuner.short_of(load) or "the load is high",
                usable,
                state.slots_total,
                extra={"action": "slots_shrunk", "slots": usable},
            )
        else:
            _log.info(
                "%d of %d slots may be used again",
                usable,
                state.slots_total,
                extra={"action": "slots_grown", "slots": usable},
            )

    def _load(self) -> Load | None:
        measured = attempted(self._measure, self._without)  # a restricted /proc: the slots stay as they are
        return None if measured is None else Load(memory=measured[0], cpu=measured[1])

    def _without(self, error: Exception) -> None:
        now = self._monotonic()
        if now - self._complained >= _COMPLAIN_EVERY:
            self._complained = now
            _log.error(
                "the load cannot be measured: %s: %s", type(error).__name__, error, extra={"action": "load_unknown"}
            )
