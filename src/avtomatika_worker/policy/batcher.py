"""Decides which waiting tasks make a batch, and when it begins.

One batch runs at a time; meanwhile the next fills. When none runs, a batch that is not full begins at once, unless
waiting for another task costs those that wait less than a call of its own would: with ``n`` waiting, a call that takes
``a + b·n`` seconds and a task every ``g`` seconds, that is ``n·g < a``. ``a`` and ``b`` are fitted to the calls so far,
``g`` is the median of the latest gaps. So a lone task under low load never waits, and nothing is known that would have
to be configured.

A batch that runs out of memory halves the size for its key. The size is tried again upward, a minute later at the
earliest, half-way to what failed; after each failure twice as much later, up to a quarter of an hour.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

FIRST_HOLD: Final = 60.0
"""Seconds for which a size that ran out of memory is not tried again; doubled each further time ..."""

LONGEST_HOLD: Final = 900.0
"""... up to this."""

PATIENCE: Final = 10.0
"""Seconds after which a task without a deadline is as urgent as one whose deadline is now."""

_GAPS: Final = 15
"""Arrivals of which the gaps are remembered."""

_FADING: Final = 0.9
"""How much each call counts of the one after it."""

_MOST_LANES: Final = 128
"""Keys that are remembered while nothing waits under them."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most tasks in a batch, seconds for which one waits for others, and the most that a batch costs."""

    max_size: int
    max_wait: float
    max_cost: float = math.inf


@dataclass(eq=False, slots=True)
class Waiting:
    """A task that waits for a batch. Times are monotonic seconds; ``deadline`` is infinite without one."""

    key: Hashable
    cost: float
    arrived: float
    deadline: float = math.inf

    @property
    def urgency(self) -> float:
        """By what tasks are ordered, the least first."""
        return min(self.deadline, self.arrived + PATIENCE)


