"""Decides how many slots may be used while memory, CPU or device memory is short: fewer at once, more again gradually.

While a load is above its target, the number is lowered every few seconds, toward the number of running tasks and
further as they end; it is at most halved per step. While all loads are well below their targets, it grows by a tenth
at a time. A number that was too high is not tried again for a minute, then for two, and so on up to a quarter of an
hour: otherwise a worker whose tasks each use more than the gap between growing and shrinking would oscillate
indefinitely.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

MEMORY_TARGET: Final = 80.0
"""Percentage of the memory in use above which fewer slots are used."""

CPU_TARGET: Final = 90.0
"""Percentage of the CPUs in use above which fewer slots are used."""

DEVICE_TARGET: Final = 95.0
"""Percentage of a device's memory in use above which fewer slots are used: libraries hold on to most of it."""

LEAST_SLOTS: Final = 1
"""Slots that may always be used."""

SHRINK_EVERY: Final = 2.0
"""Seconds between steps down."""

GROW_EVERY: Final = 5.0
"""Seconds between steps up, and from a step down to the first one up."""

HEADROOM: Final = 5.0
"""Percentage points by which a load must be below its target to allow another slot."""

FIRST_HOLD: Final = 60.0
"""Seconds for which a number that was too high is not tried again; doubled each further time ..."""

LONGEST_HOLD: Final = 900.0
"""... up to this maximum."""

SMOOTHING: Final = 5.0
"""Seconds over which the CPU load is averaged: its peaks are not a shortage. Memory is not averaged."""


class Load(msgspec.Struct, frozen=True):
    """Shares of the machine, or of the container, in use, in percent.

    ``device``: of the memory of the device where it is highest; 0 without one.
    """

    memory: float
    cpu: float
    device: float = 0.0


class TunerPolicy(msgspec.Struct, frozen=True):
    """The limits on slots, and the loads not to exceed (percent)."""

    least: int
    most: int
    memory_target: float = MEMORY_TARGET
    cpu_target: float = CPU_TARGET
    device_target: float = DEVICE_TARGET


class SlotTuner:
    """Decides the number of usable slots. Times are monotonic seconds."""

    __slots__ = (
        "_again_at",
        "_changed_at",
        "_cpu",
        "_failed_at",
        "_going_down",
        "_hold",
        "_policy",
        "_seen_at",
        "usable",
    )

    def __init__(self, policy: TunerPolicy) -> None:
        if not 1 <= policy.least <= policy.most:
            raise ValueError(f"slot limits must be at least 1 and in order, not {policy.least} to {policy.most}")
        self._policy = policy
        self.usable: int = policy.most
        self._cpu: float | None = None
        self._seen_at = 0.0
        self._changed_at = -math.inf
        self._failed_at: int | None = None
        self._hold = FIRST_HOLD
        self._again_at = 0.0
        self._going_down = False

    def look(self, load: Load, running: int, now: float) -> int:
        """Record the load with ``running`` tasks, and return how many slots may be used from now on."""
        policy, cpu = self._policy, self._smoothed(load.cpu, now)
        since = now - self._changed_at
        loads = ((load.memory, policy.memory_target), (cpu, policy.cpu_target), (load.device, policy.device_target))
        is_short = any(share > target for share, target in loads)
        has_room = all(share <= target - HEADROOM for share, target in loads)
        if is_short and self.usable > policy.least and since >= SHRINK_EVERY:
            self._shrink(running, now)
        elif has_room and since >= GROW_EVERY:
            self._grow(now)
        return self.usable

    def short_of(self, load: Load) -> str | None:
        """Return which load is above its target, in words, or None."""
        policy, cpu = self._policy, load.cpu if self._cpu is None else self._cpu
        if load.memory > policy.memory_target:
            return f"memory is at {load.memory:.0f} % (target {policy.memory_target:g} %)"
        if load.device > policy.device_target:
            return f"a GPU's memory is at {load.device:.0f} % (target {policy.device_target:g} %)"
        return f"the CPU is at {cpu:.0f} % (target {policy.cpu_target:g} %)" if cpu > policy.cpu_target else None

    def _smoothed(self, cpu: float, now: float) -> float:
        if self._cpu is None:
            self._cpu = cpu
        else:
            weight = min(1.0, max(0.0, now - self._seen_at) / SMOOTHING)
            self._cpu += weight * (cpu - self._cpu)
        self._seen_at = now
        return self._cpu

    def _shrink(self, running: int, now: float) -> None:
        before = self.usable
        if not self._going_down:
            soon = self._failed_at is not None and now < self._again_at + self._hold
            self._hold = min(LONGEST_HOLD, 2 * self._hold) if soon else FIRST_HOLD
            self._failed_at = before
        self._again_at = now + self._hold
        self._going_down = True
        self._set(max(self._policy.least, min(before - 1, max(running - 1, before // 2))), now)

    def _grow(self, now: float) -> None:
        after = min(self._policy.most, self.usable + max(1, self.usable // 10))
        if self._failed_at is not None and self.usable < self._failed_at:
            after = min(after, self._failed_at - (now < self._again_at))
        if after > self.usable:
            self._going_down = False
            self._set(after, now)

    def _set(self, usable: int, now: float) -> None:
        self.usable = usable
        self._changed_at = now
