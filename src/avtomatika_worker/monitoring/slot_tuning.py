"""Uses fewer slots while memory or CPU is short. Runs on the link thread; slots belong to the main loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from avtomatika_worker import threadsafe
from avtomatika_worker._boundaries import attempted
from avtomatika_worker.observability.log_throttle import LogThrottle
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slot_tuner import Load, SlotTuner, TunerPolicy
from avtomatika_worker.tasks.runner import TaskRunner
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.capacity")

LOOK_EVERY: Final = 1.0
"""Seconds between checks of the load."""


class SlotTuning:
    """Measures the load, applies the policy, and limits the slots through ``apply``.

    ``measure`` is called in its own thread.
    """

    def __init__(
        self,
        tuner: SlotTuner,
        state_watch: threadsafe.Watch[WorkerState],
        measure: Callable[[], Load],
        apply: Callable[[int], object],
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self._faults = LogThrottle(world.monotonic)
        self._tuner = tuner
        self._state_watch = state_watch
        self._measure = measure
        self._apply = apply

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
        return attempted(self._measure, self._without)  # a restricted /proc: the slots stay as they are

    def _without(self, error: Exception) -> None:
        text = "the load cannot be measured: %s: %s"
        self._faults.log(_log, logging.ERROR, text, type(error).__name__, error, action="load_unknown")


def tune_slots(
    policy: TunerPolicy,
    measure: Callable[[], Load],
    state_watch: threadsafe.Watch[WorkerState],
    to_main: threadsafe.CallQueue,
    tasks: TaskRunner,
    world: World = REAL,
) -> SlotTuning:
    """Return the tuning of the slots of ``tasks``, which are changed on the main loop."""

    def apply(usable: int) -> None:
        tasks.slots.limit(usable)
        tasks.slots_freed()

    return SlotTuning(SlotTuner(policy), state_watch, measure, lambda usable: to_main.put(apply, usable), world)
