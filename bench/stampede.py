"""What a fleet does to its orchestrators when they restart: simulated with the worker's own back-off.

Every worker notices the break in the same moment (its poll ends), tries to register, and backs off by `policy.backoff`
until the orchestrators are there again. These are one queue in front of as many cores as there are orchestrators. What
a worker has no answer to after `CALL_TIMEOUT` it gives up, and the orchestrators have worked for nothing.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from avtomatika_worker.link.link import CALL_TIMEOUT
from avtomatika_worker.policy.backoff import Backoff, BackoffPolicy

BUSY_AT_MOST = 0.5
"""Share of the orchestrators' time that an idle fleet may take: what is left is for tasks and restarts."""

GIVEN_UP_AFTER = 3600.0
"""Seconds after which a simulation ends although not every worker is back."""


@dataclass(frozen=True)
class Costs:
    """What a worker costs an orchestrator: seconds of CPU for coming back, and seconds a second while it is idle."""

    coming_back: float
    idle: float

    def orchestrators_for(self, workers: int) -> int:
        """Return how many a fleet needs, each with a core of its own."""
        return max(2, math.ceil(workers * self.idle / BUSY_AT_MOST))


@dataclass
class Course:
    """How a stampede went. Times are in seconds after the break; ``tries`` and ``back`` count by the second."""

    workers: int
    orchestrators: int
    outage: float
    tries: Counter[int] = field(default_factory=Counter)
    back: Counter[int] = field(default_factory=Counter)
    given_up: int = 0
    quiet: float | None = None

    @property
    def peak(self) -> int:
        """The most tries in a second once the orchestrators are there again."""
        return max((count for second, count in self.tries.items() if second >= int(self.outage)), default=0)


class Queue:
    """The orchestrators: work is done in the order in which it comes, by what the idle fleet leaves of their time."""

    def __init__(self, costs: Costs, orchestrators: int) -> None:
        self._costs = costs
        self._orchestrators = orchestrators
        self._done_at = 0.0
        self.registered = 0

    def take(self, now: float) -> float:
        """Take a registration; return when it is answered."""
        left = max(0.05 * self._orchestrators, self._orchestrators - self.registered * self._costs.idle)
        self._done_at = max(now, self._done_at) + self._costs.coming_back / left
        return self._done_at


def simulate(
    workers: int,
    outage: float,
    costs: Costs,
    *,
    jitter: bool = True,
    policy: BackoffPolicy | None = None,
    orchestrators: int | None = None,
    seed: int = 1,
) -> Course:
    """Simulate an outage. Without ``jitter`` every delay is its ceiling, and the first try comes at once."""
    policy = policy or BackoffPolicy()
    chance = random.Random(seed)
    draw: Callable[[], float] = chance.random if jitter else lambda: 1.0
    course = Course(workers, orchestrators or costs.orchestrators_for(workers), outage)
    queue = Queue(costs, course.orchestrators)
    backoffs = [Backoff(policy) for _ in range(workers)]
    first = (lambda: chance.random() * policy.initial) if jitter else lambda: 0.0
    events = [(first(), number) for number in range(workers)]
    heapq.heapify(events)
    while events and events[0][0] < GIVEN_UP_AFTER:
        now, number = heapq.heappop(events)
        course.tries[int(now)] += 1
        answered = math.inf if now < outage else queue.take(now)
        if answered - now <= CALL_TIMEOUT:
            queue.registered += 1
            course.back[int(answered)] += 1
            course.quiet = max(course.quiet or 0.0, answered)
            continue
        if now >= outage:
            course.given_up += 1
        failed_at = now if now < outage else now + CALL_TIMEOUT
        heapq.heappush(events, (failed_at + backoffs[number].failed(draw()), number))
    if queue.registered < workers:
        course.quiet = None
    return course
