"""Limits by skill and type, the user's own checker, and tasks that come twice."""

import asyncio
import inspect
import json
import threading
import time
from collections import Counter

import pytest

from avtomatika_worker import Batch, ConfigError, SkillDefinitionError, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from avtomatika_worker.policy.capacity import Limits
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.messages import WorkerStatus
from avtomatika_worker.tasks.limits import ConcurrencyLimiter
from avtomatika_worker.tasks.state import Catalogued, StatePublisher
from avtomatika_worker.threadsafe import Watch
from services.conftest import actions, asked_for, beats, running


class Meter:
    """Counts how many tasks run at the same time."""

    def __init__(self):
        self.now, self.most = Counter(), Counter()

    async def run(self, name, seconds=0.05):
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(seconds)
        self.now[name] -= 1


@pytest.fixture
def meter():
    return Meter()


async def nothing():
    """Do nothing."""


async def finished(jobs):
    for job in jobs:
        assert (await job.done()).state is JobState.FINISHED


async def test_a_skill_runs_at_most_as_many_tasks_at_once_as_its_limit(orchestrator, worker, meter):
    @worker.skill(max_concurrent=2)
    async def limited():
        await meter.run("limited")

    @worker.skill
    async def free():
        await meter.run("free")

    async with running(worker, orchestrator, max_concurrent_tasks=8):
        await finished([orchestrator.submit(name, {}) for _ in range(12) for name in ("limited", "free")])
    assert meter.most["limited"] == 2
    assert meter.most["free"] > 2


async def test_no_more_tasks_of_a_skill_are_taken_than_it_has_room_for(orchestrator, worker):
    """However many polls are in flight when its tasks come: each may bring one."""
    gate = asyncio.Event()

    @worker.skill(max_concurrent=2)
    async def limited():
        await gate.wait()

    @worker.skill
    async def free():
        await asyncio.sleep(0.01)

    async with running(worker, orchestrator, max_concurrent_tasks=20):
        await finished([orchestrator.submit("free", {}) for _ in range(10)])  # many polls are out now
        held = [orchestrator.submit("limited", {}) for _ in range(5)]
        await finished([orchestrator.submit("free", {}) for _ in range(10)])
        assert sum(job.state is JobState.RUNNING for job in held) == 2
        gate.set()
        await finished(held)


async def test_a_poll_for_other_skills_keeps_no_slot_from_one_that_no_poll_asks_for(worker):
    """While the slots are taken by one task and by a poll that can bring none of the tasks that wait."""
    gates = {name: asyncio.Event() for name in ("one", "two", "three")}

    def declare(name):
        @worker.skill(name, max_concurrent=1)
        async def held():
            await gates[name].wait()

    for name in gates:
        declare(name)
    async with EmbeddedOrchestrator(poll_time=30.0) as orchestrator:
        asked = asked_for(orchestrator)
        async with running(worker, orchestrator, max_concurrent_tasks=2):
            await orchestrator.wait_for(lambda: asked[-1:] == [{"one", "two", "three"}])
            one = orchestrator.submit("one", {})
            await orchestrator.wait_for(lambda: asked[-1] == {"two", "three"})
            gates["one"].set()
            await finished([one])
            await orchestrator.wait_for(lambda: asked[-1] == {"one"})
            three = orchestrator.submit("three", {})
            await orchestrator.wait_for(lambda: three.state is JobState.RUNNING)
            gates["two"].set()
            await finished([orchestrator.submit("two", {})])
            assert three.state is JobState.RUNNING
            gates["three"].set()
            await finished([three])


async def test_the_skills_of_a_type_share_its_limit(orchestrator, meter):
    worker = Worker(skill_type_limits={"gpu": 1})

    @worker.skill(type="gpu")
    async def paint():
        await meter.run("gpu")

    @worker.skill(type="gpu")
    async def render():
        await meter.run("gpu")

    async with running(worker, orchestrator, max_concurrent_tasks=8):
        await finished([orchestrator.submit(name, {}) for _ in range(6) for name in ("paint", "render")])
    assert meter.most["gpu"] == 1


async def test_a_task_over_its_limit_waits_with_its_deadline_running(orchestrator, worker):
    @worker.skill(max_concurrent=1)
    async def hold(seconds: float):
        await asyncio.sleep(seconds)

    worker.skill(nothing)  # there is something to ask for all the same

    def task(number, **more):
        fields = {"job_id": f"j{number}", "task_id": f"t{number}", "type": "hold", "params": {"seconds": 0.6}, **more}
        return Fault(call="poll", kind="body", body=json.dumps(fields).encode())

    orchestrator.inject(task(1), task(2, deadline=orchestrator.now() + 0.3))
    async with running(worker, orchestrator):
        await orchestrator.wait_for(lambda: len(results(orchestrator)) == 2)
    first, second = results(orchestrator)
    assert (first["task_id"], first["error"]["code"]) == ("t2", "TIMEOUT_ERROR")
    assert (second["task_id"], second["status"]) == ("t1", "success")


