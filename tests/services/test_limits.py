"""Who of the tasks with limits goes on when, whatever the order in which they come, compute and end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.capacity import Limits
from avtomatika_worker.tasks.limits import ConcurrencyLimiter

PLAIN, AHEAD = "plain", "ahead"
LIMITS = Limits({PLAIN: 2, AHEAD: 3}, {"gpu": 2}, {PLAIN: "gpu", AHEAD: "gpu"}, {AHEAD: 2})
"""Two of both compute at a time; of one skill, four may be here before they have computed."""

steps = st.lists(st.tuples(st.sampled_from(["come", "fetched", "computed", "end", "cancel"]), st.integers(0, 20)))


class Task:
    """A task that goes on to its next stage when it is let, and where it is."""

    def __init__(self, limiter: ConcurrencyLimiter, skill: str) -> None:
        self.skill = skill
        self.admission = limiter.request(skill)
        self.stage = "arriving"
        self.may = {stage: asyncio.Event() for stage in ("fetched", "computed", "end")}
        self.runs = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        assert self.admission is not None
        try:
            async with self.admission:
                self.stage = "here"
                await self.may["fetched"].wait()
                self.stage = "ready"
                async with AsyncExitStack() as stack:
                    if self.admission.compute is not None:
                        await stack.enter_async_context(self.admission.compute())
                    self.stage = "computing"
                    await self.may["computed"].wait()
                self.stage = "leaving"
                await self.may["end"].wait()
        finally:
            self.stage = "ended"


def holds_device(task: Task) -> bool:
    """Whether it counts for the type's limit: without prefetch, from its start to its end."""
    return task.stage in ({"here", "ready", "computing", "leaving"} if task.skill == PLAIN else {"computing"})


def check(tasks: list[Task], limiter: ConcurrencyLimiter) -> None:
    holding = sum(map(holds_device, tasks))
    ahead = [task for task in tasks if task.skill == AHEAD]
    places = [task for task in ahead if task.stage in {"here", "ready", "computing"}]
    assert holding <= 2
    assert len(places) <= 4
    # Nobody waits for what is free.
    waiting = [task for task in tasks if task.stage == ("arriving" if task.skill == PLAIN else "ready")]
    assert not waiting or holding == 2
    assert len(places) == 4 or all(task.stage != "arriving" for task in ahead)
    # Those that came first go on first.
    ready = [task for task in ahead if task.stage != "arriving"]
    assert ready == ahead[: len(ready)]
    # Tasks are asked for where there is room: with nobody in line, and not too many that leave.
    leaving = sum(task.stage == "leaving" for task in ahead)
    assert (AHEAD in limiter.available((PLAIN, AHEAD))) == (len(places) < 4 and leaving < 4)
    assert (PLAIN in limiter.available((PLAIN, AHEAD))) == (holding < 2)


@given(steps, st.lists(st.sampled_from([PLAIN, AHEAD]), min_size=1))
def test_tasks_go_on_in_turn_and_nothing_is_held_in_the_end(steps: list[tuple[str, int]], skills: list[str]) -> None:
    async def scenario() -> None:
        limiter, tasks = ConcurrencyLimiter(LIMITS, None), list[Task]()
        for step, number in steps:
            if step == "come":
                tasks.append(Task(limiter, skills[number % len(skills)]))
            elif tasks:
                task = tasks[number % len(tasks)]
                task.runs.cancel() if step == "cancel" else task.may[step].set()
            for _ in range(12):
                await asyncio.sleep(0)
            check(list(tasks), limiter)
        for task in tasks:
            task.runs.cancel()
        await asyncio.gather(*(task.runs for task in tasks), return_exceptions=True)
        assert limiter.available((PLAIN, AHEAD)) == (PLAIN, AHEAD)

    asyncio.run(scenario())


async def test_the_first_to_come_computes_first_of_those_whose_files_are_here() -> None:
    limiter = ConcurrencyLimiter(Limits({AHEAD: 1}, ahead={AHEAD: 3}), None)
    first, second, third, fourth = (Task(limiter, AHEAD) for _ in range(4))
    order: list[Task] = []

    async def settled(*tasks: Task) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        order.extend(task for task in tasks if task.stage == "computing" and task not in order)

    for task in (first, fourth, second):
        task.may["fetched"].set()
        await settled(first, second, third, fourth)
    first.may["computed"].set()
    await settled(second, third, fourth)
    third.may["fetched"].set()
    second.may["computed"].set()
    await settled(third, fourth)
    for task in (third, fourth):
        task.may["computed"].set()
        await settled(third, fourth)
    for task in (first, second, third, fourth):
        task.may["end"].set()
        await task.runs
    assert order == [first, second, third, fourth]


def test_polls_in_flight_count_for_the_limits_of_what_they_ask_for() -> None:
    limiter = ConcurrencyLimiter(LIMITS, None)
    both = (PLAIN, AHEAD)
    assert limiter.beyond([both], both) == both
    assert limiter.beyond([both, both], both) == (AHEAD,)  # it has more places than its type may compute
    assert limiter.beyond([(AHEAD,)] * 4, both) == ()
    assert limiter.beyond([("other",)] * 9, (*both, "other")) == (*both, "other")


SHARED = Limits({"half": 2, "whole": 1}, gpus={"half": 0.5, "whole": 1}, devices=(True,), ahead={"whole": 1})
"""Of one device. One more task of the skill that needs it as a whole may be here before it may run."""


async def granted(*tasks: Task) -> list[str]:
    for _ in range(10):
        await asyncio.sleep(0)
    return [task.stage for task in tasks]


async def test_no_task_gets_a_device_that_an_earlier_task_waits_for():
    limiter = ConcurrencyLimiter(SHARED, None)
    first, whole = Task(limiter, "half"), Task(limiter, "whole")
    await granted()
    whole.may["fetched"].set()
    assert await granted(first, whole) == ["here", "ready"]
    assert limiter.available(("half", "other")) == ("other",), "what is free of the device is whole's"
    behind = Task(limiter, "half")
    assert await granted(behind) == ["arriving"]
    first.runs.cancel()
    assert await granted(whole, behind) == ["computing", "arriving"]
    whole.runs.cancel()
    assert await granted(behind) == ["here"]
    behind.runs.cancel()
    await asyncio.gather(first.runs, whole.runs, behind.runs, return_exceptions=True)


async def test_a_task_that_no_longer_waits_for_devices_blocks_no_other():
    limiter = ConcurrencyLimiter(SHARED, None)
    first, whole, behind = Task(limiter, "half"), Task(limiter, "whole"), Task(limiter, "half")
    await granted()
    whole.may["fetched"].set()
    await granted()
    after = Task(limiter, "half")
    behind.runs.cancel()
    assert await granted(after) == ["arriving"]
    whole.runs.cancel()
    assert await granted(after) == ["here"]
    for task in (first, after):
        task.runs.cancel()
    await asyncio.gather(first.runs, whole.runs, behind.runs, after.runs, return_exceptions=True)


async def test_a_task_that_waits_for_its_skills_own_limit_keeps_no_device_from_others():
    limits = Limits({"whole": 1}, gpus={"half": 0.5, "whole": 1}, devices=(True, True))
    limiter = ConcurrencyLimiter(limits, None)
    tasks = [Task(limiter, each) for each in ("whole", "whole", "half", "half")]
    assert await granted(*tasks) == ["here", "arriving", "here", "here"]
    for task in tasks:
        task.runs.cancel()
    await asyncio.gather(*(task.runs for task in tasks), return_exceptions=True)