class CallTime:
    """How long a call takes by the size of its batch: ``a + b·n`` by least squares, in which older calls fade."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_weight")

    def __init__(self) -> None:
        self._weight = self._n = self._t = self._nn = self._nt = 0.0

    def add(self, size: int, seconds: float) -> None:
        """Record a call."""
        self._weight = self._weight * _FADING + 1.0
        self._n = self._n * _FADING + size
        self._t = self._t * _FADING + seconds
        self._nn = self._nn * _FADING + size * size
        self._nt = self._nt * _FADING + size * seconds

    @property
    def fit(self) -> tuple[float, float]:
        """``a`` and ``b``, neither negative. Before the first call both are 0, and after calls of one size ``b`` is."""
        if not self._weight:
            return 0.0, 0.0
        n, t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - n * n
        slope = (self._nt / self._weight - n * t) / spread if spread > 1e-9 * n * n else 0.0
        slope = min(max(0.0, slope), t / n)
        return t - slope * n, slope

    def of(self, size: int) -> float:
        """Return the seconds that a batch is expected to take."""
        a, b = self.fit
        return a + b * size


class SizeLimit:
    """How many fit into memory, as far as is known."""

    __slots__ = ("_failed_at", "_hold", "_most", "_probe_at", "size")

    def __init__(self, most: int) -> None:
        self.size: int = most
        self._most = most
        self._failed_at: int | None = None
        self._hold = FIRST_HOLD
        self._probe_at = math.inf

    def at(self, now: float) -> int:
        """Return how many may be tried now."""
        if self._failed_at is None or now < self._probe_at:
            return self.size
        return min(self._most, self.size + max(1, (self._failed_at - self.size) // 2))

    def ran_out(self, size: int, now: float) -> None:
        """Take note that a batch of ``size`` ran out of memory."""
        if size > self.size:  # a size that was tried again: the one before it works
            self._hold = min(LONGEST_HOLD, 2 * self._hold)
        else:
            self.size = max(1, size // 2)
            self._hold = FIRST_HOLD
        self._failed_at = size
        self._probe_at = now + self._hold

    def fitted(self, size: int, now: float) -> None:
        """Take note that one of ``size`` did not."""
        if size <= self.size:
            return
        self.size, self._hold, self._probe_at = size, FIRST_HOLD, now + FIRST_HOLD
        if self._failed_at is not None and self._failed_at <= size:
            self._failed_at = self._most


class _Lane:
    """What waits under one key, and what is known of its calls."""

    __slots__ = ("call_time", "gaps", "last", "size", "waiting")

    def __init__(self, most: int) -> None:
        self.waiting: list[Waiting] = []
        self.call_time: CallTime = CallTime()
        self.size: SizeLimit = SizeLimit(most)
        self.gaps: deque[float] = deque(maxlen=_GAPS)
        self.last: float | None = None

    def add(self, task: Waiting) -> None:
        if self.last is not None:
            self.gaps.append(task.arrived - self.last)
        self.last = task.arrived
        bisect.insort(self.waiting, task, key=lambda each: each.urgency)

    @property
    def gap(self) -> float:
        """Seconds between two arrivals; infinite if that is not known."""
        return sorted(self.gaps)[len(self.gaps) // 2] if self.gaps else math.inf

    def next(self, limits: BatchLimits, now: float) -> tuple[list[Waiting], bool]:
        """Return the next batch as far as it has come, and whether no further task fits."""
        most, total, batch = self.size.at(now), 0.0, list[Waiting]()
        for task in self.waiting:
            if len(batch) == most or (batch and total + task.cost > limits.max_cost):
                return batch, True
            batch.append(task)
            total += task.cost
        return batch, len(batch) == most or total >= limits.max_cost

    def due(self, limits: BatchLimits, now: float) -> float:
        """Return when its next batch should begin: no later than ``now`` means at once."""
        batch, full = self.next(limits, now)
        gap, (fixed, _) = self.gap, self.call_time.fit
        if full or self.last is None or len(batch) * gap >= fixed:
            return now
        oldest = min(each.arrived for each in batch)
        if oldest + limits.max_wait < now + gap:  # nobody else is expected in time
            return now
        in_time = min(each.deadline for each in batch) - self.call_time.of(len(batch) + 1)
        return min(oldest + limits.max_wait, self.last + max(2 * gap, fixed / 10), in_time)


class Batcher:
    """The tasks of one skill that wait, and the batches that are made of them."""

    __slots__ = ("_lanes", "_limits")

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._lanes: dict[Hashable, _Lane] = {}

    def add(self, task: Waiting) -> None:
        """Let a task wait."""
        lane = self._lane(task.key)
        self._lanes[task.key] = self._lanes.pop(task.key)  # the latest is last
        lane.add(task)
        self._forget_idle()

    def remove(self, task: Waiting) -> None:
        """Let a task wait no longer. Raises ValueError for one that does not wait."""
        self._lane(task.key).waiting.remove(task)

    def due(self, now: float) -> float | None:
        """Return when the next batch should begin, ``now`` or earlier for at once; None while nothing waits."""
        times = [lane.due(self._limits, now) for lane in self._lanes.values() if lane.waiting]
        return min(times, default=None)

    def take(self, now: float) -> list[Waiting]:
        """Return the batch that begins now: of those that are due, the one with the most urgent task."""
        lanes = [lane for lane in self._lanes.values() if lane.waiting and lane.due(self._limits, now) <= now]
        if not lanes:
            return []
        lane = min(lanes, key=lambda each: each.waiting[0].urgency)
        batch, _ = lane.next(self._limits, now)
        del lane.waiting[: len(batch)]
        return batch

    def size_limit(self, key: Hashable) -> int:
        """Return how many tasks of ``key`` are known to fit into memory, or have not been seen not to."""
        return self._lane(key).size.size

    def ran(self, key: Hashable, size: int, seconds: float, now: float) -> None:
        """Record a call that returned."""
        lane = self._lane(key)
        lane.call_time.add(size, seconds)
        lane.size.fitted(size, now)

    def ran_out(self, key: Hashable, size: int, now: float) -> None:
        """Record a call that ran out of memory."""
        self._lane(key).size.ran_out(size, now)

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def _lane(self, key: Hashable) -> _Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self._limits.max_size)
        return lane

    def _forget_idle(self) -> None:
        """Forget the keys that have not been used for longest, so that their number stays bounded."""
        over = len(self._lanes) - _MOST_LANES
        if over > 0:
            idle = [key for key, lane in self._lanes.items() if not lane.waiting]
            for key in idle[:over]:
                del self._lanes[key]