def results(orchestrator):
    return [call.json for call in orchestrator.requests if call.call == "result"]


@pytest.mark.parametrize("takes_skill", [True, False])
async def test_a_checker_decides_when_there_is_room(orchestrator, takes_skill):
    room = {"picky": False}

    def by_skill(skill):
        return room.get(skill, True)

    def for_all():
        return room["picky"]

    worker = Worker(capacity_checker=by_skill if takes_skill else for_all)

    @worker.skill
    async def picky():
        return {}

    async with running(worker, orchestrator, heartbeat_interval=0.1):
        job = orchestrator.submit("picky", {})
        await beats(orchestrator)
        assert job.state is JobState.QUEUED
        room["picky"] = True
        assert (await job.done()).state is JobState.FINISHED


async def test_tasks_that_are_here_ahead_take_no_slots_of_batched_skills(orchestrator, caplog):
    worker, done = Worker(), asyncio.Event()

    @worker.skill(max_concurrent=1, prefetch=4)
    async def ahead():
        await done.wait()

    @worker.skill(batch=Batch(max_size=4))
    async def batched(n: list[int]) -> list[int]:
        return n

    async with running(worker, orchestrator, max_concurrent_tasks=2):
        jobs = [orchestrator.submit("ahead", {}) for _ in range(6)]
        await orchestrator.wait_for(lambda: sum(job.state is JobState.RUNNING for job in jobs) == 2)
        for n in range(6):  # polls go out for each
            await finished([orchestrator.submit("batched", {"n": n})])
        assert sum(job.state is JobState.RUNNING for job in jobs) == 2
        done.set()
        await finished(jobs)
    assert "and the worker has slots for 2: set MAX_CONCURRENT_TASKS to 5" in caplog.text


async def test_a_checker_that_blocks_keeps_no_signal_from_being_heard():
    """The threads that handle signals and notices announce the end, whatever blocks the main loop."""
    announced = []

    def slow(skill):
        announcing = threading.Thread(target=publisher.announce_draining, daemon=True)
        announcing.start()
        announcing.join(5)
        announced.append(not announcing.is_alive())
        return True

    watch = Watch(WorkerState())
    publisher = StatePublisher(Slots(1), Catalogued(("echo",)), ConcurrencyLimiter(Limits(), slow), watch)
    publishing = asyncio.create_task(publisher.run(tuple))
    await watch.changed(watch.version, timeout=10)
    publishing.cancel()
    assert announced == [True]
    assert (watch.value.status, watch.value.available_skills) == (WorkerStatus.DRAINING, ())


async def test_a_checker_that_raises_is_reported_and_stops_nothing(orchestrator, caplog):
    def broken(skill):
        raise ValueError("no such GPU")

    worker = Worker(capacity_checker=broken)

    @worker.skill
    async def echo():
        return {}

    async with running(worker, orchestrator):
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED
    assert len(actions(caplog, "checker_failed")) == 1


@pytest.mark.parametrize(
    ("checker", "problem"),
    [
        (max, "its arguments cannot be read: wrap it"),
        (lambda skill, slots: True, "it must take the name of a skill, or no argument"),
        (lambda *, slots: True, "it must take the name of a skill, or no argument"),
    ],
)
def test_a_checker_that_cannot_be_called_is_an_error_that_shows_a_valid_one(checker, problem):
    if checker is max and _has_signature(max):
        pytest.skip("this Python knows its signature")
    with pytest.raises(ConfigError, match=f"capacity_checker .*: {problem}"):
        Worker(capacity_checker=checker)


@pytest.mark.parametrize("checker", [{"a": True}.get, lambda: True, lambda *, slots=1: True, lambda skill="a": True])
def test_a_checker_is_called_with_a_skill_or_with_nothing(checker):
    assert Worker(capacity_checker=checker) is not None


def _has_signature(function):
    try:
        inspect.signature(function)
    except ValueError:
        return False
    return True


async def test_wrong_limits_are_errors_that_show_valid_ones(orchestrator):
    with pytest.raises(ConfigError, match="'gpu' must have a positive integer, not 0"):
        Worker(skill_type_limits={"gpu": 0})
    worker = Worker(skill_type_limits={"gpu": 1})
    with pytest.raises(SkillDefinitionError, match="max_concurrent"):
        worker.skill("zero", max_concurrent=0)(nothing)


async def test_a_limit_for_a_type_that_no_skill_has_is_named(orchestrator, caplog):
    worker = Worker(skill_type_limits={"cpu": 1, "gpu": 1})
    worker.skill(type="cpu")(nothing)
    async with running(worker, orchestrator):
        assert (await orchestrator.submit("nothing", {}).done()).state is JobState.FINISHED
    assert actions(caplog, "limit_unused") == ["skill_type_limits: no skill has the type 'gpu' (types: cpu)"]


# ------------------------------------------------------------------------------------------- tasks that come twice


def handed_out(number, **more):
    fields = {"job_id": "j", "task_id": "t", "type": "count", "params": {"n": number}, **more}
    return Fault(call="poll", kind="body", body=json.dumps(fields).encode())


@pytest.fixture
def counting(worker):
    worker.calls = []
    worker.gate = asyncio.Event()

    @worker.skill
    async def count(n: int):
        worker.calls.append(n)
        await worker.gate.wait()
        if n < 0:
            raise RuntimeError("try again")
        return {"n": n}

    return worker


async def test_a_task_that_comes_twice_while_it_runs_is_run_once(orchestrator, counting, caplog):
    tasks = [handed_out(1, timestamp=5), handed_out(1, timestamp=5), handed_out(1, timestamp=9)]
    orchestrator.inject(*tasks)
    async with running(counting, orchestrator, max_concurrent_tasks=2):  # one slot to poll with, for one after another
        await orchestrator.wait_for(lambda: all(each.used for each in tasks) and orchestrator.workers["w1"].polls)
        assert len(actions(caplog, "task_duplicate")) == 2
        counting.gate.set()
        await orchestrator.wait_for(lambda: results(orchestrator))
    assert counting.calls == [1]
    assert len(results(orchestrator)) == 1


async def test_a_task_that_comes_again_after_its_end_is_answered_with_its_result(orchestrator, counting):
    counting.gate.set()
    orchestrator.inject(handed_out(1, timestamp=5))
    async with running(counting, orchestrator):
        await orchestrator.wait_for(lambda: len(results(orchestrator)) == 1)
        orchestrator.inject(handed_out(1, timestamp=5))
        await orchestrator.wait_for(lambda: len(results(orchestrator)) == 2)
    assert counting.calls == [1]
    first, second = results(orchestrator)
    assert (first["data"], second["data"]) == ({"n": 1}, {"n": 1})


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"number": -1, "timestamp": 5}, {"number": -1, "timestamp": 5}),  # 1.0b21 retries under the same id
        ({"number": 1, "timestamp": 5}, {"number": 1, "timestamp": 6}),
        ({"number": 1}, {"number": 2}),  # up to 1.0b9, the steps of a job share an id, and have no timestamp
    ],
)
async def test_another_task_under_the_same_id_is_run(orchestrator, counting, first, second):
    counting.gate.set()
    orchestrator.inject(handed_out(**first))
    async with running(counting, orchestrator):
        await orchestrator.wait_for(lambda: len(results(orchestrator)) == 1)
        orchestrator.inject(handed_out(**second))
        await orchestrator.wait_for(lambda: len(results(orchestrator)) == 2)
    assert counting.calls == [first["number"], second["number"]]


async def test_a_task_whose_result_waits_for_its_delivery_is_not_run_again(counting, caplog):
    counting.gate.set()
    async with EmbeddedOrchestrator(poll_time=0.2) as orchestrator:
        down = Fault(call="result", kind="status", times=None)
        orchestrator.inject(handed_out(1, timestamp=5), down)
        async with running(counting, orchestrator, max_concurrent_tasks=1):
            await orchestrator.wait_for(lambda: down.used)
            again = handed_out(1, timestamp=5)
            orchestrator.inject(again)
            await orchestrator.wait_for(lambda: again.used and orchestrator.workers["w1"].polls)
            assert actions(caplog, "task_duplicate")
            orchestrator.clear_faults()
            await orchestrator.wait_for(lambda: results(orchestrator))
        assert counting.calls == [1]


async def test_plain_skills_have_as_many_threads_as_the_setting_says(orchestrator, worker):
    guard, running_now, most = threading.Lock(), [], []

    @worker.skill
    def blocking():
        with guard:
            running_now.append(1)
            most.append(len(running_now))
        time.sleep(0.02)
        with guard:
            running_now.pop()

    async with running(worker, orchestrator, max_concurrent_tasks=8, skill_threads=2):
        await finished([orchestrator.submit("blocking", {}) for _ in range(8)])
    assert max(most) == 2
